"""The boundary between hpcfit and the libraries that read files: whatever they raise becomes the one error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpcfit.errors import HpcfitError, InputError


@contextlib.contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Turn what a library raises into an InputError that begins with `what`, the file and the place in it.

    Libraries raise whatever their parsing met. hpcfit's own errors pass as they are.
    """
    try:
        yield
    except HpcfitError:
        raise
    except Exception as error:
        said = (str(error) or repr(error)).splitlines()[0]
        raise InputError(f"{what}: {type(error).__name__}: {said}", remedy=remedy) from error
