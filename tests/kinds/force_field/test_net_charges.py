"""Charges of systems of OpenMM that move and keep net charges, down to the file that is written."""

import numpy as np
import pytest
from openmm import NonbondedForce, XmlSerializer, app, unit

from hpcfit.kinds.force_field.config import ParameterConfig
from hpcfit.kinds.force_field.parameters import moving
from hpcfit.kinds.force_field.simulated.opened import open_system
from hpcfit.kinds.force_field.simulated.systems_config import StateConfig
from tests.energies.openmm_cases import Case, waters
from tests.energies.openmm_cases import _peptide as peptide


def water() -> Case:
    topology, positions = waters(2)
    topology.setUnitCellDimensions((1.0, 1.0, 1.0))
    options = {"nonbondedMethod": app.PME, "nonbondedCutoff": 0.45}
    return Case(app.ForceField("tip3p.xml").createSystem(topology, **options), topology, positions)


def two_residues() -> Case:
    """N-methylacetamide, ACE-NME, of amber14: alanine dipeptide without ALA."""
    whole = peptide("amber14-all.xml")
    modeller = app.Modeller(whole.topology, whole.positions * unit.nanometer)
    [alanine] = [one for one in whole.topology.residues() if one.name == "ALA"]
    modeller.delete([alanine])
    first, last = modeller.topology.residues()
    [carbon] = [atom for atom in first.atoms() if atom.name == "C"]
    [nitrogen] = [atom for atom in last.atoms() if atom.name == "N"]
    modeller.topology.addBond(carbon, nitrogen)
    positions = np.array(modeller.positions.value_in_unit(unit.nanometer))
    return Case(app.ForceField("amber14-all.xml").createSystem(modeller.topology), modeller.topology, positions)


def charges(xml: str) -> np.ndarray:
    system = XmlSerializer.deserialize(xml)
    [force] = [one for one in system.getForces() if isinstance(one, NonbondedForce)]
    values = (force.getParticleParameters(atom)[0] for atom in range(system.getNumParticles()))
    return np.array([value.value_in_unit(unit.elementary_charge) for value in values])


def opened(case, tmp_path):
    """The system of a case, by the files that it is written to."""
    (tmp_path / "system.xml").write_text(XmlSerializer.serialize(case.system))
    with (tmp_path / "system.pdb").open("w") as file:
        app.PDBFile.writeFile(case.topology, case.positions * unit.nanometer, file)
    np.save(tmp_path / "positions.npy", case.positions)
    table = {
        "name": "it", "system": str(tmp_path / "system.xml"), "topology": str(tmp_path / "system.pdb"),
        "positions": str(tmp_path / "positions.npy"), "temperature": 300.0,
        "observable": [{"name": "u", "observable": "potential-energy", "values": 0.0, "sigma": 1.0}],
    }  # fmt: skip
    return open_system(StateConfig.model_validate(table))


@pytest.mark.parametrize(
    ("made", "free", "follow"), [(water, 1, 1), (lambda: peptide("amber14-all.xml"), None, 1)], ids=["water", "peptide"]
)
def test_the_file_with_moved_charges_has_the_net_charges_of_the_one_that_was_read(made, free, follow, tmp_path):
    one = opened(made(), tmp_path)
    found = moving([ParameterConfig(name="charge")], [one])
    n = len(one.parameters["charge"])
    assert len(found.labels) == n
    assert len(found.free) == n - follow
    assert free in (None, len(found.free))
    u = {"charge": np.random.default_rng(0).normal(size=n - follow)}
    before = charges((tmp_path / "system.xml").read_text())
    after = charges(one.loaded.to_xml(found.at(u, one.parameters)))
    assert np.max(np.abs(after - before)) > 1e-3
    for molecule in one.molecules:
        assert after[list(molecule)].sum() == pytest.approx(before[list(molecule)].sum(), abs=1e-12)


def test_residues_keep_their_net_charges_in_the_file_that_is_written(tmp_path):
    """ACE and NME of amber14 without ALA between them; each is neutral, and so it stays."""
    one = opened(two_residues(), tmp_path)
    assert (len(one.molecules), [len(atoms) for atoms in one.residues]) == (1, [6, 6])
    found = moving([ParameterConfig(name="charge", net_charge="residues")], [one])
    n = len(one.parameters["charge"])
    assert (len(found.labels), len(found.free)) == (n, n - 2)
    u = {"charge": np.random.default_rng(0).normal(size=n - 2)}
    before = charges((tmp_path / "system.xml").read_text())
    after = charges(one.loaded.to_xml(found.at(u, one.parameters)))
    for atoms in map(list, one.residues):
        assert np.max(np.abs(after - before)[atoms]) > 1e-3
        assert after[atoms].sum() == pytest.approx(before[atoms].sum(), abs=1e-12)
