"""Somebody looks after the workers while the driver waits for results: without workers it would wait for ever."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from distributed import Client

from hpcfit.errors import HpcfitError
from hpcfit.log import logger

Look = Callable[[], HpcfitError | None]


@contextlib.contextmanager
def watched(client: Client, look: Look, every: float) -> Iterator[None]:
    """Inside, `look()` is called every so many seconds; an error that it returns ends the work and is raised."""
    watch = _Watch(client, look, every)
    watch.start()
    try:
        yield
    except HpcfitError:
        if watch.found:
            raise watch.found from None
        raise
    finally:
        watch.done.set()
        watch.join()


class _Watch(threading.Thread):
    def __init__(self, client: Client, look: Look, every: float):
        super().__init__(daemon=True, name="hpcfit-workers")
        self._client, self._look, self._every = client, look, every
        self.done, self.found = threading.Event(), None

    def run(self) -> None:
        while not self.done.wait(self._every):
            self.found = self.found or self._looked()
            if self.found:  # also of what the driver submits from now on
                self._client.loop.add_callback(_cancel, list(self._client.futures.values()))

    def _looked(self) -> HpcfitError | None:
        try:
            return self._look()
        except Exception as error:  # the next look may succeed; without one, lost workers would stay lost
            logger.warning("looking after the workers failed, and is tried again: %s", error)
            return None


def _cancel(futures: list) -> None:
    """Wake up who waits for them."""
    for state in futures:
        state.cancel()
