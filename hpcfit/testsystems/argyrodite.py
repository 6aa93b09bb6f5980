"""Ab-initio MD of the argyrodites Li6PS5I and Li6PS5Cl as a benchmark with a known answer.

The runs are of three classes, with 0, 50 and 100 % anion disorder.
The target map is that of the first three runs of a class, or of a mixture of two; the candidates are the other runs of
all classes, the same whatever the target. In the iodide the disorder shows in the scattering, in the chloride it
cannot: S and Cl have nearly the same electrons.

Data: B. J. Morgan, 10.1021/acs.chemmater.0c03738 (MIT licence); 37 runs, 416 atoms, 2 x 2 x 2 cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hpcfit.store.reference import restored
from hpcfit.store.structure_factors import FactorStore, open_store
from hpcfit.testsystems.mixture_map import State, mixture_intensity
from hpcfit.testsystems.synthetic import write_map

CLASSES = ("0p", "50p", "100p")
TARGET_RUNS = ("run1", "run2", "run3")
D_MIN = 1.5

Mixture = Mapping[str, float]  # the share of each class in a target


def prepare_config(data: Path, material: str, store: str, stride: int = 1) -> str:
    """The text of a config for `hpcfit prepare`: all runs of a material, labelled by their class."""
    files = {label: sorted((data / material / label).glob("*/actual_XDATCAR.gz")) for label in CLASSES}
    sources = "".join(
        f'[[prepare.source]]\nlabel = "{label}"\nstride = {stride}\ntrajectory = {_strings(map(str, paths))}\n'
        for label, paths in files.items()
    )
    return f'[frames]\nstore = "{store}"\n[prepare]\nsupercell = [2, 2, 2]\nd_min = {D_MIN}\n{sources}'


def target_runs(classes: Sequence[str] = CLASSES) -> list[str]:
    """Patterns of the sources that make targets: the first three runs of each class."""
    return [f"{label}/{run}/*" for label in classes for run in TARGET_RUNS]


def all_frames(store: FactorStore, include: Sequence[str] = ("*",)) -> np.ndarray:
    """F_th of the sources that match one of the patterns, [T, H] complex128."""
    columns, rows = slice(0, len(store.reference.reflections)), []
    for number in sorted({block.shard for block in store.blocks(include)}):
        with store.shard(number) as shard:
            for block in range(shard.n_blocks):
                rows.append(restored(shard.read(block, columns), store.reference))
    return np.concatenate(rows)


def write_target(store: Path, mixture: Mixture, path: Path) -> None:
    """The diffuse intensity of the runs that are held out, each class with its share, as a measured map."""
    opened = open_store(store)
    states = [State(all_frames(opened, target_runs([label])), share) for label, share in mixture.items()]
    write_map(path, opened.reference.reflections, mixture_intensity(states))


def fit_config(store: Path, target: str, run: str, options: str = "") -> str:
    """The text of a config for `hpcfit optimize` on the candidates. options: further lines, of [problem] first."""
    return (
        f'[run]\ndirectory = "{run}"\n[frames]\nstore = "{store}"\nexclude = {_strings(target_runs())}\n'
        f'[experiment]\nfile = "{target}"\n[problem]\nkind = "frame-weights"\nd_min = {D_MIN}\n{options}'
    )


def _strings(texts: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{text}"' for text in texts) + "]"
