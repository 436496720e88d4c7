"""What the store could not take: journalled as long as it is in trouble, and drained into it when it is back.

All state is touched on the event loop only; one worker does what blocks on the journal's files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from fallback.clock import Clock, ended_within
from router.counters import BacklogCounters
from router.daemon import Worker
from router.journal import Journal
from router.outcome import Outcome
from router.store import StoreError, Unstorable

GROUP: Final = 64  # outcomes in one transaction
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_LONGEST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Ways:
    """How the backlog reaches the store, and says how it found it: a problem's code, empty when all is well."""

    write: Callable[[Sequence[Outcome]], Awaitable[None]]
    ping: Callable[[], Awaitable[None]]
    found: Callable[[str], None]


class Backlog:
    """A journal on a worker of its own, and the task that drains it. Closes the journal."""

    def __init__(self, journal: Journal, clock: Clock, ways: Ways, worker: Worker) -> None:
        self._journal = journal
        self._clock = clock
        self._ways = ways
        self._thread = worker
        self._drainer: asyncio.Task[None] | None = None
        self._drain_again = False
        self._troubled = False
        self._problem = ""
        self._journalled = self._drained = self._refused = 0
        self._closed = False

    @property
    def problem(self) -> str:
        """Why the journal did not take the last group; empty when it did."""
        return self._problem

    @property
    def counters(self) -> BacklogCounters:
        """The counts so far."""
        journal = self._journal
        return BacklogCounters(
            self._journalled,
            self._drained,
            self._refused + journal.unreadable,
            journal.damaged,
            journal.depth,
            journal.size_bytes,
        )

    async def take(self, outcomes: Sequence[Outcome]) -> None:
        """Append a group. Raises what `Journal.write` raises."""
        try:
            await self._thread.call(partial(self._journal.write, outcomes))
        except Unstorable:
            raise
        except StoreError as error:
            self._problem = error.code
            raise
        self._problem = ""
        self._journalled += len(outcomes)

    def store_failed(self) -> None:
        """The store is in trouble: try again and again, until it is not."""
        self._problem = ""  # of an earlier time
        self._troubled = True
        self._drain()

    def slow(self) -> None:
        """The journal holds up replies."""
        self._problem = "slow"

    async def recover(self) -> None:
        """Take over what dead processes left, and drain what there is. Raises StoreError."""
        await self._thread.call(self._journal.adopt)
        if self._journal.depth or self._journal.size_bytes:
            self._drain()

    async def close(self, timeout_s: float) -> None:
        """Drain what a store that is well takes in that time, then let go of the files. Idempotent.

        What waits still is for the next process.
        """
        if self._closed:
            return
        if self._journal.depth and not self._troubled:
            self._drain()
        self._closed = True
        until_s = self._clock.monotonic_s() + timeout_s
        if self._drainer is not None:
            await ended_within(self._drainer, 0.0 if self._troubled else timeout_s, self._clock)
        closing = asyncio.ensure_future(self._thread.call(self._journal.close))
        await ended_within(closing, until_s - self._clock.monotonic_s(), self._clock)
        self._thread.end()

    # --- draining ------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._drain_again = True
        if not self._closed and (self._drainer is None or self._drainer.done()):
            self._drainer = asyncio.create_task(self._keep_draining(), name="recorder-drainer")

    async def _keep_draining(self) -> None:
        """Until nothing waits and the store is well."""
        backoff_s = BACKOFF_FIRST_S
        size = GROUP
        while self._drain_again:
            if self._troubled:
                if self._closed:
                    return  # no time to wait for it
                await self._clock.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_LONGEST_S)
            self._drain_again = False
            try:
                written = await self._drain_group(size)
            except Unstorable:
                size = await self._set_apart(size)
                self._drain_again = True
                continue
            except StoreError as error:
                self._found(error.code)
                continue
            except Exception as error:  # noqa: BLE001 - the edge: a store's bug must not end the draining
                self._found(type(error).__name__)
                continue
            size, backoff_s = GROUP, BACKOFF_FIRST_S
            self._drain_again |= written > 0
            self._found("")

    async def _drain_group(self, size: int) -> int:
        """How many outcomes went from the journal into the store. One in trouble is asked first how it is.

        Reading a group takes the journal's thread longer than a reply may wait for it.
        """
        if self._troubled:
            await self._ways.ping()
        try:
            group = await self._thread.call(partial(self._journal.peek, size))
        except StoreError:
            return 0  # the journal's disk: nothing about the store; the next `recover` tries again
        if group:
            await self._ways.write(group)
            await self._thread.call(partial(self._journal.drop, len(group)))
            self._drained += len(group)
        return len(group)

    async def _set_apart(self, size: int) -> int:
        """One of the group can never be stored: find it one by one, and leave it out. The next group's size."""
        if size > 1:
            return 1
        self._refused += 1
        await self._thread.call(partial(self._journal.drop, 1))
        return 1

    def _found(self, code: str) -> None:
        self._troubled = bool(code)
        self._drain_again |= self._troubled
        self._ways.found(code)
