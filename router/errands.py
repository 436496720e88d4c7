"""What is asked of a store beside the writing of outcomes: feedback, statistics, retention, upkeep."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from router.daemon import Worker
from router.store import Store, StoreError

T = TypeVar("T")
ERRANDS: Final = 1_000  # errands waiting for their thread
UPKEEP_EVERY: Final = 256  # outcomes


class Errands:
    """Blocking errands on a worker of their own, one after the other, bounded in number."""

    def __init__(self, store: Store, worker: Worker) -> None:
        self._store = store
        self._thread = worker
        self._since_upkeep = 0
        self._upkeep: asyncio.Task[None] | None = None
        self._closed = False

    async def run(self, errand: Callable[[Store], T]) -> T:
        """What the errand returns or raises; StoreError `overloaded` or `closed` without having begun it."""
        if self._closed:
            raise StoreError("closed")
        if self._thread.queued >= ERRANDS:
            raise StoreError("overloaded", "too many errands are waiting for the store")
        return await self._thread.call(partial(errand, self._store))

    def wrote(self, outcomes: int) -> None:
        """Every so many outcomes, have the store's upkeep done."""
        self._since_upkeep += outcomes
        if self._since_upkeep >= UPKEEP_EVERY and not self._closed and (self._upkeep is None or self._upkeep.done()):
            self._since_upkeep = 0
            self._upkeep = asyncio.create_task(self._keep_up(), name="recorder-upkeep")

    async def _keep_up(self) -> None:
        # The next upkeep, or a write, does what this one cannot; a store in trouble shows when writing.
        with contextlib.suppress(StoreError):
            await self.run(lambda store: store.upkeep())

    def close(self) -> None:
        """Take no more; those under way go on."""
        self._closed = True

    def end(self) -> None:
        """Let the thread go when it has done what it has."""
        if self._upkeep is not None:
            self._upkeep.cancel()
        self._thread.end()
