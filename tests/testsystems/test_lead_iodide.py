"""Lead and iodide by OpenMM: the energy of pairs by its formula, and a start without atoms on each other.

Not proved: that its clusters are those of the implementation that its numbers were fitted to.
"""

import numpy as np
import pytest

from hpcfit.energies.constants import COULOMB
from hpcfit.readers.positions import open_positions
from hpcfit.testsystems.lead_iodide import (
    CHARGE,
    EPSILON,
    PERMITTIVITY,
    SIGMA,
    SPECIES,
    WELL,
    WHERE,
    WIDTH,
    Solution,
    write,
)

FEW = Solution(lead=2, side=60.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("openmm")
    folder = tmp_path_factory.mktemp("lead")
    write(folder, FEW, seed=3)
    return folder


def pair(a, b, r):
    """kJ/mol, without charges; r: A."""
    sixth = (SIGMA[a][b] / r) ** 6
    core = 4 * EPSILON * (sixth**2 - sixth) + EPSILON if sixth > 0.5 else 0.0
    return core - (WELL * np.exp(-((r - WHERE) ** 2) / (2 * WIDTH**2)) if {a, b} == {0, 2} else 0.0)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], ids=lambda one: SPECIES[one])
def test_the_energy_of_a_pair_is_that_of_its_formula(folder, a, b):
    import openmm

    system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    kinds = FEW.species
    first, second = kinds.index(a), len(kinds) - 1 - kinds[::-1].index(b)
    # Others stand apart, on a lattice of 15 A, beyond the cut-off of 12 A.
    lattice = np.stack(np.meshgrid(*[np.arange(4) * 15.0] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[: len(kinds)]
    lattice[first] = [52.5, 52.5, 52.5]

    def energy(r):
        lattice[second] = lattice[first] + [r, 0, 0]
        context.setPositions(lattice / 10)
        return context.getState(getEnergy=True).getPotentialEnergy().value_in_unit(openmm.unit.kilojoule_per_mole)

    near, far = 2.6, 5.4
    charges = 10 * COULOMB / PERMITTIVITY * CHARGE[a] * CHARGE[b]
    expected = pair(a, b, near) - pair(a, b, far) + charges * (1 / near - 1 / far)
    # images of the pair and the other charges change by 3 A of some 15 to 60 A: dipoles, below 1 kJ/mol
    assert energy(near) - energy(far) == pytest.approx(expected, abs=1.0 if charges else 1e-2)


def test_the_start_is_one_particle_a_place_of_a_lattice(folder):
    found = open_positions(folder / "start.pdb", None)
    frame = next(found.frames(range(1)))
    assert found.topology.elements == ("Pb",) * 2 + ("I",) * 4 + ("O",) * 8
    distances = np.linalg.norm(frame.positions[:, None] - frame.positions, axis=2)
    assert distances[np.triu_indices(len(distances), 1)].min() == pytest.approx(FEW.side / 3, abs=2e-3)
