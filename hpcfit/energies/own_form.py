"""A functional form of one's own: a Python function `energy(positions, parameters, box) -> scalar`, in JAX.

It is named as `module:function` or `FILE.py:function`; loading it runs the code of that module or file.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError, check_is_file, nearest
from hpcfit.pytrees import pytree

TAKES = "it must be a JAX function of (positions, parameters, box) that gives one number, kJ/mol"


@pytree
@dataclass(frozen=True)
class OwnForm:
    """A term by a function of positions [N, 3] nm, parameters and box [3, 3] nm or None, in kJ/mol."""

    function: Callable = field(metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The value of the function, kJ/mol."""
        return self.function(frame.positions, parameters, frame.box)


def load_form(name: str, folder: Path = Path()) -> OwnForm:
    """The form of a name; a file is looked for in a folder, that of the config."""
    return OwnForm(load_function(name, "energy", folder))


@dataclass(frozen=True)
class Named:
    """A function with its name, by which another process loads it when it is sent there."""

    name: str
    what: str
    function: Callable

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __reduce__(self) -> tuple:
        return load_function, (self.name, self.what)


def load_function(name: str, what: str, folder: Path = Path()) -> Named:
    """The function that ``module:function`` or ``FILE.py:function`` names, whose code is run. what: it is, for errors.

    Raises InputError for a name that is none, and for a file or a module that has no such function.
    """
    where, colon, function = name.rpartition(":")
    if not colon or not where or not function.isidentifier():
        raise InputError(
            f"the {what} {name!r} is no name of a function", remedy="write module:function or FILE.py:function"
        )
    if where.endswith(".py"):
        name = f"{folder / where}:{function}"
        module = _file(folder / where, name, what)
    else:
        module = _module(where, name, what)
    found = getattr(module, function, None)
    if not callable(found):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"{where} has no function {function}", remedy=nearest(function, public))
    return Named(name, what, found)


def require_form(
    form: OwnForm, positions, parameters, box=None, *, name: str = "the energy", takes: str = TAKES
) -> None:
    """Raises InputError for a function that fails, gives no scalar, is not finite, or cannot be differentiated.

    takes: what it must be, for the remedies of errors.
    """
    value = _called(lambda: form.function(positions, parameters, box), name, "fails", takes)
    _require_scalar(value, name, takes)
    gradient = _called(
        lambda: jax.grad(lambda x: jnp.asarray(form.function(x, parameters, box), dtype=float))(positions),
        name,
        "has no gradient",
        f"{takes}: use jax.numpy in place of numpy, and no float() or int() of what depends on positions",
    )
    _require_gradient(np.asarray(gradient), name)


def _require_scalar(value: Any, name: str, takes: str) -> None:
    if np.shape(value) != () or not isinstance(value, jax.Array | np.generic | float):
        given = f"an array of shape {np.shape(value)}" if hasattr(value, "shape") else f"a {type(value).__name__}"
        raise InputError(f"{name} gives {given} where a scalar is expected", remedy=f"{takes}; jnp.sum adds its parts")
    if not np.isfinite(value):
        remedy = "check the positions, and its units"
        raise InputError(f"{name} is {float(value)} at the first positions", remedy=remedy)


def _require_gradient(gradient: np.ndarray, name: str) -> None:
    bad = np.flatnonzero(~np.all(np.isfinite(gradient), axis=-1))
    if len(bad):
        raise InputError(
            f"the gradient of {name} is not finite at atom {bad[0]}, though its value is",
            remedy="keep roots and divisions away from 0, in both branches of jnp.where",
        )
    if not np.any(gradient):
        raise InputError(
            f"{name} has no gradient: no position changes it",
            remedy="compute it from the positions that it is given, by functions with derivatives",
        )


def _called(call: Callable, name: str, what: str, remedy: str) -> Any:
    try:
        return call()
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise InputError(f"{name} {what}: {type(error).__name__}: {first}", remedy=remedy) from error


def _file(path: Path, name: str, what: str) -> ModuleType:
    check_is_file(path, f"the {what} {name!r}: file")
    return _loaded(path.resolve(), path.stat().st_mtime_ns)


@cache
def _loaded(path: Path, _modified: int) -> ModuleType:
    """The module of a file, loaded once for each time that it was written."""
    spec = importlib.util.spec_from_file_location(f"hpcfit_own_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    return _called(lambda: spec.loader.exec_module(module) or module, str(path), "fails when loaded", "mend the file")


def _module(where: str, name: str, what: str) -> ModuleType:
    remedy = f"install it, or name a file: the {what} is {name!r}"
    return _called(lambda: importlib.import_module(where), f"the module {where}", "cannot be imported", remedy)
