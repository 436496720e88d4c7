"""Drift and what follows from it outside the process: log lines, metrics, and alarms kept in the store.

The store's log of alarms is what replicas share: one writes what it raises and clears, all read it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from fallback.clock import Clock, ended_within
from router.alarms import Alarm, standing_alarms
from router.drift import Drift
from router.outcome import Audit, AuditVerdict
from router.sequential import DriftSettings
from router.store import Store, StoreError, Unstorable
from router.telemetry import AuditRun, Telemetry

_log = logging.getLogger(__name__)
_MOST_WAITING = 1_000
_PAUSE_S = 1.0
FOLLOW_S = 2.0  # how often the other replicas' alarms are read
_LOOK_BACK_S = 86_400.0  # an alarm may be written long after what it is about: the store was down


class Errands(Protocol):
    """Runs a blocking errand at the store off the loop, as `router.recorder.Recorder` does."""

    def run(self, errand: Callable[[Store], Any]) -> Awaitable[Any]:
        """What the errand gives; raises StoreError."""


class Watch:
    """The drift of one process. Hears audits on their way to telemetry (meets `router.audit`'s Telling)."""

    def __init__(
        self, settings: DriftSettings, *, max_workloads: int, telemetry: Telemetry, errands: Errands, clock: Clock
    ) -> None:
        self.drift = Drift(settings, self._told, max_workloads=max_workloads)
        self._telemetry = telemetry
        self._errands = errands
        self._clock = clock
        self._waiting: list[Alarm] = []
        self._own: deque[Alarm] = deque(maxlen=_MOST_WAITING)  # a reading may be older than the last of them
        self._writer: asyncio.Task[None] | None = None

    @property
    def calm(self) -> bool:
        """Whether no alarm stands."""
        return not self.drift.alarms()

    async def restore(self) -> None:
        """Begin with the alarms that stood when the service stopped."""
        try:
            self.drift.restore(standing_alarms(await self._errands.run(lambda store: store.alarms())))
        except StoreError as error:
            _log.warning("no past alarms from the store: %s", error)

    async def follow(self) -> None:
        """For ever: what other replicas raise and clear holds here too. While the store is down, what is known does."""
        while True:
            await self._clock.sleep(FOLLOW_S)
            since_s = min((each.at_s for each in self.drift.alarms()), default=math.inf)
            since_s = min(since_s, self._clock.wall_s() - _LOOK_BACK_S)
            try:
                events = await self._errands.run(partial(_read, since_s))
            except StoreError:
                continue
            for alarm in self.drift.hear([*events, *self._own]):
                said = alarm.tier, alarm.workload, _state(alarm), alarm.words
                _log.warning("drift: %s in %s is %s, says another replica: %s", *said)

    def audit(self, audit: Audit, run: AuditRun | None) -> None:
        """An audit was made."""
        self._telemetry.audit(audit, run)
        if audit.accepted and audit.method.settles and audit.verdict is not AuditVerdict.UNKNOWN:
            good = audit.verdict is AuditVerdict.GOOD
            self.drift.judged(audit.request_id, good=good, at_s=audit.audited_at_s)

    def audit_skipped(self, workload: str, reason: str) -> None:
        """One was not made."""
        self._telemetry.audit_skipped(workload, reason)

    async def close(self, timeout_s: float) -> None:
        """Write what waits for at most `timeout_s`; the rest is lost."""
        if self._writer is not None:
            await ended_within(self._writer, timeout_s, self._clock)

    def _told(self, alarm: Alarm) -> None:
        _log.warning("drift: %s in %s is %s: %s", alarm.tier, alarm.workload, _state(alarm), alarm.words)
        self._telemetry.alarm(alarm)
        self._own.append(alarm)
        if len(self._waiting) >= _MOST_WAITING:
            del self._waiting[0]
        self._waiting.append(alarm)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        """Until all are written; while the store is down they wait."""
        while self._waiting:
            group = list(self._waiting)
            try:
                await self._errands.run(partial(_put, group))
            except Unstorable:
                _log.error("%d alarms cannot be stored", len(group))
            except StoreError:
                await self._clock.sleep(_PAUSE_S)
                continue
            self._waiting = [alarm for alarm in self._waiting if alarm not in group]


def _put(alarms: list[Alarm], store: Store) -> None:
    store.write_alarms(alarms)


def _read(since_s: float, store: Store) -> list[Alarm]:
    return store.alarms(since_s=since_s)


def _state(alarm: Alarm) -> str:
    return "good again" if alarm.cleared else "suspended"
