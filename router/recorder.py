"""Between the event loop and a Store: a reply in the caller's hand means that its outcome is on disk.

`record` waits until the outcome's group is committed. A store that is slow or down never fails a
request: while the last group failed, or somebody waited in vain, nobody waits at all; outcomes queue
up, bounded in number and bytes, and are written when the store is back. What is lost is counted.

All state is touched on the event loop only; one daemon thread runs `Store.write`, another one the
errands (feedback, statistics, retention), so that neither waits for the other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from fallback.clock import Clock
from fallback.types import Reply
from router.daemon import DaemonThread, Worker
from router.outcome import Outcome
from router.store import Store, StoreError, Unstorable

T = TypeVar("T")

GROUP: Final = 64  # outcomes in one transaction
UPKEEP_EVERY: Final = 256  # outcomes
BACKOFF_FIRST_S: Final = 0.1
BACKOFF_LONGEST_S: Final = 5.0
ERRANDS: Final = 1_000  # errands waiting for their thread
OUTCOME_BYTES: Final = 4_096  # what an Outcome's objects take in memory, texts and features aside


@dataclass(frozen=True, slots=True)
class RecorderCounters:
    """What became of the outcomes given to `record`.

    Every one of them is in exactly one of `recorded` (on disk before its waiter was told, or its
    waiter was cancelled), `late` (on disk after its waiter was told no), `dropped` (not on disk) and
    `queue_depth` (still to be written).
    """

    recorded: int
    late: int
    dropped: int
    failed_batches: int
    queue_depth: int


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    outcome: Outcome
    waiter: asyncio.Future[bool]
    deadline_s: float
    weight: int


class Recorder:
    """Bounded group commit. Belongs to one event loop; whoever made the store closes it, afterwards.

    `max_wait_s`: how long a reply waits for its outcome. `linger_s`: how long a group waits for more
    outcomes while they come faster than single writes would keep up with; an outcome that comes alone is
    written at once. A write of sixteen costs little more than a write of one. `worker` makes what runs the
    blocking calls, by name: threads, unless a simulation has its own.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        max_wait_s: float,
        linger_s: float = 0.0,
        max_queued: int = 10_000,
        max_queued_bytes: int = 64 << 20,
        worker: Callable[[str], Worker] = DaemonThread,
    ) -> None:
        self._store = store
        self._clock = clock
        self._max_wait_s = max_wait_s
        self._linger_s = linger_s
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._queue: deque[_Entry] = deque()  # a group stays in it until it is settled
        self._queued_bytes = 0
        self._waiting: deque[_Entry] = deque()  # deadlines ascend, because max_wait_s is one
        self._wake = asyncio.Event()
        self._pause: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._expirer: asyncio.Task[None] | None = None
        self._upkeep: asyncio.Task[None] | None = None
        self._since_upkeep = 0
        self._crowded = False
        self._write_thread = worker("tierwise-recorder")
        self._errand_thread = worker("tierwise-errands")
        self._errands = 0
        self._alone = 0  # how many of the next outcomes are written one by one
        self._problem = ""
        self._closed = False
        self._recorded = self._late = self._dropped = self._failed_batches = 0

    @property
    def healthy(self) -> bool:
        """The last group was written, and nobody has waited in vain since."""
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

    async def record(self, outcome: Outcome) -> bool:
        """Whether the outcome was on disk within `max_wait_s`; False is counted as late or dropped.

        Takes the outcome before its first await: a caller that is cancelled has it recorded all the same.
        """
        weight = _weight(outcome)
        if self._closed or len(self._queue) >= self._max_queued or self._queued_bytes + weight > self._max_queued_bytes:
            self._dropped += 1
            return False
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        entry = _Entry(outcome, waiter, self._clock.monotonic_s() + self._max_wait_s, weight)
        self._queue.append(entry)
        self._queued_bytes += weight
        self._wake.set()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_groups(), name="recorder-writer")
        if self._problem:
            waiter.set_result(False)
            return False
        while self._waiting and self._waiting[0].waiter.done():
            self._waiting.popleft()
        self._waiting.append(entry)
        if self._expirer is None or self._expirer.done():
            self._expirer = asyncio.create_task(self._expire(), name="recorder-expirer")
        return await waiter

    async def run(self, errand: Callable[[Store], T]) -> T:
        """The result of a blocking errand at the store (feedback, statistics, retention), off the loop.

        Raises what the errand raises, and StoreError `overloaded` or `closed` without having begun.
        """
        if self._closed:
            raise StoreError("closed")
        if self._errands >= ERRANDS:
            raise StoreError("overloaded", "too many errands are waiting for the store")
        self._errands += 1
        try:
            return await self._errand_thread.call(partial(errand, self._store))
        finally:
            self._errands -= 1

    async def close(self, timeout_s: float) -> int:
        """Take no more, write what is queued for at most `timeout_s`; how many were given up. Idempotent."""
        self._closed = True
        self._wake.set()
        if self._pause is not None:
            self._pause.cancel()  # no time to wait for a store to recover: try now
        if self._writer is not None:
            timer = asyncio.ensure_future(self._clock.sleep(timeout_s))
            await asyncio.wait({self._writer, timer}, return_when=asyncio.FIRST_COMPLETED)
            for task in (self._writer, timer):
                task.cancel()
            await asyncio.gather(self._writer, timer, return_exceptions=True)
        for helper in (self._expirer, self._upkeep):
            if helper is not None:
                helper.cancel()
        given_up = len(self._queue)
        for entry in self._queue:
            _tell(entry, on_disk=False)
        self._dropped += given_up
        self._queue.clear()
        self._queued_bytes = 0
        self._write_thread.end()
        self._errand_thread.end()
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
            group = [self._queue[i].outcome for i in range(size)]
            try:
                await self._write_thread.call(partial(self._store.write, group))
            except StoreError as error:
                if isinstance(error, Unstorable):
                    self._set_apart(size)
                    continue
                self._fail(error.code)
                await self._wait_for_store(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_LONGEST_S)
            except Exception as error:  # noqa: BLE001 - the edge: a store's bug costs what it cannot take, no more
                self._problem = type(error).__name__
                self._set_apart(size)
            else:
                backoff_s = BACKOFF_FIRST_S
                self._settle(size)
                self._crowded = size > 1 or bool(self._queue)
                self._keep_up(size)

    def _settle(self, size: int) -> None:
        """The first `size` of the queue are on disk."""
        self._problem = ""
        self._alone = max(0, self._alone - size)
        for _ in range(size):
            entry = self._take()
            told_no = entry.waiter.done() and not entry.waiter.cancelled()
            self._late += told_no
            self._recorded += not told_no
            _tell(entry, on_disk=True)

    def _keep_up(self, size: int) -> None:
        """Every so many outcomes, have the store's upkeep done on the errands' thread."""
        self._since_upkeep += size
        if self._since_upkeep >= UPKEEP_EVERY and not self._closed and (self._upkeep is None or self._upkeep.done()):
            self._since_upkeep = 0
            self._upkeep = asyncio.create_task(self._do_upkeep(), name="recorder-upkeep")

    async def _do_upkeep(self) -> None:
        # The next upkeep, or a write, does what this one cannot; a store in trouble shows when writing.
        with contextlib.suppress(StoreError):
            await self.run(lambda store: store.upkeep())

    def _set_apart(self, size: int) -> None:
        """One of the first `size` can never be written: find it by writing them one by one, and drop it."""
        self._failed_batches += 1
        if size > 1:
            self._alone = size
            return
        self._alone = max(0, self._alone - 1)
        self._dropped += 1
        _tell(self._take(), on_disk=False)

    def _fail(self, code: str) -> None:
        """The store is down: let every waiting reply go; their outcomes stay queued."""
        self._failed_batches += 1
        self._problem = code
        for entry in self._waiting:
            _tell(entry, on_disk=False)
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

    def _take(self) -> _Entry:
        entry = self._queue.popleft()
        self._queued_bytes -= entry.weight
        return entry

    async def _expire(self) -> None:
        """Tell those who have waited for `max_wait_s` that they need not."""
        while self._waiting:
            entry = self._waiting[0]
            remaining_s = entry.deadline_s - self._clock.monotonic_s()
            if not entry.waiter.done():
                if remaining_s > 0:
                    await self._clock.sleep(remaining_s)
                    continue
                self._problem = "slow"
                _tell(entry, on_disk=False)
            self._waiting.popleft()


def _tell(entry: _Entry, *, on_disk: bool) -> None:
    if not entry.waiter.done():
        entry.waiter.set_result(on_disk)


def _weight(outcome: Outcome) -> int:
    """About how many bytes the outcome holds in memory; a reply's text at four bytes a token."""
    weight = OUTCOME_BYTES + len(outcome.request_features)
    weight += sum(len(vector) for vector in outcome.reply_features if vector is not None)
    weight += sum(4 * a.result.usage.output_tokens for a in outcome.attempts if isinstance(a.result, Reply))
    if outcome.retained is not None:
        weight += len(outcome.retained.prompt_json) + len(outcome.retained.reply_json)
    return weight
