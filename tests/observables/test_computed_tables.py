"""Numbers of frames computed from a store of positions: distances, NOE of groups, torsions and scattering."""

import pickle

import gemmi
import numpy as np
import pytest

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.config.observables.experiments import CurveConfig
from hpcfit.errors import InputError
from hpcfit.observables.frame_tables import open_data
from hpcfit.testsystems import averaged_ensembles

T = 150  # three blocks in two shards, the last one of 22 frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("positions")
    averaged_ensembles.write_positions(place / "store", positions())
    return place


def positions():
    """As the store holds them."""
    return averaged_ensembles.frames((75, 75), 1).positions.astype(np.float32).astype(float)


def opened(folder, experiment, **more):
    (folder / "exp.dat").write_text(experiment)
    paths = {"measured": folder / "exp.dat", "positions": folder / "store"}
    curves = [CurveConfig(name="proton", coefficients=[7.0, -1.0, 1.5], offset=0.2)]
    return open_data(AveragedConfig(name="data", **paths, **more), curves)


def test_distances_and_those_of_groups_are_of_the_positions(folder):
    x, noe = positions(), "# DATA={}\na 4.0 0.4\nb 5.0 0.5\n"
    r = lambda i, j: np.linalg.norm(x[:, i] - x[:, j], axis=1)  # noqa: E731
    found = opened(folder, noe.format("DIST"), observable="distances", atoms=[[0, 10], [3, 6]])
    np.testing.assert_allclose(found.frames.rows(slice(None)), np.stack([r(0, 10), r(3, 6)], 1), rtol=1e-12)
    found = opened(folder, noe.format("NOE"), observable="distances", atoms=[[0, 10], [[3, 4], 6]])
    grouped = np.mean([r(3, 6) ** -6.0, r(4, 6) ** -6.0], axis=0)
    np.testing.assert_allclose(found.features(slice(10, 140))[:, 1], (grouped * 5.0**6)[10:140], rtol=1e-10)


def test_a_part_of_the_frames_has_the_bits_of_all_and_a_table_travels(folder):
    table = opened(folder, "a 4 0.4\n", observable="distances", atoms=[[0, 10]]).frames
    whole = table.rows(slice(None))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(table)).rows(slice(64, 131)), whole[64:131])
    assert whole.shape == (T, 1)


def test_torsions_become_cosines_along_a_curve(folder):
    found = opened(folder, "a 4 0.4\n", observable="torsions", atoms=[[0, 3, 6, 9]], curve="proton")
    x = positions()[:, [0, 3, 6, 9]]
    expected = [gemmi.calculate_dihedral(*(gemmi.Position(*atom) for atom in frame)) for frame in x]
    c = np.cos(np.array(expected) + 0.2)
    np.testing.assert_allclose(found.features(slice(None)), np.stack([c, c**2], axis=1), atol=1e-10)


def test_scattering_is_the_sum_of_debye(folder):
    found = opened(folder, "0.0 400 1\n0.1 300 1\n0.4 100 1\n", observable="scattering", adjusted="scale")
    x = positions()
    r = np.linalg.norm(x[:, :, None] - x[:, None], axis=-1)
    f = [gemmi.Element("C").it92.calculate_sf((q / (4 * np.pi)) ** 2) for q in (0.0, 0.1, 0.4)]
    expected = [one**2 * np.sinc(q * r / np.pi).sum(axis=(1, 2)) for one, q in zip(f, (0.0, 0.1, 0.4))]
    np.testing.assert_allclose(found.frames.rows(slice(None)), np.transpose(expected), rtol=1e-9)


@pytest.mark.parametrize(
    ("experiment", "more", "said"),
    [
        ("a 4 0.4\n", {"observable": "distances", "atoms": [[0, 11]]}, "atoms has .0, 11. for a distance, .* 11 atoms"),
        ("a 4 0.4\n", {"observable": "distances", "atoms": [[0, 0]]}, "2 different atoms"),
        ("a 4 0.4\n", {"observable": "distances", "atoms": [[0, 1], [1, 2]]}, "2 rows, .* has 1 data"),
        ("a 4 0.4\n", {"observable": "distances", "atoms": [[[0, 1], 2]]}, "a power for distances"),
        ("a 4 0.4\n", {"observable": "scattering"}, "names its data 'a'"),
    ],
)
def test_atoms_that_cannot_be_are_one_error(folder, experiment, more, said):
    with pytest.raises(InputError, match=f"(?s){said}"):
        opened(folder, experiment, **more)


def test_a_store_of_structure_factors_has_no_positions(tmp_path):
    averaged_ensembles.write_joint(tmp_path, "", n_frames=8, d_min=20.0)
    (tmp_path / "frames.store").rename(tmp_path / "store")
    with pytest.raises(InputError, match="is a store of structure-factors"):
        opened(tmp_path, "a 4 0.4\n", observable="distances", atoms=[[0, 10]])
