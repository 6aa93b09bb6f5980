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


def charges(xml: str) -> np.ndarray:
    system = XmlSerializer.deserialize(xml)
    [force] = [one for one in system.getForces() if isinstance(one, NonbondedForce)]
    values = (force.getParticleParameters(atom)[0] for atom in range(system.getNumParticles()))
    return np.array([value.value_in_unit(unit.elementary_charge) for value in values])


@pytest.mark.parametrize(
    ("made", "free", "follow"), [(water, 1, 1), (lambda: peptide("amber14-all.xml"), None, 1)], ids=["water", "peptide"]
)
def test_the_file_with_moved_charges_has_the_net_charges_of_the_one_that_was_read(made, free, follow, tmp_path):
    case = made()
    (tmp_path / "system.xml").write_text(XmlSerializer.serialize(case.system))
    with (tmp_path / "system.pdb").open("w") as file:
        app.PDBFile.writeFile(case.topology, case.positions * unit.nanometer, file)
    np.save(tmp_path / "positions.npy", case.positions)
    table = {
        "name": "it", "system": str(tmp_path / "system.xml"), "topology": str(tmp_path / "system.pdb"),
        "positions": str(tmp_path / "positions.npy"), "temperature": 300.0,
        "observable": [{"name": "u", "observable": "potential-energy", "values": 0.0, "sigma": 1.0}],
    }  # fmt: skip
    one = open_system(StateConfig.model_validate(table))
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
