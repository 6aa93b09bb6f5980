"""OpenMM, which only some commands need, imported where it is used."""

from __future__ import annotations

from typing import Any

from hpcfit.errors import InputError


class NoOpenMM(InputError):
    """OpenMM is not installed."""


def import_openmm() -> Any:
    """The openmm module; raises NoOpenMM where it cannot be imported."""
    try:
        import openmm
        import openmm.app
    except ImportError as error:
        raise NoOpenMM(
            f"this needs OpenMM, which cannot be imported: {error}",
            remedy="pip install 'hpcfit[simulate]', in the environment of the workers too",
        ) from None
    return openmm
