"""A crew: workers of a Dask cluster to which one driver deals out independent work."""

from __future__ import annotations

import itertools
import pickle
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import cloudpickle
from distributed import CancelledError, Client, Future, KilledWorker, as_completed

from hpcfit.errors import HpcfitError
from hpcfit.log import logger
from hpcfit.workflow.cluster.journal import TOPIC, Journal
from hpcfit.workflow.stopping import heed

T = TypeVar("T")
Item = TypeVar("Item")

IN_FLIGHT = 1000  # items that the scheduler knows at a time: enough for hundreds of workers, and still a small graph


class Crew:
    """The workers of a cluster. Work must be idempotent: what a lost worker had begun is done again.

    `work` is a function of one item, importable on the workers, or a `functools.partial` of one.
    """

    def __init__(self, client: Client, what: str):
        self.client, self._what = client, what
        self._shared: list[Future] = []

    @property
    def size(self) -> int:
        """Tasks that can run at once, now."""
        return sum(self.client.nthreads().values())

    def share(self, value: Any) -> Future:
        """A value sent to the workers once; inside an item or an argument of a partial it arrives as the value."""
        # A task and not scattered data: what was only held by a worker that dies can be made again.
        self._shared.append(
            self.client.submit(pickle.loads, cloudpickle.dumps(value), key=f"shared-{uuid.uuid4().hex}")
        )
        return self._shared[-1]

    def restore_shared(self) -> None:
        """Make those shared values again that were being unpacked on a worker that died."""
        for future in self._shared:
            if future.status == "error":
                future.retry()

    def map(
        self, work: Callable[[Item], T], items: Sequence[Item], *,
        names: Sequence[str] | None = None, title: str = "", retries: int = 3,
    ) -> list[T]:  # fmt: skip
        """[work(item) for item in items], in this order; as `completed`."""
        results = dict(self.completed(work, items, names=names, title=title, retries=retries))
        return [results[number] for number in range(len(results))]

    def completed(
        self, work: Callable[[Item], T], items: Sequence[Item], *,
        names: Sequence[str] | None = None, title: str = "", retries: int = 3,
    ) -> Iterator[tuple[int, T]]:  # fmt: skip
        """(number of the item, work(item)) as they end; a bounded number is in flight.

        names: of the items, for errors and warnings; title: of the work, on Dask's pages and in the log.
        An item whose worker dies is run again, at most `retries` times. The first item that fails cancels the rest and
        is raised: a HpcfitError with its own text, anything else as a HpcfitError that names the item.
        """
        call = work if isinstance(work, partial) else partial(work)
        title = title or call.func.__name__
        names = names or [f"{title} {number + 1} of {len(items)}" for number in range(len(items))]
        journal = Journal(f"{self._what}, {title.strip('_').replace('_', ' ')}", len(items))
        yield from _Deal(self, call, list(items), names, title, retries).results(journal)


class _Deal:
    """One call of `completed`: which items wait, are in flight, and have lost their worker how often."""

    def __init__(self, crew: Crew, call: partial, items: list, names: Sequence[str], title: str, retries: int):
        self._crew, self._call, self._items, self._names, self._retries = crew, call, items, names, retries
        self._client = crew.client
        self._group = f"{title}-{uuid.uuid4().hex}"  # Dask's pages name tasks by what stands before the hexadecimal
        self._flying: dict[Future, int] = {}
        self._lost = [0] * len(items)

    def results(self, journal: Journal) -> Iterator[tuple[int, Any]]:
        waiting = iter(range(len(self._items)))
        ended = as_completed(loop=self._client.loop)
        self._client.subscribe_topic(TOPIC, journal.event)
        try:
            ended.update(map(self._submit, itertools.islice(waiting, IN_FLIGHT)))
            heed()  # what Dask runs on the way here goes on after any error
            for future in ended:
                number = self._flying.pop(future)
                try:
                    result = future.result()
                except KilledWorker as error:
                    self._count_loss(number, error)
                    self._crew.restore_shared()
                    ended.add(self._submit(number))
                    continue
                except Exception as error:  # whatever the work may raise
                    raise self._failure(number, error, future) from None
                ended.update(map(self._submit, itertools.islice(waiting, 1)))
                journal.completed()
                heed()
                yield number, result
        finally:
            self._client.unsubscribe_topic(TOPIC)
            self._client.cancel(list(self._flying))

    def _submit(self, number: int) -> Future:
        call, key = self._call, (self._group, number, self._lost[number])
        future = self._client.submit(call.func, *call.args, self._items[number], **call.keywords, key=key)
        self._flying[future] = number
        return future

    def _count_loss(self, number: int, error: KilledWorker) -> None:
        """Raise if the item has lost too many workers."""
        name, worker = self._names[number], error.last_worker.address
        self._lost[number] += 1
        if self._lost[number] > self._retries:
            raise HpcfitError(
                f"{name} lost its worker {self._lost[number]} times, the last was {worker}",
                remedy="see the log of that worker; a worker killed without a word mostly ran out of memory",
            ) from None
        logger.warning(
            "%s lost its worker %s and is run again (%d of %d)", name, worker, self._lost[number], self._retries
        )

    def _failure(self, number: int, error: Exception, future: Future) -> HpcfitError:
        if isinstance(error, HpcfitError):
            return error
        name = self._names[number]
        if isinstance(error, CancelledError):
            return HpcfitError(f"{name} was cancelled: the scheduler has ended, or lost it", remedy="call again")
        text = "".join(traceback.format_exception(type(error), error, future.traceback())).rstrip()
        return HpcfitError(f"{name} failed:\n{text}")
