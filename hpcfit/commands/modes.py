"""`hpcfit modes`: the slow modes of a config's energy alone, by a run without its methods."""

from __future__ import annotations

from typing import Literal

from hpcfit.commands.optimize import run_optimize
from hpcfit.config import Config
from hpcfit.errors import InputError, together
from hpcfit.kinds.table import KINDS, kind_of
from hpcfit.ranks import Ranks


def run_modes(
    config: Config, world: Ranks, *, resume: Literal["newest", "auto"] | None = None, overwrite: bool = False
) -> int:
    """Find the slow modes on all ranks; collective. Options and exit code as of ``run_optimize``. Raises InputError for
    a kind of problem that has no such modes."""
    config.require_fit(command="modes")
    kind = kind_of(config)
    if not kind.modes:
        having = " or ".join(f"'{name}'" for name, one in KINDS.items() if one.modes)
        raise together(
            InputError(
                f"`hpcfit modes` finds slow modes of an energy, and [problem] kind = '{config.problem.kind}' has none",
                remedy=f"give a config with kind = {having}",
            )
        )
    return run_optimize(kind.part("modes")(config), world, resume=resume, overwrite=overwrite)
