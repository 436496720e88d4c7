"""Who may come in: as many as the process can serve, a short queue by priority, and a refusal at once beyond."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import grpc

from fallback.clock import Clock
from router.limits import AdaptiveLimit, LimitSettings, Turnover
from router.pacing import Pacing
from router.status import Refusal

_TICK_S = 0.025
_LATELY = 10  # ticks
_RETRY_S = 0.5
_HORIZON_S = 0.5  # of how fast places come free


class Priority(IntEnum):
    """Who comes in first and is refused last."""

    LOW = 0
    NORMAL = 1
    HIGH = 2


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """`max_queued` requests wait at most `queue_wait_s` each; who would wait longer is refused at once."""

    limit: LimitSettings
    max_queued: int = 32
    queue_wait_s: float = 0.1


def _full() -> Refusal:
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", "the service is at its limit", _RETRY_S)


_FULL: Final = _full()  # never raised, so that it gathers no tracebacks


class Admission:
    """Places for requests. `arrived` counts all that ever came, `refused` those turned away for want of a place."""

    def __init__(self, settings: AdmissionSettings, pacing: Pacing) -> None:
        self._settings = settings
        self._pacing = pacing
        self._limit = AdaptiveLimit(settings.limit)
        self._turnover = Turnover(max(_HORIZON_S, settings.queue_wait_s))
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {each: deque() for each in Priority}
        self.in_flight = 0
        self.arrived = 0
        self.refused = dict.fromkeys(Priority, 0)
        self._lately_s = deque([0.0] * _LATELY, _LATELY)
        self._closed = False

    @property
    def limit(self) -> int:
        """Requests at once, at this moment."""
        return self._limit.limit

    @property
    def queued(self) -> int:
        """How many wait for a place."""
        return sum(map(len, self._waiting.values()))

    @property
    def _late_s(self) -> float:
        """How late the loop is: the least of some ticks, as in CoDel (RFC 8289). What a hiccup left is soon gone."""
        return min(self._lately_s)

    def close(self) -> None:
        """Admit nobody any more: the process is about to end. Those that wait are let in."""
        self._closed = True
        self._let_in(every=True)

    def turned_away(self, priority: Priority) -> Refusal | None:
        """The refusal of a request that would only wait for it; None for one that may come in, or wait.

        Costs next to nothing: what refusing costs is taken from serving.
        """
        if self._closed:
            return None
        taken = self.in_flight >= self._limit.limit or self.queued > 0
        shut = self._late_s > self._settings.queue_wait_s and self.in_flight >= self._settings.limit.least
        if not shut and (not taken or self._may_queue(priority)):
            return None
        self.arrived += 1
        self.refused[priority] += 1
        return _FULL

    @asynccontextmanager
    async def admitted(self, priority: Priority = Priority.NORMAL) -> AsyncIterator[None]:
        """A place for one request, at once or after a short wait.

        Refusal when there is none: RESOURCE_EXHAUSTED with RetryInfo, or UNAVAILABLE once closed.
        """
        self.arrived += 1
        if self._closed:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "STOPPING", "the service is stopping; ask another replica", 0.5)
        if self.in_flight < self._limit.limit and not self.queued:
            self.in_flight += 1
        else:
            await self._wait(priority)
        try:
            yield
        finally:
            self._left()

    async def watch(self, clock: Clock) -> None:
        """Learn from how late the loop is, for ever."""
        while True:
            before_s = clock.monotonic_s()
            await clock.sleep(_TICK_S)
            elapsed_s = clock.monotonic_s() - before_s
            self._turnover.sample(elapsed_s, full=self.in_flight >= self._limit.limit)
            self._lately_s.append(max(self._pacing.standing_s, elapsed_s - _TICK_S))
            self._limit.sample(self._late_s, self.in_flight)
            self._let_in()

    async def _wait(self, priority: Priority) -> None:
        """Until a place is this one's; Refusal when the queue is full of its like.

        Who was queued was expected to be served, so the end of the wait lets it in, as long as there is any place:
        a refusal that comes late is worth less than one request above the limit.
        """
        if self.queued >= self._settings.max_queued:
            self._make_room(priority)
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting[priority]
        queue.append(place)
        try:
            async with asyncio.timeout(self._settings.queue_wait_s):
                await place
        except TimeoutError:
            if not _given(place):
                if self.in_flight >= self._settings.limit.most:
                    raise self._refusal(priority) from None
                self.in_flight += 1
        except asyncio.CancelledError:
            if _given(place):
                self._left()
            raise
        finally:
            if place in queue:
                queue.remove(place)

    def _may_queue(self, priority: Priority) -> bool:
        """Whether the queue has room, or somebody in it who is refused first, and a place is expected in time."""
        ahead = sum(len(waiting) for each, waiting in self._waiting.items() if each >= priority)
        missing = self.in_flight + ahead + 1 - self._limit.limit
        room = self.queued < self._settings.max_queued or ahead < self.queued
        return room and missing <= self._turnover.within(self._settings.queue_wait_s)

    def _make_room(self, priority: Priority) -> None:
        """Turn away the last comer of the lowest class below; this one where there is none."""
        for lower in Priority:
            if lower >= priority:
                raise self._refusal(priority)
            if self._waiting[lower]:
                self._waiting[lower].pop().set_exception(self._refusal(lower))
                return

    def _refusal(self, priority: Priority) -> Refusal:
        self.refused[priority] += 1
        return _full()

    def _left(self) -> None:
        self.in_flight -= 1
        self._turnover.given_back()
        self._let_in()

    def _let_in(self, *, every: bool = False) -> None:
        """Give free places to those that wait: the higher class first, the first comer first."""
        for priority in reversed(Priority):
            queue = self._waiting[priority]
            while queue and (every or self.in_flight < self._limit.limit):
                place = queue.popleft()
                if not place.done():
                    self.in_flight += 1
                    place.set_result(None)


def _given(place: asyncio.Future[None]) -> bool:
    return place.done() and not place.cancelled() and place.exception() is None
