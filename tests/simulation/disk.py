"""A store whose disk survives the process, and threads that are only delays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from router.outcome import Audit, Feedback, Outcome
from router.store import FeedbackStatus, Recorded, StoreError, Unstorable, WorkloadStats
from router.store.codec import decode, encode
from tests.simulation.journal import History

T = TypeVar("T")
Condition = Literal["well", "down", "slow", "full"]
CONDITIONS: tuple[Condition, ...] = ("well", "down", "slow", "full")


class Disk:
    """What is durable, and how the disk is doing."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.feedback: dict[str, Feedback] = {}
        self.audits: dict[tuple[str, str], Audit] = {}
        self.condition: Condition = "well"
        self.journal: list[Outcome] = []  # what the journal's files hold
        self.journal_full = False

    def holds(self, request_id: str) -> bool:
        """In the store or in the journal."""
        return request_id in self.outcomes or any(each.request_id == request_id for each in self.journal)


class SimStore:
    """Meets `router.store.Store` over a Disk; every outcome goes through the codec on its way."""

    corrupt_rows = 0

    def __init__(self, disk: Disk, history: History) -> None:
        self._disk = disk
        self._history = history

    def write(self, outcomes: Sequence[Outcome]) -> None:
        self._check()
        for outcome in outcomes:
            rows = encode(outcome)
            self._disk.outcomes.setdefault(outcome.request_id, decode(rows.outcome, rows.retained))
        self._history.add("written", len(outcomes))

    def report(self, feedback: Feedback, *, window_s: float) -> FeedbackStatus:
        self._check()
        if feedback.request_id not in self._disk.outcomes:
            return FeedbackStatus.UNKNOWN
        if not self._disk.outcomes[feedback.request_id].resolved_tier:
            return FeedbackStatus.NO_REPLY
        seen = feedback.request_id in self._disk.feedback
        self._disk.feedback[feedback.request_id] = feedback
        return FeedbackStatus.REPEATED if seen else FeedbackStatus.RECORDED

    def write_audits(self, audits: Sequence[Audit]) -> None:
        self._check()
        for audit in audits:
            if audit.request_id not in self._disk.outcomes:
                raise Unstorable("integrity")
            self._disk.audits.setdefault((audit.request_id, audit.tier), audit)

    def audit_spend_usd(self, *, since_s: float) -> Mapping[str, float]:
        spent: dict[str, float] = {}
        for audit in self._disk.audits.values():
            if audit.audited_at_s >= since_s:
                spent[audit.workload] = spent.get(audit.workload, 0.0) + audit.cost_usd
        return spent

    def workload_of(self, request_id: str) -> str:
        found = self._disk.outcomes.get(request_id)
        return found.workload if found else ""

    def read(self, *, since_s: float = 0.0, until_s: float = float("inf")) -> Iterator[Recorded]:
        for key in sorted(self._disk.outcomes):
            outcome = self._disk.outcomes[key]
            if since_s <= outcome.received_at_s < until_s:
                yield Recorded(outcome, self._disk.feedback.get(key))

    def stats(self, *, since_s: float = 0.0) -> list[WorkloadStats]:
        self._check()
        return []

    def enforce_retention(self, *, now_s: float, max_age_s: Mapping[str, float], default_max_age_s: float = 0.0) -> int:
        self._check()
        return 0

    def upkeep(self) -> None:
        self._check()

    def ping(self) -> None:
        self._check()

    def close(self) -> None:
        """Nothing to release."""

    def _check(self) -> None:
        if self._disk.condition in ("down", "full"):
            raise StoreError(self._disk.condition)


class SimJournal:
    """Meets what the recorder uses of `router.journal.Journal`: the files survive, what was drained does not return."""

    damaged = unreadable = 0

    def __init__(self, disk: Disk, history: History) -> None:
        self._disk = disk
        self._history = history

    @property
    def depth(self) -> int:
        return len(self._disk.journal)

    @property
    def size_bytes(self) -> int:
        return 1_000 * self.depth

    def write(self, outcomes: Sequence[Outcome]) -> None:
        if self._disk.journal_full:
            raise StoreError("enospc")
        for outcome in outcomes:
            rows = encode(outcome)
            self._disk.journal.append(decode(rows.outcome, rows.retained))
        self._history.add("journalled", len(outcomes))

    def peek(self, count: int) -> list[Outcome]:
        return self._disk.journal[:count]

    def drop(self, count: int) -> None:
        del self._disk.journal[:count]

    def adopt(self) -> None:
        """The files are one: nothing to take over."""

    def close(self) -> None:
        """Nothing to release."""


class SimWorker:
    """Meets `router.daemon.Worker`: the work is done, one after the other, at some moment within its delay.

    What is cancelled before its turn does not begin; a killed process does no more of it.
    """

    def __init__(self, disk: Disk, rng: random.Random, alive: Callable[[], bool]) -> None:
        self._disk = disk
        self._rng = rng
        self._alive = alive
        self._turn = asyncio.Lock()
        self._queued = 0

    @property
    def queued(self) -> int:
        """Calls that have not begun."""
        return self._queued

    async def call(self, work: Callable[[], T]) -> T:
        self._queued += 1
        try:
            await self._turn.acquire()
        finally:
            self._queued -= 1
        doing = asyncio.ensure_future(self._do(work))
        doing.set_name("thread")  # goes on by itself, as a daemon thread does
        doing.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(doing)

    def end(self) -> None:
        """Nothing to stop."""

    async def _do(self, work: Callable[[], T]) -> T:
        delay_s = self._rng.expovariate(1 / 3.0) if self._disk.condition == "slow" else self._rng.uniform(0.0005, 0.01)
        before = self._rng.random()
        await asyncio.sleep(delay_s * before)
        if not self._alive():
            raise asyncio.CancelledError
        try:
            return work()
        finally:
            await asyncio.sleep(delay_s * (1 - before))
