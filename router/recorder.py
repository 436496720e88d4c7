"""Between the event loop and a Store: a reply in the caller's hand means that its outcome is on disk.

`record` waits until the outcome's group is committed. A store that is slow or down never fails a
request: groups go to the journal instead (`router.backlog`), which drains into the store when it is back. While
the journal takes none either, nobody waits at all; outcomes queue up, bounded in number and bytes, and are written
when one of the two is back. What is lost is counted.

All state is touched on the event loop only; one daemon thread runs `Store.write`, another one the
errands (feedback, statistics, retention), a third the journal, so that none waits for another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TypeVar

from fallback.clock import Clock, done_within, ended_within
from router.backlog import BACKOFF_FIRST_S, BACKOFF_LONGEST_S, GROUP, Backlog, Ways
from router.counters import BacklogCounters, RecorderCounters
from router.daemon import DaemonThread, Worker
from router.errands import Errands
from router.journal import Journal
from router.outcome import Outcome
from router.store import Store, StoreError, Unstorable
from router.waiting import Entry, Waiting

T = TypeVar("T")


class Recorder:
    """Bounded group commit. Belongs to one event loop; closes the journal, but not the store.

    `max_wait_s`: how long a reply waits for its outcome. `patience_s`: how long a group may take in the store
    before it goes to the journal. `linger_s`: how long a group waits for more outcomes while they come faster
    than single writes would keep up with; an outcome that comes alone is written at once. A write of sixteen
    costs little more than a write of one. `worker` makes what runs the blocking calls, by name: threads, unless a
    simulation has its own.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        max_wait_s: float,
        linger_s: float = 0.0,
        journal: Journal | None = None,
        patience_s: float = 0.25,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 << 20,
        worker: Callable[[str], Worker] = DaemonThread,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_wait_s = max_wait_s
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._queue = Waiting(max_entries=max_queued, max_bytes=max_queued_bytes)  # a group stays until it is settled
        self._waiting: deque[Entry] = deque()  # deadlines ascend, because max_wait_s is one
        self._wake = asyncio.Event()
        self._pause: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._expirer: asyncio.Task[None] | None = None
        self._crowded = False
        self._write_thread = worker("tierwise-recorder")
        self._errands = Errands(store, worker("tierwise-errands"))
        self._alone = 0  # how many of the next outcomes are written one by one
        self._problem = ""
        self._backlog: Backlog | None = None
        if journal is not None:
            ways = Ways(self._write, self._ping, self._store_is)
            self._backlog = Backlog(journal, clock, ways, worker("tierwise-journal"))
        self._closed = False
        self._recorded = self._late = self._dropped = self._failed_batches = 0

    @property
    def healthy(self) -> bool:
        """The store took the last group in time, and nobody has waited in vain since."""
        return not self._problem

    @property
    def problem(self) -> str:
        """Why it is not healthy: the StoreError's code, `slow`, or the name of an unexpected error's type."""
        return self._problem

    @property
    def counters(self) -> RecorderCounters:
        """The counts so far."""
        return RecorderCounters(
            self._recorded, self._late, self._dropped, self._failed_batches, queue_depth=len(self._queue)
        )

    @property
    def backlog(self) -> BacklogCounters:
        """The counts of what went by the journal; zeros without one."""
        return self._backlog.counters if self._backlog is not None else BacklogCounters()

    @property
    def behind(self) -> bool:
        """Outcomes wait that the store may not have yet."""
        return bool(self._queue) or self.backlog.depth > 0

    @property
    def _nobody_waits(self) -> bool:
        """Neither the store nor the journal takes anything now."""
        return bool(self._problem) and (self._backlog is None or bool(self._backlog.problem))

    async def record(self, outcome: Outcome, *, within_s: float = inf) -> bool:
        """Whether the outcome was on disk within `max_wait_s`, and `within_s`; False is counted as late or dropped.

        `within_s` is what this caller has left: when it is over the reply goes without, which says nothing against the
        store, and the outcome goes on its way to the store or the journal.

        Takes the outcome before its first await: a caller that is cancelled has it recorded all the same.
        """
        deadline_s = self._clock.monotonic_s() + self._max_wait_s
        entry = None if self._closed else self._queue.put(outcome, deadline_s=deadline_s)
        if entry is None:
            self._dropped += 1
            return False
        self._wake.set()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_groups(), name="recorder-writer")
        if self._nobody_waits:
            entry.tell(on_disk=False)
            return False
        while self._waiting and self._waiting[0].waiter.done():
            self._waiting.popleft()
        self._waiting.append(entry)
        if self._expirer is None or self._expirer.done():
            self._expirer = asyncio.create_task(self._expire(), name="recorder-expirer")
        if within_s < self._max_wait_s:
            await done_within(entry.waiter, within_s, self._clock)
            entry.tell(on_disk=False)
        return await entry.waiter

    async def run(self, errand: Callable[[Store], T]) -> T:
        """The result of a blocking errand at the store (feedback, statistics, retention), off the loop.

        Raises what the errand raises, and StoreError `overloaded` or `closed` without having begun.
        """
        return await self._errands.run(errand)

    async def recover(self) -> None:
        """Drain what this process or a dead one left in the journal, in the background. Raises StoreError."""
        if self._backlog is not None and not self._closed:
            await self._backlog.recover()

    def store_failed(self, code: str) -> None:
        """The store was found in trouble: outcomes go to the journal until it is well."""
        self._problem = code
        if self._backlog is not None:
            self._backlog.store_failed()

    async def close(self, timeout_s: float) -> int:
        """Take no more, write what is queued for at most `timeout_s`; how many were given up. Idempotent."""
        self._closed = True
        self._errands.close()
        self._wake.set()
        if self._pause is not None:
            self._pause.cancel()  # no time to wait for a store to recover: try now
        if self._writer is not None:
            await ended_within(self._writer, timeout_s, self._clock)
        if self._expirer is not None:
            self._expirer.cancel()
        if self._backlog is not None:
            await self._backlog.close(timeout_s)
        given_up = self._queue.give_up()
        self._dropped += given_up
        self._write_thread.end()
        self._errands.end()
        return given_up

    # --- the writer --------------------------------------------------------------------------

    async def _write_groups(self) -> None:
        """Write group after group; ends when the recorder is closed and the queue empty."""
        backoff_s = BACKOFF_FIRST_S
        while True:
            while not self._queue:
                if self._closed:
                    return
                self._wake.clear()
                await self._wake.wait()
            if self._crowded and self._linger_s > 0 and len(self._queue) < GROUP and not self._closed:
                await self._clock.sleep(self._linger_s)
            size = 1 if self._alone else min(GROUP, len(self._queue))
            try:
                await self._put(self._queue.first(size))
            except StoreError as error:
                if isinstance(error, Unstorable):
                    self._set_apart(size)
                    continue
                if not self._nobody_waits:
                    continue  # the journal takes it
                self._let_go()
                await self._wait_for_store(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_LONGEST_S)
            except Exception as error:  # noqa: BLE001 - the edge: a store's bug costs what it cannot take, no more
                self.store_failed(type(error).__name__)
                self._set_apart(size)
            else:
                backoff_s = BACKOFF_FIRST_S
                self._settle(size)
                self._crowded = size > 1 or bool(self._queue)
                self._errands.wrote(size)

    async def _put(self, group: Sequence[Outcome]) -> None:
        """Bring a group to the store, or while that is in trouble to the journal. Raises what they raise."""
        if self._backlog is not None and self._problem:
            await self._backlog.take(group)
            return
        try:
            await (self._write(group) if self._backlog is None else self._write_in_time(group))
        except Unstorable:
            raise
        except StoreError as error:
            self._failed_batches += 1
            self.store_failed(error.code)
            raise
        self._problem = ""

    async def _write(self, group: Sequence[Outcome]) -> None:
        await self._write_thread.call(partial(self._store.write, group))

    async def _write_in_time(self, group: Sequence[Outcome]) -> None:
        """Write, or StoreError `slow` after `patience_s`: the store may have the group all the same, later."""
        writing = asyncio.ensure_future(self._write(group))
        try:
            if not await done_within(writing, self._patience_s, self._clock):
                raise StoreError("slow")
            writing.result()
        finally:
            writing.cancel()  # the thread goes on; what comes of it, the drainer finds out

    async def _ping(self) -> None:
        await self._write_thread.call(self._store.ping)

    def _store_is(self, code: str) -> None:
        """What the drainer found: the store's problem, empty when it is well again."""
        self._failed_batches += bool(code)
        self._problem = code
        if not code and self._pause is not None:
            self._pause.cancel()

    def _settle(self, size: int) -> None:
        """The first `size` of the queue are on disk."""
        self._alone = max(0, self._alone - size)
        for _ in range(size):
            entry = self._queue.take()
            self._late += entry.told_no
            self._recorded += not entry.told_no
            entry.tell(on_disk=True)

    def _set_apart(self, size: int) -> None:
        """One of the first `size` can never be written: find it by writing them one by one, and drop it."""
        self._failed_batches += 1
        if size > 1:
            self._alone = size
            return
        self._alone = max(0, self._alone - 1)
        self._dropped += 1
        self._queue.take().tell(on_disk=False)

    def _let_go(self) -> None:
        """Nothing takes outcomes now: let every waiting reply go; their outcomes stay queued."""
        for entry in self._waiting:
            entry.tell(on_disk=False)
        self._waiting.clear()

    async def _wait_for_store(self, seconds: float) -> None:
        if self._closed:
            seconds = BACKOFF_FIRST_S  # close() bounds how often
        self._pause = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({self._pause})  # unlike a plain await, not ended by close() cancelling the pause
        finally:
            self._pause.cancel()
            self._pause = None

    async def _expire(self) -> None:
        """Tell those who have waited for `max_wait_s` that they need not."""
        while self._waiting:
            entry = self._waiting[0]
            remaining_s = entry.deadline_s - self._clock.monotonic_s()
            if not entry.waiter.done():
                if remaining_s > 0:
                    await self._clock.sleep(remaining_s)
                    continue
                self.store_failed("slow")
                if self._backlog is not None:
                    self._backlog.slow()
                entry.tell(on_disk=False)
            self._waiting.popleft()
