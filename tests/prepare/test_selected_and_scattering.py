"""`hpcfit prepare` with a part of the atoms, and with X-rays, neutrons or electrons: recorded, and not mixed up."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import FormFactors, structure_factors_direct
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import world_ranks
from hpcfit.store.positions import open_position_store, read_block
from hpcfit.store.reference import restored
from hpcfit.store.structure_factors import FactorContent, open_store
from tests.command import here
from tests.conftest import assert_one_clear_error
from tests.prepare.test_inputs_as_meant import write_config, write_dcd, write_pdb

ROWS = [
    ("N", "N", "GLY"), ("CA", "C", "GLY"), ("C", "C", "GLY"), ("O", "O", "GLY"),
    ("O", "O", "HOH"), ("H1", "H", "HOH"), ("H2", "H", "HOH"), ("NA", "NA", "NA"), ("CL", "CL", "CL"),
]  # fmt: skip
ELEMENTS = np.array(["N", "C", "C", "O", "O", "H", "H", "Na", "Cl"])
PARTS = {
    "protein": [0, 1, 2, 3], "water": [4, 5, 6], "ions": [7, 8], "not water": [0, 1, 2, 3, 7, 8],
    "element O or ions": [3, 4, 7, 8], "resname GLY and not name CA": [0, 2, 3],
}  # fmt: skip
SOURCE = 'trajectory = "run.dcd"\ntopology = "top.pdb"'


@pytest.fixture
def folder(tmp_path):
    x = np.random.default_rng(11).uniform(0, 10, (3, len(ROWS), 3))
    rows, number = [], {"GLY": 1, "HOH": 2, "NA": 3, "CL": 4}
    write_pdb(tmp_path / "top.pdb", [(name, element, place) for (name, element, _), place in zip(ROWS, x[0])])
    lines = (tmp_path / "top.pdb").read_text().splitlines()
    for line, (_, _, residue) in zip(lines[1:-1], ROWS, strict=True):
        rows.append(f"{line[:17]}{residue:<3} A{number[residue]:4d}{line[26:]}")
    (tmp_path / "top.pdb").write_text("\n".join([lines[0], *rows, lines[-1], ""]))
    write_dcd(tmp_path / "run.dcd", x, (10.0, 10.0, 10.0))
    return tmp_path, np.float32(x).astype(float)


def prepared(path, more, **options):
    config = load_config(write_config(path, SOURCE, more=f'd_min = 2.0\ndtype = "complex64"\n{more}', **options), ())
    run_prepare(config, world_ranks())
    return config


def factors(path):
    store = open_store(path / "store")
    hkl = store.reference.reflections.hkl
    with store.shard(0) as shard:
        return hkl, restored(shard.read(0, slice(0, len(hkl))), store.reference)


def expected(x, atoms, hkl, what=FormFactors()):  # noqa: B008
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), (10, 10, 10, 90, 90, 90))
    return np.array([structure_factors_direct(ELEMENTS[atoms], one[atoms] / 10, hkl, inv_d2, what) for one in x])


def assert_is(found, wanted):
    scale = np.sqrt(np.mean(np.abs(wanted) ** 2))
    assert np.abs(found - wanted).max() < 1e-3 * scale  # errors of the FFT are some 1e-5 of rms |F|


@pytest.mark.parametrize("selection", list(PARTS))
def test_a_selection_scatters_alone_and_is_recorded(folder, selection):
    path, x = folder
    prepared(path, f'selection = "{selection}"')
    hkl, found = factors(path)
    assert_is(found, expected(x, PARTS[selection], hkl))
    assert FactorContent.begun_with(path / "store")[1]["selection"] == f'"{selection}"'


def test_parts_add_up_to_the_whole(folder):
    path, _ = folder
    total = 0
    for number, part in enumerate(("protein", "water", "ions", "")):
        (path / "store").rename(path / f"store{number}") if (path / "store").exists() else None
        prepared(path, f'selection = "{part}"' if part else "")
        found = factors(path)[1]
        total = total + found if part else total
    assert_is(total, found)


def test_a_selection_of_positions_keeps_their_residues(folder):
    path, x = folder
    config = load_config(write_config(path, SOURCE, content="positions"), ())
    text = (path / "config.toml").read_text().replace("[[prepare", 'selection = "protein or ions"\n[[prepare')
    (path / "config.toml").write_text(text)
    config = load_config(path / "config.toml", ())
    run_prepare(config, world_ranks())
    store = open_position_store(path / "store")
    assert store.particles.residue_names == ("GLY", "NA", "CL")
    np.testing.assert_array_equal(read_block(store, store.blocks()[0])[0], np.float32(x[:, PARTS["not water"]]))


def test_a_selection_of_nothing_lists_residues_and_another_one_is_another_store(folder):
    path, _ = folder
    done = here("prepare", write_config(path, SOURCE, more='d_min = 2.0\nselection = "nucleic"'))
    assert_one_clear_error(done, ["selection 'nucleic' selects none of the 9 particles", "GLY", "HOH", "NA", "CL"])
    done = here("prepare", write_config(path, SOURCE, more='d_min = 2.0\nselection = "protein and"'))
    assert_one_clear_error(done, ["selection 'protein and' is not understood"])
    prepared(path, 'selection = "protein"')
    with pytest.raises(InputError, match=r"was prepared with selection = \"protein\"; the config has \"water\""):
        prepared(path, 'selection = "water"')


@pytest.mark.parametrize("radiation", ["xray", "neutron", "electron"])
def test_a_store_is_of_one_radiation(folder, radiation):
    path, x = folder
    prepared(path, f'radiation = "{radiation}"')
    hkl, found = factors(path)
    assert_is(found, expected(x, np.arange(9), hkl, FormFactors(radiation)))
    other = "neutron" if radiation == "electron" else "electron"
    with pytest.raises(InputError, match="was prepared with radiation ="):
        prepared(path, f'radiation = "{other}"')


def test_stores_of_other_radiation_are_not_joined_and_one_made_of_another_says_its_own(folder):
    path, _ = folder
    for name in ("neutron", "electron"):
        prepared(path, f'radiation = "{name}"')
        (path / "store").rename(path / name)
    sources = ['store = "neutron"\n[[prepare.source]]\nstore = "electron"', 'store = "neutron"']
    with pytest.raises(InputError, match=r'neutron has radiation = "neutron", store .*electron has "electron"'):
        run_prepare(load_config(write_config(path, sources[0], more=""), ()), world_ranks())
    run_prepare(load_config(write_config(path, sources[1], more=""), ()), world_ranks())
    assert FactorContent.begun_with(path / "store")[1]["radiation"] == '"neutron"'


def test_charges_of_ions(folder):
    path, x = folder
    prepared(path, "charges = { Na = 1, Cl = -1 }")
    hkl, found = factors(path)
    assert_is(found, expected(x, np.arange(9), hkl, FormFactors("xray", (("Cl", -1), ("Na", 1)))))
    done = here("prepare", write_config(path, SOURCE, more="d_min = 2.0\ncharges = { Mg = 2 }"))
    assert_one_clear_error(done, ["charges name Mg; the sources have C, Cl, H, N, Na, O"])
    done = here("prepare", write_config(path, SOURCE, more='d_min = 2.0\nradiation = "neutron"\ncharges = { Na = 1 }'))
    assert_one_clear_error(done, ["`charges` choose X-ray form factors"])
