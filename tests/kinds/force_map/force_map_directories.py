"""Synthetic run directories of kind "force-map", for the tests of its report. Not proven here: that a run writes the
same; tests of the case do that."""

import json
from pathlib import Path

import h5py
import numpy as np

FACTOR = 0.2390057361376673  # kcal/mol/A of one kJ/mol/A
MAPS = ("slice", "basic", "optimal", "local")
RESIDUES = ("GLY", "ALA", "TRP")
ATOMS = 4  # of a residue: the first two are a rigid group with the bead's atom, the others are free
CONFIG = '[problem]\nkind = "force-map"\n'


def make_force_map(directory: Path, *, residues=RESIDUES, drop=(), **changes) -> dict:
    """Write a finished run with everything that a report can show; returns its metrics.

    drop: files that are not written. ``changes`` replace entries of metrics.json; None leaves an entry out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.toml").write_text(CONFIG)
    (directory / "environment.json").write_text(json.dumps({"hpcfit": "0.1.0", "host": "node<1>"}))
    write_history(directory)
    write_maps(directory / "maps.h5", residues)
    write_potentials(directory / "potentials.h5")
    write_simulation(directory / "simulation.h5")
    for name in drop:
        (directory / name).unlink()
    metrics = {key: value for key, value in (_metrics(residues) | changes).items() if value is not None}
    (directory / "metrics.json").write_text(json.dumps(metrics))
    return metrics


def write_history(directory: Path) -> None:
    """Two fits of five evaluations."""
    rows = [
        {"fit": n // 5, "step": n, "evaluation": n + 1, "loss": 1.0 / (n % 5 + 1),
         "residual": 900.0 + 100 / (n % 5 + 1), "residual_free": 950.0 + 100 / (n % 5 + 1), "gradient_norm": 0.1,
         "seconds": 0.1 * n, "compute_seconds": 0.08, "reduce_seconds": 0.01}
        for n in range(10)
    ]  # fmt: skip
    (directory / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def coefficients(name: str, n: int) -> np.ndarray:
    """W [N, n] of N = n / 4 beads: 1 on the bead's group, and for fitted maps some on the atoms around it."""
    W = np.kron(np.eye(n // ATOMS), [1.0, 0.0 if name == "slice" else 1.0, 0.0, 0.0])
    if name in ("optimal", "local"):
        for bead in range(n // ATOMS):
            W[bead, ATOMS * bead + 2] = 0.625 - bead / 16
            W[bead, ATOMS * bead + 3] = -0.03125
            if bead + 1 < n // ATOMS:
                W[bead, ATOMS * (bead + 1) + 3] = 0.25
    return W


def write_maps(path: Path, residues=RESIDUES, chosen="local", **names) -> None:
    """maps.h5; ``names`` of beads or atoms replace those that are made up."""
    n_residues = len(residues)
    n = ATOMS * n_residues
    beads = [f"{name}{number + 1} CA" for number, name in enumerate(residues)]
    within = np.tile([0, 0, 1, 2], n_residues)
    with h5py.File(path, "w") as file:
        file.attrs.update(chosen=chosen, unit="(kJ/mol/A)^2", hpcfit_version="0.1.0")
        _texts(file, "beads", names.get("beads", beads))
        _texts(file, "atoms", names.get("atoms", ["CA", "HA", "N", "C"] * n_residues))
        _texts(file, "residue_names", residues)
        file["residue"] = np.repeat(np.arange(n_residues, dtype=np.int32), ATOMS)
        file["residue_numbers"] = np.arange(1, n_residues + 1, dtype=np.int32)
        file["group"] = np.repeat(np.arange(n_residues), ATOMS) * 3 + within
        file["M/bead"], file["M/atom"] = np.arange(n_residues), ATOMS * np.arange(n_residues)
        file["M/coefficient"] = np.ones(n_residues)
        for place, name in enumerate(MAPS):
            bead, atom = np.nonzero(W := coefficients(name, n))
            group = file.create_group(name)
            group["bead"], group["atom"], group["coefficient"] = bead, atom, W[bead, atom]
            group["held_out"] = 1000.0 * np.array([12.0, 10.0, 3.0, 2.5])[place] + np.arange(n_residues)
            group["held_out_error"] = np.full(n_residues, 30.0)
            group["fitted"], group["free"] = group["held_out"][()] - 20.0, np.full(n_residues, 3.0)
            if name in ("optimal", "local"):
                own = atom // ATOMS == bead
                group["error"] = np.where(own & (atom % ATOMS < 2), 0.0, 0.015625 * (1 + bead % 3))


def write_potentials(path: Path, exact: bool = True, angles: int = 2) -> None:
    """Terms of one class of pairs and of bonds, and ``angles`` of angles."""
    terms = [("pairs one-one", 3.0, 9.0), ("bonds one-one", 3.0, 4.0)]
    terms += [(f"angles one-one-{number}", 1.5, 2.6) for number in range(angles)]
    with h5py.File(path, "w") as file:
        for name in MAPS:
            for number, (term, low, high) in enumerate(terms):
                q = np.linspace(low, high, 60)
                U = 4.0 * (q - (low + high) / 2) ** 2 + (name == "slice") * q
                group = file.create_group(f"{name}/{term}")
                group["q"], group["U"], group["error"] = q, U - U.min(), np.full(60, 0.3)
                group["dU"], group["coverage"] = np.gradient(U, q), np.full(12, 100.0 + number)
        if exact:
            r = np.linspace(2.5, 10.0, 80)
            file["exact/r"], file["exact/U"], file["exact/f"] = r, 4.0 * (r - 6) ** 2, -8.0 * (r - 6)


def write_simulation(path: Path, slow: bool = True) -> None:
    """Two profiles, and two slow coordinates."""
    with h5py.File(path, "w") as file:
        for name, label in (("end to end", "distance of the first bead from the last"), ("rmsd", "RMSD")):
            x = np.linspace(4.0, 20.0, 30)
            F = (x - 9) ** 2 / 8
            file[f"profile {name}/x"] = x
            for side, shift in (("reference", 0.0), ("model", 0.5)):
                file[f"profile {name}/{side}"] = np.where(x > 18, np.inf, F + shift)
                file[f"profile {name}/{side}_error"] = np.where(x > 18, np.nan, 0.4)
            _texts(file, f"profile {name}/label", [label])
            file[f"profile {name}/divergence"] = [0.0625, 0.0078125]
        if slow:
            edges = np.linspace(-2, 2, 21)
            F = np.add.outer(edges[:-1] ** 2, 2 * edges[:-1] ** 2)
            file["tica/edges_x"], file["tica/edges_y"] = edges, edges
            file["tica/reference"], file["tica/model"] = np.where(F > 9, np.inf, F), np.where(F > 8, np.inf, F)
            file["tica/divergence"] = [0.03125, np.nan]


def _texts(file, name, values) -> None:
    file.create_dataset(name, data=list(values), dtype=h5py.string_dtype())


def _metrics(residues) -> dict:
    names = dict(zip(MAPS, (12_000.0, 10_000.0, 3_000.0, 2_500.0)))
    return {
        "kind": "force-map", "frames": 1500, "atoms": ATOMS * len(residues), "beads": len(residues), "groups": 9,
        "constraints": "3 of pairs", "statistical_blocks": 10, "temperature": 350.0,
        "unit": {"name": "kcal/mol/A", "factor": FACTOR},
        "maps": [_map(name, value) for name, value in names.items()],
        "chosen": "local", "mapped": "/data/mapped", "noise": None,
        "learning": {
            name: [{"frames": n, "fitted": value - 40_000 / n, "held_out": value + 40_000 / n, "predicted": value}
                   for n in (150, 300, 1050)]
            for name, value in names.items()
        },
        "inefficiency": {"spans": [1, 2, 4, 8], "of": {name: [1.0, 1.02, 1.03, 1.031] for name in MAPS}},
        "comparison": {
            "reference": "basic",
            "maps": [{"name": name, "cross": [1.75, 0.875], "cross_in_errors": 2.0, "difference_in_errors": 1.5,
                      "doubt": 0.25, "agrees": True, "verdict": f"verdict on {name}"} for name in MAPS],
        },
        "decomposition": [
            {"potential": "none", "map": name, "chi2": [540.0, 8.0], "pmf_error": [144.0, 2.0], "noise": [326.0, 5.0],
             "cross": [70.0, 3.5], "cross_in_errors": 20.0, "bias": [13.5, 0.25]} for name in ("slice", "basic")
        ],
        "force_matching": {
            "functions": 36,
            "linear": [{"map": name, "ridge": 1e-3, "train": value - 100, "held_out": [value - 90, 20.0], "empty": 3,
                        "curve": [[0.0, value], [1e-3, value - 90], [1.0, value + 500]]}
                       for name, value in names.items()],
            "neural": [{"map": name, "residual": 925.0, "residual_free": 975.0, "noise_floor": floor, "steps": 4,
                        "evaluations": 5, "stopped": "max_steps"}
                       for name, floor in (("local", 0.0), ("basic", 700.0))],
            "simulation": {"model": "linear", "frames": 400, "reference_frames": 1500, "profiles": []},
        },
        "fits": ["neural local", "neural basic"],
        "phases": [{"name": "fit", "seconds": 12.5}], "rate": {"gb_per_s_per_rank": 0.125},
        "passes_of_frames": [{"name": "products of forces", "seconds": 3.0}, {"name": "maps", "seconds": 0.5}],
        "warnings": ["map 'slice' is invalid"],
    }  # fmt: skip


def _map(name: str, value: float) -> dict:
    fitted = name in ("optimal", "local")
    p = {"optimal": 87.0, "local": 22.5}.get(name, 0.0)
    return {
        "name": name, "ridge": 1e-4 if fitted else None, "free": p, "frames_asked": 33 * p, "fitted": value - 50,
        "held_out": value, "held_out_error": 32.0, "predicted": value + 5,
        "curve": [[0.0, value + 1], [1e-4, value], [1.0, 3 * value]] if fitted else [], "consistency": 0.0,
        "orthogonality": float(name == "slice"), "valid": name != "slice",
    }  # fmt: skip
