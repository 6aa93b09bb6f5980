"""`hpcfit pipeline --rounds`: a simulation and a fit a round, each of which continues the last."""

from __future__ import annotations

from pathlib import Path

from hpcfit.commands.simulate import simulate_all
from hpcfit.config import Config
from hpcfit.errors import InputError
from hpcfit.kinds.base import Rounds
from hpcfit.kinds.table import kind_of, load_config
from hpcfit.log import logger
from hpcfit.store.files import write_csv, write_text
from hpcfit.workflow.launch import run_hpcfit

TABLE = "rounds.csv"


def run_rounds(config: Config, rounds: int, ranks: int) -> int:
    """Make so many rounds, or what is missing of them; the exit code of the first fit that does not end, else 0.

    Raises InputError, and Stopped at a signal; during a fit signals are passed on to it.
    """
    kind = kind_of(config)
    if not kind.rounds:
        raise InputError(
            f"[problem] kind = '{config.problem.kind}' has no rounds", remedy="call `hpcfit pipeline` without --rounds"
        )
    plan: Rounds = kind.part("rounds")(config)
    plan.check()
    rows = []
    for number in range(1, rounds + 1):
        if code := _made(plan, number, ranks):
            return code
        rows.append(plan.row(number))
        write_csv(config.run.directory / TABLE, list(rows[-1]), [row.values() for row in rows])
        logger.info("round %d of %d: %s", number, rounds, _in_words(rows[-1]))
    return 0


def _made(plan: Rounds, number: int, ranks: int) -> int:
    """Simulate and fit, or what is missing of it; the exit code of the fit."""
    folder = plan.folder(number)
    path: Path = folder.with_suffix(".toml")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, plan.fit(number).to_toml())
    settings = load_config(path)  # what is wrong is said before the simulation
    simulate_all(plan.simulations(number), settings.cluster)
    logger.info("optimize round %d on %d ranks", number, ranks)
    return run_hpcfit("optimize", str(path), "--resume", "auto", ranks=ranks)


def _in_words(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in row.items() if name != "round")
