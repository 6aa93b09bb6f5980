"""The RNA tetramers of MDRefine (LGPL) as a config of this kind, and the minimum that two other programs agree on."""

from pathlib import Path

import tomli_w

LOSS = 1.38968443435
EXPECTED = {  # by ensemble: chi2, KL(P || P_ff), KL(P_ff || P_0)
    "AAAA": (0.730951, 0.248747, 0.036640),
    "CAAU": (0.260638, 0.064414, 0.032912),
}
CHANGE = 0.100128
CURVES = {"gamma": [9.7, -1.8, 0.0], "beta": [15.3, -6.1, 1.6], "sugar": [9.67, -2.03, 0.0]}
TORSIONS = {"backbone1_gamma": "gamma", "backbone2_beta_epsilon": "beta", "sugar": "sugar"}


def config(data: Path, directory: Path, solver: str) -> str:
    """The text of a config that fits them to 1e-8 of the loss."""
    problem = {
        "kind": "force-field",
        "estimator": "tabulated",
        "solver": solver,
        "alpha": 2.340135734692994,
        "beta": 1.1258465568636136,
        "gamma": 0.8264053324749188,
        "resamples": 0,
        "ensemble": [_ensemble(data / name, name) for name in EXPECTED],
        "curve": [{"name": name, "coefficients": values, "fitted": True} for name, values in CURVES.items()],
        "correction": [
            {"name": "sin alpha", "columns": [0, 1, 2]},
            {"name": "cos alpha", "columns": [6, 7, 8]},
        ],
    }
    optimizer = {"relative_tolerance": 1e-13, "max_steps": 2000}
    return tomli_w.dumps({"run": {"directory": str(directory)}, "problem": problem, "optimizer": optimizer})


def _ensemble(folder: Path, name: str) -> dict:
    couplings = [
        {
            "name": stem,
            "torsions": str(folder / "forward_qs" / f"{stem}.npy"),
            "curve": curve,
            "measured": str(folder / "g_exp" / f"{stem}_3J.npy"),
        }
        for stem, curve in TORSIONS.items()
    ]
    intensities = [
        {
            "name": stem,
            "calculated": str(folder / "observables" / f"{stem}.npy"),
            "measured": str(folder / "g_exp" / f"{stem}.npy"),
        }
        for stem in ("NOEs", "uNOEs")
    ]
    intensities[1]["bound"] = "upper"
    return {"name": name, "terms": str(folder / "ff_terms.npy"), "data": [*couplings, *intensities]}
