"""Who is audited, and when: by lot, inside the day's money, and never at the cost of a caller.

The lot is drawn for every accepted reply of a workload that audits, before anything is known of it but that; its
probability is recorded. What is drawn waits in a bounded queue while the service is busy. It is given up, and
counted by reason, where it waited too long, where the queue or the day's money is full, or where a breaker is not
closed, or where nobody can say what was spent: none of that hangs on how good the reply was.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from fallback.clock import Clock, done_within
from fallback.types import DocumentBlock, ImageBlock, Reply, Request
from router.audit.budget import DAY_S, DayBudget, Hold
from router.audit.comparison import Finding, by_answers, sent_on, verified
from router.audit.examination import Bench, Examination, Subject
from router.audit.log import AuditLog, Errands
from router.completer import Ask
from router.completion import Completed
from router.generation import Generation
from router.outcome import Audit, AuditMethod
from router.store import StoreError
from router.telemetry import AuditRun

_log = logging.getLogger(__name__)
WORKERS = 4  # audits at once
QUEUED = 64
QUEUED_BYTES = 32 << 20
PATIENCE_S = 60.0
SPEND_KNOWN_S = 5.0  # how long what was read of all replicas' spending is good for
_LOOK_S = 0.5  # how often a waiting audit looks whether it may go on
_LOG_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class _Task:
    """What one request gives to do: replies that were sent on, and the accepted one where the lot fell on it."""

    sent_on: tuple[Subject, ...]
    drawn: Subject | None
    ask: Ask
    final: Reply
    bench: Bench
    release: Callable[[], None]
    trace_id: str
    queued_at_s: float
    weight: int


class Telling(Protocol):
    """Whom an Auditor tells what happened; `router.telemetry.Telemetry` is one."""

    def audit(self, audit: Audit, run: AuditRun | None) -> None:
        """An audit was made; `run` says how, where a lot was drawn for it."""

    def audit_skipped(self, workload: str, reason: str) -> None:
        """A reply on which the lot fell was not audited, or what was found could not be written."""


class Auditor:
    """Audits of one process. Belongs to one event loop.

    `busy` says whether callers need what there is; `lot` gives numbers uniform in [0, 1).
    """

    def __init__(
        self, *, errands: Errands, telling: Telling, busy: Callable[[], bool], clock: Clock, lot: Callable[[], float]
    ) -> None:
        self.budget = DayBudget()
        self.log = AuditLog(errands, clock, lambda audit: telling.audit_skipped(audit.workload, "lost"))
        self._errands = errands
        self._telling = telling
        self._busy = busy
        self._clock = clock
        self._lot = lot
        self._queue: deque[_Task] = deque()
        self._queued_bytes = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False
        self._spend_known_at_s = -math.inf

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    async def remember(self) -> bool:
        """Learn from the store what all replicas' audits have cost today; whether that is known.

        A restart does not spend a day's money twice, nor do two replicas, but for what they began in `SPEND_KNOWN_S`.
        """
        asked_s, now_s = self._clock.monotonic_s(), self._clock.wall_s()
        since_s = now_s // DAY_S * DAY_S
        try:
            self.budget.learn(await self._errands.run(lambda store: store.audit_spend_usd(since_s=since_s)), now_s)
        except StoreError as error:
            _log.warning("what audits have cost today is not known: %s", error)
            return False
        self._spend_known_at_s = asked_s
        return True

    def consider(self, generation: Generation, ask: Ask, completed: Completed, trace_id: str) -> None:
        """Perhaps audit a request that has ended. Returns at once; nobody waits for what follows."""
        outcome, policy = completed.outcome, ask.policy
        if policy.audit_share <= 0 or self._closed or not (completed.outcome.accepted and outcome.status == "OK"):
            return
        drawn = self._lot() < policy.audit_share
        subject = self._subject(generation, ask, completed) if drawn else None
        others = tuple(
            self._sent_on(ask, completed, attempt.tier, attempt.result)
            for attempt in sent_on(outcome)
            if isinstance(attempt.result, Reply)
        )
        if subject is None and not others:
            return
        weight = _weight(ask.request)
        if not completed.recorded:
            reason = "unrecorded"  # the store has enough to do, and the audit would have nothing to stand beside
        elif len(self._queue) >= QUEUED or self._queued_bytes + weight > QUEUED_BYTES:
            reason = "queue_full"
        else:
            in_use = ExitStack()
            in_use.enter_context(generation.in_use())
            now_s = self._clock.monotonic_s()
            self._queue.append(
                _Task(others, subject, ask, completed.reply, generation.bench, in_use.close, trace_id, now_s, weight)
            )
            self._queued_bytes += weight
            self._hire()
            return
        if subject is not None:
            self._telling.audit_skipped(outcome.workload, reason)

    async def close(self, timeout_s: float) -> None:
        """Give up what waits, let audits under way finish for at most `timeout_s`, write what was found."""
        self._closed = True
        while self._queue:
            task = self._take()
            self._skip(task, "stopping")
            task.release()
        if self._workers:
            everyone = asyncio.gather(*self._workers, return_exceptions=True)
            await done_within(everyone, timeout_s, self._clock)
            for worker in tuple(self._workers):
                worker.cancel()
            await everyone
        await self.log.close(_LOG_CLOSE_S)

    # --- what is audited -------------------------------------------------------------------------

    def _subject(self, generation: Generation, ask: Ask, completed: Completed) -> Subject | None:
        """The accepted reply with its auditor: the next tier that may answer this request.

        Above the highest there is none: an audit verifier judges such a reply alone; without one it is not audited.
        """
        outcome, verifier = completed.outcome, ask.policy.build_audit_verifier()
        allowed = generation.completer.allowed(ask)
        above = allowed[allowed.index(outcome.resolved_tier) + 1 :] if outcome.resolved_tier in allowed else ()
        if not above and verifier is None:
            self._telling.audit_skipped(outcome.workload, "highest_tier")
            return None
        return Subject(
            request_id=outcome.request_id,
            request=ask.request,
            reply=completed.reply,
            tier=outcome.resolved_tier,
            auditor_tier=above[0] if above else "",
            checks=ask.checks,
            verifier=verifier,
            propensity=ask.policy.audit_share,
        )

    @staticmethod
    def _sent_on(ask: Ask, completed: Completed, tier: str, reply: Reply) -> Subject:
        """A rejected reply; the accepted one that replaced it is there already, so looking at it costs nothing."""
        return Subject(
            request_id=completed.outcome.request_id,
            request=ask.request,
            reply=reply,
            tier=tier,
            auditor_tier=completed.outcome.resolved_tier,
            checks=ask.checks,
            verifier=ask.policy.build_audit_verifier(),
            propensity=1.0,
            accepted=False,
        )

    # --- the workers -----------------------------------------------------------------------------

    def _hire(self) -> None:
        if len(self._workers) < WORKERS:
            worker = asyncio.create_task(self._work(), name="auditor")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def _take(self) -> _Task:
        task = self._queue.popleft()
        self._queued_bytes -= task.weight
        return task

    async def _work(self) -> None:
        while self._queue:
            task = self._take()
            try:
                for subject in task.sent_on:
                    await self._look_back(subject, task)
                if task.drawn is not None:
                    await self._examine(task.drawn, task)
            except Exception as error:  # noqa: BLE001 - an edge: whatever it was, the next one is audited
                _log.error("unexpected %s in an audit", type(error).__name__, exc_info=error)
            finally:
                task.release()

    async def _look_back(self, subject: Subject, task: _Task) -> None:
        """Whether a reply that was sent on had been good after all."""
        if subject.verifier is None:
            finding = by_answers(subject.reply, task.final, subject.checks)
        else:
            verdict = await verified(subject.verifier, subject.request, subject.reply, subject.tier)
            finding = Finding(verdict, AuditMethod.VERIFIER)
        audit = subject.audit(finding, at_s=self._clock.wall_s(), attempts=0, cost_usd=0.0, reply_features=b"")
        self.log.add(audit)
        self._telling.audit(audit, None)

    async def _examine(self, subject: Subject, task: _Task) -> None:
        while self._busy():
            if self._clock.monotonic_s() - task.queued_at_s >= PATIENCE_S or self._closed:
                return self._skip(task, "stopping" if self._closed else "busy")
            await self._clock.sleep(_LOOK_S)
        if obstacle := task.bench.obstacle(subject):
            return self._skip(task, obstacle)
        known_for_s = self._clock.monotonic_s() - self._spend_known_at_s
        if known_for_s >= SPEND_KNOWN_S and not await self.remember():
            return self._skip(task, "spend_unknown")
        holds: list[Hold] = []

        def afford(usd: float) -> bool:
            cap_usd = task.ask.policy.audit_usd_per_day
            hold = self.budget.hold(subject.request.workload, usd, cap_usd=cap_usd, wall_s=self._clock.wall_s())
            if hold is not None:
                holds.append(hold)
            return hold is not None

        most_usd = task.bench.most_usd(subject)
        if not afford(most_usd):
            return self._skip(task, "day_cap")
        wall_s, started_s = self._clock.wall_s(), self._clock.monotonic_s()
        examination = Examination(task.bench, subject, deadline_s=started_s + task.ask.policy.deadline_s)
        try:
            await examination.run(most_usd, afford)
        finally:
            audit = examination.audit()
            for number, hold in enumerate(holds):
                hold.settle(0.0 if number else audit.cost_usd, audit.audited_at_s)
            self.log.add(audit)
            duration_s = self._clock.monotonic_s() - started_s
            self._telling.audit(audit, AuditRun(wall_s, duration_s, task.trace_id, examination.attempts))

    def _skip(self, task: _Task, reason: str) -> None:
        if task.drawn is not None:
            self._telling.audit_skipped(task.drawn.request.workload, reason)


def _weight(request: Request) -> int:
    """About how many bytes a request holds in memory."""
    size = sum(map(len, request.texts()))
    for message in request.messages:
        size += sum(len(block.data) for block in message.content if isinstance(block, ImageBlock | DocumentBlock))
    return size
