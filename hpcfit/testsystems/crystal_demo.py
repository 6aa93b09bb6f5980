"""The demo of frame weights: systems to simulate, an observed map made of some trajectories, and the truth beside it.

`hpcfit init` writes the systems into FOLDER, simulates FOLDER/candidates and, with another seed, FOLDER/truth, and has
the map made of the latter: observed.npz, and truth.json with what a fit can be held against. All paths are those of
config/frame_weights.toml.

    python -m hpcfit.testsystems.crystal_demo FOLDER RUN     what `hpcfit optimize` recovered, beside the truth
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hpcfit import log
from hpcfit.errors import HpcfitError, InputError
from hpcfit.log import logger
from hpcfit.physics import reciprocal, scattering
from hpcfit.readers.positions import open_positions
from hpcfit.runs.files import RunFiles
from hpcfit.store.files import write_text, written_whole
from hpcfit.store.pieces import pieces_digest
from hpcfit.testsystems.dipeptide_crystal import STATES, Crystal, write_system
from hpcfit.testsystems.mixture_map import Detector, State, detect, mixture_intensity, usable

PROCESSES = 2


@dataclass(frozen=True)
class Demo:
    """The crystal of the demo and its detector. shares: the part in each state, which the fit is to find."""

    crystal: Crystal = field(default_factory=Crystal)
    detector: Detector = field(default_factory=Detector)
    shares: dict[str, float] = field(default_factory=lambda: {"C7eq": 0.7, "alphaR": 0.3})
    noise_seed: int = 2


def write_systems(folder: Path, demo: Demo) -> None:
    """Write the topology and the OpenMM System of each state into `folder`; the same files every time."""
    for state in STATES:
        write_system(demo.crystal, state, folder)


def observe(folder: Path, demo: Demo) -> None:
    """Write observed.npz, and truth.json with what the results of a fit can be held against, unless they are there."""
    made_of, path = _made_of(folder, demo), folder / "truth.json"
    if path.exists() and json.loads(path.read_text()).get("made_of") == made_of:
        logger.info("%s is there, made of these trajectories", path)
        return
    hkl, cell, ndiv = _reflections(demo), (*demo.crystal.cell, 90.0, 90.0, 90.0), demo.crystal.supercell
    use = usable(demo.detector, hkl, ndiv, cell)
    logger.info("structure factors of the truth by direct summation: %d reflections, %d masked", len(use), (~use).sum())
    # Not by the FFT of `hpcfit prepare`, which they are to check.
    truth = mixture_intensity(_states(folder / "truth", demo, _direct))
    intensity, sigma = detect(demo.detector, truth, use, demo.noise_seed)
    with written_whole(folder / "observed.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, hkl=hkl, intensity=intensity, sigma=sigma, mask=use, ndiv=ndiv, cell=cell, space_group="P 1"
        )
    candidates = _states(folder / "candidates", demo, _fft)
    models = {
        "noise-free truth": truth,
        "candidates, true shares": mixture_intensity(candidates),
        "candidates, equal shares": mixture_intensity([c._replace(share=1 / len(STATES)) for c in candidates]),
    }
    facts = {
        "shares": demo.shares,
        "voxels": int(use.sum()),
        "masked": int((~use).sum()),
        "cc": {name: float(np.corrcoef(x[use], intensity[use])[0, 1]) for name, x in models.items()},
        "made_of": made_of,
    }
    write_text(path, json.dumps(facts, indent=1) + "\n")


def _made_of(folder: Path, demo: Demo) -> dict:
    """What decides the map, as JSON knows it: the demo's numbers and the digest of each trajectory."""
    trajectories = {
        f"{purpose}/{path.name}": pieces_digest(path, open_positions(path, None).n_frames - 1)
        for purpose in ("candidates", "truth")
        for paths in _trajectories(folder / purpose).values()
        for path in paths
    }
    return json.loads(json.dumps({"demo": asdict(demo), "trajectories": trajectories}))


def _trajectories(folder: Path) -> dict[str, list[Path]]:
    """Those of each state."""
    paths = {state: sorted(folder.glob(f"{state}_*_r*")) for state in STATES}
    if not all(paths.values()):
        raise InputError(f"{folder} has no trajectory of {' or '.join(paths)}", remedy="run `hpcfit simulate` before")
    return paths


def _reflections(demo: Demo) -> np.ndarray:
    return reciprocal.sphere((*demo.crystal.cell, 90.0, 90.0, 90.0), demo.crystal.supercell, demo.detector.d_min)


def _states(folder: Path, demo: Demo, transform: Callable) -> list[State]:
    """The structure factors of all frames of each state, of the trajectories in `folder`."""
    paths = _trajectories(folder)
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"), initializer=_use_one_thread) as pool:
        found = {state: list(pool.map(partial(transform, demo), paths[state])) for state in STATES}
    return [State(np.concatenate(f_th), demo.shares[state]) for state, f_th in found.items()]


def _use_one_thread() -> None:
    """Threads of BLAS that wait for each other would take the cores of the other processes."""
    threadpool_limits(1)


def _direct(demo: Demo, path: Path) -> np.ndarray:
    hkl, (elements, frames) = _reflections(demo), _fractional_frames(demo, path)
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), (*demo.crystal.box, 90.0, 90.0, 90.0))
    return np.array([scattering.structure_factors_direct(elements, x, hkl, inv_d2) for x in frames])


def _fft(demo: Demo, path: Path) -> np.ndarray:
    elements, frames = _fractional_frames(demo, path)
    box = (*demo.crystal.box, 90.0, 90.0, 90.0)
    calculate = scattering.DensityFFT(elements, box, _reflections(demo), demo.detector.d_min)
    return np.array([calculate(x) for x in frames])


def _fractional_frames(demo: Demo, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Elements and frames of a trajectory, [T, N, 3] in fractions of the supercell's edges."""
    reader = open_positions(path, None)
    frames = reader.frames(range(reader.n_frames))
    return reader.elements, np.array([frame.positions for frame in frames]) / demo.crystal.box


def comparison(folder: Path, run: Path) -> str:
    """Shares and correlations found by the run, beside the truth, as a table in words."""
    truth = json.loads((folder / "truth.json").read_text())
    metrics = RunFiles(run).metrics
    found, cc, fitted = _shares(run / "sources.csv"), truth["cc"], metrics["fitted"]
    shares = [f"  {state:26s} {found[state]:7.3f}    {share:.3f}" for state, share in truth["shares"].items()]
    lines = [
        "share of the crystal         recovered    truth",
        *shares,
        f"correlation with the observed map ({truth['voxels']} voxels used, {truth['masked']} masked)",
        f"  fitted weights             {fitted['cc']:.4f}",
        f"  uniform weights            {metrics['uniform']['cc']:.4f}"
        f"  (without a store: {cc['candidates, equal shares']:.4f})",
        f"  true shares                {cc['candidates, true shares']:.4f}  (of the same candidate frames)",
        f"  noise-free truth           {cc['noise-free truth']:.4f}  (what the noise leaves)",
        f"effective sample size        {fitted['ess']:.1f} of {metrics['frames']} frames",
        f"report                       {(run / 'report.html').resolve()}",
    ]
    return "\n".join(lines)


def _shares(path: Path) -> dict[str, float]:
    """The summed weight of each label in a run's sources.csv."""
    result = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            result[row["label"]] = result.get(row["label"], 0.0) + float(row["weight"])
    return result


def main(arguments: list[str]) -> int:
    """Print the comparison of FOLDER and RUN; the exit code."""
    log.set_up(0, 1)
    try:
        if len(arguments) != 2:
            raise InputError(f"arguments {arguments} are not understood", remedy=__doc__)
        sys.stdout.write(comparison(*map(Path, arguments)) + "\n")
    except HpcfitError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
