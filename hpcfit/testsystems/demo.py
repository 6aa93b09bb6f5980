"""The files of `tools/demo`: candidate trajectories, an observed map made from other ones, and the truth beside it.

    python -m hpcfit.testsystems.demo make FOLDER            what is there already is kept
    python -m hpcfit.testsystems.demo compare FOLDER RUN     what `hpcfit optimize` recovered, beside the truth

FOLDER gets crystal.pdb, candidates/*.dcd, truth/*.dcd, observed.npz and truth.json.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from hpcfit import log
from hpcfit.data.files import write_text, written_whole
from hpcfit.errors import HpcfitError, InputError
from hpcfit.log import logger
from hpcfit.physics import reciprocal, scattering
from hpcfit.testsystems import dipeptide
from hpcfit.testsystems.dipeptide_crystal import STATES, Crystal, fractional_frames, simulate, write_topology
from hpcfit.testsystems.mixture_map import Detector, State, detect, mixture_intensity, usable

# No trajectory of the fit shares a seed with one of the truth.
SEEDS = {"candidates": (1, 2), "truth": (11, 12)}
PROCESSES = 2


@dataclass(frozen=True)
class Demo:
    """What is simulated and measured. shares: the part of the crystal in each state, which the fit is to find."""

    crystal: Crystal = field(default_factory=Crystal)
    detector: Detector = field(default_factory=Detector)
    shares: dict[str, float] = field(default_factory=lambda: {"C7eq": 0.7, "alphaR": 0.3})
    noise_seed: int = 2


def trajectories(folder: Path, purpose: str, state: str) -> list[Path]:
    """The files of one state, for the purpose `candidates` or `truth`."""
    return [folder / purpose / f"{state}_{seed}.dcd" for seed in SEEDS[purpose]]


def make(folder: Path, demo: Demo) -> None:
    """Everything that the demo fits, in `folder`; what an interrupted call left complete is kept."""
    _same_settings(folder / "settings.json", asdict(demo))
    write_topology(demo.crystal, folder / "crystal.pdb")
    # Spawned, not forked: OpenMM has threads of its own.
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        _simulate_all(folder, demo, pool.map)
        if not (folder / "truth.json").exists():
            _observe(folder, demo, pool.map)


def _same_settings(path: Path, settings: dict) -> None:
    text = json.dumps(settings, indent=1) + "\n"
    if path.exists() and path.read_text() != text:
        raise InputError(
            f"{path} differs from what is to be simulated now", remedy=f"remove {path.parent}, or choose another folder"
        )
    write_text(path, text)


def _simulate_all(folder: Path, demo: Demo, over: Callable) -> None:
    jobs = [
        (state, seed, path)
        for purpose, seeds in SEEDS.items()
        for state in STATES
        for seed, path in zip(seeds, trajectories(folder, purpose, state))
    ]
    for done, path in enumerate(over(simulate, repeat(demo.crystal), *zip(*jobs)), start=1):
        logger.info("trajectory %d of %d: %s, %d frames", done, len(jobs), path, demo.crystal.frames)


def _observe(folder: Path, demo: Demo, over: Callable) -> None:
    """Write observed.npz, and truth.json with what the results of a fit can be held against."""
    hkl, cell, ndiv = _reflections(demo), (*demo.crystal.cell, 90.0, 90.0, 90.0), demo.crystal.supercell
    use = usable(demo.detector, hkl, ndiv, cell)
    logger.info("structure factors of the truth by direct summation: %d reflections, %d masked", len(use), (~use).sum())
    truth = mixture_intensity(_states(folder, demo, "truth", over))
    intensity, sigma = detect(demo.detector, truth, use, demo.noise_seed)
    with written_whole(folder / "observed.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, hkl=hkl, intensity=intensity, sigma=sigma, mask=use, ndiv=ndiv, cell=cell, space_group="P 1"
        )
    candidates = _states(folder, demo, "candidates", over)
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
    }
    write_text(folder / "truth.json", json.dumps(facts, indent=1) + "\n")


def _reflections(demo: Demo) -> np.ndarray:
    return reciprocal.sphere((*demo.crystal.cell, 90.0, 90.0, 90.0), demo.crystal.supercell, demo.detector.d_min)


def _states(folder: Path, demo: Demo, purpose: str, over: Callable) -> list[State]:
    """The structure factors of all frames of each state.

    Those of the truth are summed directly over the atoms: not by the FFT of `hpcfit prepare`, which they are to check.
    """
    transform = {"truth": _direct, "candidates": _fft}[purpose]
    paths = [path for state in STATES for path in trajectories(folder, purpose, state)]
    f_th = np.split(np.concatenate(list(over(transform, repeat(demo), paths))), len(STATES))
    return [State(f, demo.shares[state]) for state, f in zip(STATES, f_th)]


def _elements(demo: Demo) -> list[str]:
    return [atom.split(":")[1][0] for atom in dipeptide.ATOMS] * demo.crystal.molecules


def _direct(demo: Demo, path: Path) -> np.ndarray:
    hkl, elements = _reflections(demo), _elements(demo)
    inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), (*demo.crystal.box, 90.0, 90.0, 90.0))
    frames = fractional_frames(demo.crystal, path)
    return np.array([scattering.structure_factors_direct(elements, x, hkl, inv_d2) for x in frames])


def _fft(demo: Demo, path: Path) -> np.ndarray:
    box = (*demo.crystal.box, 90.0, 90.0, 90.0)
    calculate = scattering.DensityFFT(_elements(demo), box, _reflections(demo), demo.detector.d_min)
    return np.array([calculate(x) for x in fractional_frames(demo.crystal, path)])


def comparison(folder: Path, run: Path) -> str:
    """Shares and correlations found by the run, beside the truth, as a table in words."""
    truth = json.loads((folder / "truth.json").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
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
    log.set_up(0, 1)
    try:
        match arguments:
            case ["make", folder]:
                make(Path(folder), Demo())
            case ["compare", folder, run]:
                sys.stdout.write(comparison(Path(folder), Path(run)) + "\n")
            case _:
                raise InputError(f"arguments {arguments} are not understood", remedy=__doc__)
    except HpcfitError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
