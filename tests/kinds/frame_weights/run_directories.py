"""Synthetic run directories in the format of kind "frame-weights", for the tests of the report. What is not proven
here: that a real fit writes the same; tests of the store do that."""

import csv
import json
from pathlib import Path

import h5py
import numpy as np

from hpcfit.physics import reciprocal

CONFIG = '[problem]\nkind = "frame-weights"\nlaue = "{laue}"\n'


def make_run(
    directory: Path, *, sources=(("md", "", 50),), laue="4/m", ndiv=(1, 1, 1), cell=(40, 40, 60, 90, 90, 90), **options
) -> dict:
    """Write a finished run and return what it holds.

    `sources` are (name, label, frames); options: d_min, spread, missing, evaluations, shells, warnings, seed.
    """
    rng = np.random.default_rng(options.get("seed", 0))
    directory.mkdir(parents=True, exist_ok=True)
    _write_unfinished(directory, laue, options.get("evaluations", 40))
    frames = sum(n for _, _, n in sources)
    weight = rng.dirichlet(np.full(frames, options.get("spread", 0.5)))
    rows = _write_weights(directory, sources, weight)
    orbits = _write_map(directory, (laue, np.array(ndiv), cell), options, rng)
    metrics = _metrics(sources, weight, (laue, orbits), options)
    (directory / "metrics.json").write_text(json.dumps(metrics))
    return {"metrics": metrics, "sources": rows, "weight": weight, "orbits": orbits}


STUDY = {
    "objective": "pearson, total",
    "theta": 0.03,
    "starts": [
        {"start": "prior", "groups": {"A": 0.7, "B": 0.3}, "stopped": "small change", "misfit": -0.95, "cc": 0.95,
         "cc_anisotropic": 0.812, "ess": 41.5, "kl": 0.51},
        {"start": "random 1", "groups": {"A": 0.69, "B": 0.31}, "stopped": "small change", "misfit": -0.9496,
         "cc": 0.9496, "cc_anisotropic": 0.811, "ess": 40.25, "kl": 0.52},
        {"start": "B", "groups": {"A": 0.2, "B": 0.8}, "stopped": "small change", "misfit": -0.9, "cc": 0.9,
         "cc_anisotropic": 0.75, "ess": 17.75, "kl": 1.5},
    ],
    "cross_validation": [
        {"theta": theta, "folds": [-free - 0.01, -free, -free + 0.01], "misfit": -0.9, "misfit_free": -free,
         "misfit_free_error": 0.0058, "cc_free": free, "cc_free_error": 0.0058, "cc_free_anisotropic": free - 0.2,
         "cc_free_anisotropic_error": 0.0071, "ess": 33.0}
        for theta, free in ((None, 0.84), (0.3, 0.86), (0.03, 0.9), (0.0, 0.89))
    ],
    "l_curve": [
        {"theta": theta, "loss": -cc, "misfit": -cc, "cc": cc, "cc_anisotropic": cc - 0.1, "ess": 60.0, "kl": kl}
        for theta, cc, kl in ((0.3, 0.88, 0.0625), (0.03, 0.94, 0.4375), (0.0, 0.96, 1.3125))
    ],
    "errors": {
        "frames": {"resamples": 8, "groups": {"A": 0.03, "B": 0.03}, "sources": {"a": 0.03, "b": 0.03},
                   "metrics": {"cc": 0.0003, "cc_anisotropic": 0.003, "ess": 3.0}},
        "orbits": {"resamples": 7, "groups": {"A": 0.04, "B": 0.04}, "sources": {"a": 0.04, "b": 0.04},
                   "metrics": {"cc": 0.0004, "cc_anisotropic": 0.004, "ess": 4.0}},
    },
    "groups": [
        {"group": "A", "frames": 30, "prior": 0.6, "weight": 0.7, "delta_G": -0.3845},
        {"group": "B", "frames": 20, "prior": 0.4, "weight": 0.3, "delta_G": 0.7176},
    ],
    "dropping": [
        {"frames": 45, "cc": 0.9515, "cc_anisotropic": 0.8145, "misfit": -0.9515, "ess": 38.5},
        {"frames": 41, "cc": 0.9525, "cc_anisotropic": 0.8155, "misfit": -0.9525, "ess": 36.5},
    ],
    "fits": ["start prior", "start random 1", "start B", "final", "dropping 1", "dropping 2"],
    "final_fit": 3,
    "evaluations_of_all_fits": 64,
    "passes": 1,
}  # fmt: skip


def make_study(directory: Path, **changes) -> dict:
    """Write a finished run of several fits with the numbers of STUDY, of sources "a" and "b" labelled A and B.

    ``changes`` replace entries of its metrics.json; None leaves an entry out. Returns the metrics.
    """
    metrics = make_run(directory, sources=(("a", "A", 30), ("b", "B", 20)), d_min=8.0)["metrics"]
    metrics = {key: value for key, value in (metrics | STUDY | changes).items() if value is not None or key == "theta"}
    (directory / "metrics.json").write_text(json.dumps(metrics))
    rows = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    fit = np.minimum(np.arange(len(rows)) // 8, 5)  # 8 evaluations a fit
    with (directory / "history.jsonl").open("w") as file:
        file.writelines(json.dumps({"fit": int(n), **row}) + "\n" for n, row in zip(fit, rows, strict=True))
    return metrics


def make_unfinished(directory: Path, evaluations=7) -> None:
    """Write what a run leaves that was killed before its end."""
    directory.mkdir(parents=True, exist_ok=True)
    _write_unfinished(directory, "4/m", evaluations)


def _write_unfinished(directory, laue, evaluations):
    (directory / "config.toml").write_text(CONFIG.format(laue=laue))
    (directory / "environment.json").write_text(
        json.dumps({"hpcfit": "0.1.0", "host": "node<1>", "packages": {"jax": "0.9"}})
    )
    with (directory / "history.jsonl").open("w") as file:
        for n in range(1, evaluations + 1):
            gap = np.exp(-n / 6)
            row = {
                "evaluation": n,
                "step": n,
                "loss": -0.95 + 0.3 * gap,
                "cc": 0.95 - 0.3 * gap,
                "cc_anisotropic": 0.81 - 0.4 * gap,
                "ess": 20 + 80 * gap,
                "kl": 0.9 * (1 - gap),
                "gradient_norm": 0.3 * gap**2,
                "seconds": 0.1 * n,
                "compute_seconds": 0.08,
                "reduce_seconds": 0.0123,
            }
            file.write(json.dumps(row) + "\n")


def _write_weights(directory, sources, weight):
    names, labels, index = (
        np.concatenate([part(*s) for s in sources])
        for part in (
            lambda name, label, n: np.full(n, name, object),
            lambda name, label, n: np.full(n, label, object),
            lambda name, label, n: np.arange(n),
        )
    )
    with h5py.File(directory / "weights.h5", "w") as file:
        for key, values in {"source": names, "label": labels}.items():
            file.create_dataset(key, data=values, dtype=h5py.string_dtype())
        file.update(
            {
                "frame": np.arange(len(weight)),
                "index": index,
                "weight": weight,
                "log_weight": np.log(np.maximum(weight, 1e-300)),
            }
        )
    ends = np.cumsum([n for _, _, n in sources])
    rows = [
        {
            "source": name,
            "label": label,
            "frames": n,
            "uniform_weight": n / len(weight),
            "weight": float(weight[end - n : end].sum()),
        }
        for (name, label, n), end in zip(sources, ends, strict=True)
    ]
    with (directory / "sources.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def _write_map(directory, crystal, options, rng):
    laue, ndiv, cell = crystal
    hkl = reciprocal.sphere(cell, ndiv, options.get("d_min", 4.0))
    orbit, size = reciprocal.laue_orbits(hkl, reciprocal.laue_operations(laue), ndiv)
    _, first = np.unique(orbit, return_index=True)
    kept = rng.random(len(first)) >= options.get("missing", 0.03)
    hkl, size = hkl[first][kept], size[kept]
    s = np.sqrt(reciprocal.inverse_d2(hkl, ndiv, cell))
    ring = 40 * np.exp(-(((s - 0.16) / 0.08) ** 2)) + 5
    streak = np.cos(2 * np.pi * hkl[:, 0] / ndiv[0] * 0.3) ** 2 * np.cos(2 * np.pi * hkl[:, 2] / ndiv[2] * 0.21) ** 2
    model = ring * (0.6 + streak)
    observed = 120 + 3 * model + rng.normal(0, 8, len(s))
    orbits = {
        "hkl": hkl,
        "inverse_d": s,
        "shell": reciprocal.shells(s**2, 10)[0],
        "multiplicity": size,
        "observed": observed,
        "calculated": model * (1 + 0.03 * rng.normal(size=len(s))),
        "uniform": ring * (0.8 + 0.5 * streak + 0.2 * rng.random(len(s))),
    }
    with h5py.File(directory / "map.h5", "w") as file:
        file.update(orbits)
        file.attrs.update({"ndiv": ndiv, "cell": np.array(cell, float), "laue": laue})
    return orbits


def _metrics(sources, weight, crystal, options):
    laue, orbits = crystal
    frames = len(weight)
    fitted = {
        "cc": 0.95123456,
        "cc_anisotropic": 0.81357911,
        "ess": float(1 / np.square(weight).sum()),
        "kl": 0.87654321,
    }
    uniform = {"cc": 0.84567891, "cc_anisotropic": 0.56789123, "ess": float(frames), "kl": 0.0}
    n = options.get("shells", 10)
    edges = np.cbrt(np.linspace(orbits["inverse_d"].min() ** 3, orbits["inverse_d"].max() ** 3, n + 1))
    shells = [
        {
            "d_max": 1 / edges[i],
            "d_min": 1 / edges[i + 1],
            "orbits": 100 + i,
            "cc": 0.93 - 0.02 * i,
            "cc_uniform": 0.8 - 0.045 * i,
        }
        for i in range(n)
    ]
    return {
        "kind": "frame-weights",
        "frames": frames,
        "reflections": int(orbits["multiplicity"].sum()) // 2,
        "orbits": len(orbits["hkl"]),
        "laue": laue,
        "ranks": 2,
        "grid": [2, 1],
        "temperature": 300.0,
        "fitted": fitted,
        "uniform": uniform,
        "shells": shells,
        "stopped": "the relative change of the loss stayed below 1e-09 for 5 steps",
        "evaluations": 40,
        "steps": 31,
        "phases": [
            {"name": "read", "seconds": 1.234},
            {"name": "compile", "seconds": 3.1},
            {"name": "fit", "seconds": 187.4},
            {"name": "results", "seconds": 0.0421},
        ],
        "rate": {"gb_per_s_per_rank": 4.321, "bandwidth_gb_per_s": 9.876, "fraction": 0.43753},
        "objective": "pearson, total",
        "left_out": {"reflections not measured": 17, "Bragg reflections": 0},
        "warnings": options.get("warnings", []),
    }
