"""A landscape of one's own: a Python function `energy(x) -> scalar` of coordinates [n, d], in JAX.

It is named as ``module:function`` or ``FILE.py:function``; loading it runs the code of that module or file. A function
of two arguments is given the cap too.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpcfit.energies.own_form import Named, OwnForm, load_function, require_form
from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.pytrees import pytree

TAKES = "it must be a JAX function of coordinates [n, d], and of a cap if it has one, that gives one number"


@pytree
@dataclass(frozen=True)
class Own(Landscape):
    """A function of coordinates [n, d]. Made by ``of``. takes_cap: it has a second argument."""

    function: Named = field(metadata={"static": True})
    n: int = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    takes_cap: bool = field(default=False, metadata={"static": True})
    unit: str = field(default="", metadata={"static": True})
    length: str = field(default="", metadata={"static": True})

    @classmethod
    def of(cls, name: str, at: np.ndarray, *, folder: Path = Path(), unit: str = "", length: str = "") -> Own:
        """The function of a name; a file is looked for in a folder, that of the config.

        at: coordinates [n, d], at which it must be finite and have a gradient. Raises InputError where it has none.
        """
        at = np.asarray(at, float)
        if at.ndim != 2 or 0 in at.shape:
            raise InputError(f"coordinates have shape {list(at.shape)}", remedy="give [n, d]")
        function = load_function(name, "energy", folder)
        takes_cap = _arguments(function) > 1
        of_x = (lambda x, *_: function(x, 0.0)) if takes_cap else (lambda x, *_: function(x))
        require_form(OwnForm(of_x), at, {}, name=f"the energy {name}", takes=TAKES)
        return cls(function, *at.shape, takes_cap, unit, length)

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``; a cap is the function's own affair."""
        return self.function(x, cap) if self.takes_cap else self.function(x)

    def independent(self, x: np.ndarray) -> float:
        """The function operation by operation, as it was written: nobody else knows a second way to its value."""
        with jax.disable_jit():
            return float(self.energy(np.asarray(x, np.float64)))


def _arguments(function: Named) -> int:
    """How many arguments a function takes by place; 1 where it does not say."""
    try:
        parameters = inspect.signature(function.function).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)
