"""Ab-initio MD of the argyrodites Li6PS5I and Li6PS5Cl as a benchmark with a known answer.

The runs are of three classes, with 0, 50 and 100 % anion disorder.
The target map is that of runs which the fit does not see; the candidates are the other runs of all three classes. In
the iodide the disorder shows in the scattering, in the chloride it cannot: S and Cl have nearly the same electrons.

Data: B. J. Morgan, 10.1021/acs.chemmater.0c03738 (MIT licence); 37 runs, 416 atoms, 2 x 2 x 2 cells.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcfit.data.catalog import Store, open_store
from hpcfit.data.reference import restored
from hpcfit.data.shard import open_shard
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.testsystems.synthetic import write_map

CLASSES = ("0p", "50p", "100p")
TARGET_RUNS = ("run1", "run2", "run3")
D_MIN = 1.5


def prepare_config(data: Path, material: str, runs: dict[str, list[str]], store: str) -> str:
    """The text of a config for `hpcfit prepare`. runs: the runs of each class."""
    sources = "".join(
        f'[[prepare.source]]\nlabel = "{label}"\n'
        f"trajectory = {[str(data / material / label / run / 'actual_XDATCAR.gz') for run in names]}\n"
        for label, names in runs.items()
    )
    return f'[frames]\nstore = "{store}"\n[prepare]\nsupercell = [2, 2, 2]\nd_min = {D_MIN}\n' + sources.replace(
        "'", '"'
    )


def split_runs(data: Path, material: str, target: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """(candidates, target): the first three runs of the target class make the map, all others are candidates."""
    there = {label: sorted(path.name for path in (data / material / label).iterdir()) for label in CLASSES}
    candidates = {
        label: [run for run in runs if label != target or run not in TARGET_RUNS] for label, runs in there.items()
    }
    return candidates, {target: [run for run in there[target] if run in TARGET_RUNS]}


def all_frames(store: Store) -> np.ndarray:
    """F_th of a whole store, [T, H] complex128."""
    rows = []
    for number in range(len(store.shards)):
        with open_shard(store.path(number)) as shard:
            for block in range(-(-shard.n_frames // 64)):
                rows.append(restored(shard.read(block, slice(0, len(store.reference.reflections))), store.reference))
    return np.concatenate(rows)


def write_target(store: Path, path: Path) -> None:
    """The diffuse intensity of a store's frames, uniformly weighted, as a measured map."""
    opened = open_store(store)
    F_th = all_frames(opened)
    write_map(path, opened.reference.reflections, diffuse_intensity(F_th, np.full(len(F_th), 1 / len(F_th))))


def fit_config(laue: str, run: str) -> str:
    """The text of a config for `hpcfit optimize` on the candidates."""
    return (
        f'[run]\ndirectory = "{run}"\n[frames]\nstore = "candidates.store"\n[experiment]\nfile = "target.npz"\n'
        f'[problem]\nkind = "frame-weights"\nlaue = "{laue}"\nd_min = {D_MIN}\n'
    )
