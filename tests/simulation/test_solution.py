"""Solutions that [[simulate.system]] makes: what is in them, the same bytes again, and a run from nothing.

Not proved: that the dynamics is right (OpenMM's), or that a solution is in equilibrium.
"""

import random
from collections import Counter

import numpy as np
import pytest
from openmm import app, unit

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.readers.topology import read_particles
from hpcfit.simulation.solution import write_solutions
from hpcfit.store.pieces import read_chain
from tests.command import here
from tests.simulation import simulations

SOLUTION = """
[[simulate.system]]
name = "brine"
force_field = ["amber14/tip3p.xml"]
cutoff = 6.0
solution = {{ edge = {edge}, salt = {salt} }}
"""


def written(folder, edge=14.0, salt=4.0, **keys):
    config = simulations.write_config(folder, SOLUTION.format(edge=edge, salt=salt), **keys)
    write_solutions(load_config(config).simulate)
    return folder / "trajectories" / "brine.pdb"


def test_a_solution_has_as_many_ions_as_its_salt(tmp_path):
    """n pairs for N molecules that were there before: n = round(N c / 55.4 mol/L), in the place of 2 n of them."""
    found = app.PDBFile(str(written(tmp_path)))
    names = Counter(residue.name for residue in found.topology.residues())
    before = names.total()
    assert names["NA"] == names["CL"] == round(before * 4.0 / 55.4) > 0
    assert names["HOH"] == before - 2 * names["NA"]
    # Water has 0.0334 molecules in A^3; at the walls of so small a cube some do not fit.
    assert 0.8 < before / (0.0334 * 14.0**3) < 1.1
    np.testing.assert_allclose(found.topology.getUnitCellDimensions().value_in_unit(unit.angstrom), 14.0)
    assert Counter(read_particles(tmp_path / "trajectories/brine.pdb", None).elements) == {
        "O": names["HOH"], "H": 2 * names["HOH"], "Na": names["NA"], "Cl": names["CL"]
    }  # fmt: skip


def test_without_salt_it_is_water(tmp_path):
    found = app.PDBFile(str(written(tmp_path, salt=0.0)))
    assert {residue.name for residue in found.topology.residues()} == {"HOH"}


def test_it_is_the_same_again_and_another_with_another_seed(tmp_path):
    """And the generator of all, which OpenMM draws from, is left as it was."""
    folders = [tmp_path / name for name in ("one", "again", "other")]
    random.seed(1)
    state = random.getstate()
    texts = []
    for folder, seed in zip(folders, (0, 0, 1)):
        folder.mkdir()
        texts.append(written(folder, seed=seed).read_bytes())
        assert random.getstate() == state
    assert texts[0] == texts[1] != texts[2]
    assert b"REMARK" not in texts[0]


def test_what_is_there_is_kept(tmp_path):
    path = written(tmp_path)
    path.write_text("the structure of an earlier job")
    write_solutions(load_config(tmp_path / "config.toml").simulate)
    assert path.read_text() == "the structure of an earlier job"


def test_simulate_makes_its_structure_and_goes_on_from_it(tmp_path):
    keys = {"frames": 2, "interval": 0.02, "equilibration": 0.1, "piece": 1}
    config = simulations.write_config(tmp_path, SOLUTION.format(edge=13.0, salt=2.0), **keys)
    done = here("simulate", config, "--set", "simulate.frames=1", "--set", "cluster.workers=1")
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "trajectories/brine.pdb").read_bytes()
    done = here("simulate", config, "--set", "cluster.workers=1")
    assert done.returncode == 0, done.stderr
    (replica,) = simulations.replicas(config)
    assert replica.system.topology.read_bytes() == before
    assert read_chain(replica.folder, replica.settings.digest).frames == 2


BRINE = '[[simulate.system]]\nname = "brine"\nforce_field = ["amber14/tip3p.xml"]\n'
THERE = '[simulate]\ndirectory = "trajectories"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (THERE + BRINE, "either `topology` (a structure) or `solution`"),
        (THERE + BRINE + 'topology = "x.pdb"\nsolution = { edge = 14.0 }\n', "either `topology` (a structure) or"),
        (THERE + BRINE + 'state = "x.xml"\nsolution = { edge = 14.0 }\n', "leave `system` and `state` out"),
        (THERE + BRINE + 'solution = { edge = 14.0, cation = "K+" }\n', "cation would have no effect without salt"),
        (BRINE + "solution = { edge = 14.0 }\n", "a `solution` is written to `directory`"),
    ],
    ids=range(5),
)
def test_mistakes_are_named(tmp_path, text, words):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_config(path)
    assert words in str(caught.value)


def test_a_force_field_that_lacks_water_is_named(tmp_path):
    text = SOLUTION.format(edge=14.0, salt=4.0).replace("amber14/tip3p.xml", "amber14/protein.ff14SB.xml")
    config = simulations.write_config(tmp_path, text)
    with pytest.raises(InputError, match=r"system 'brine': a solution cannot be made with .*ff14SB\.xml"):
        write_solutions(load_config(config).simulate)
