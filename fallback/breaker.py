"""Circuit breakers: stop calling what keeps failing, and try it again carefully.

One per endpoint and tier, with one above them per provider. They see Failures only: a verdict or a
refused request says nothing about health. Time comes from a monotonic clock, so a wall clock that
jumps changes nothing. States and the counted half-open trials follow failsafe's CircuitBreaker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from fallback.clock import Clock


class State(StrEnum):
    """Closed lets calls pass, open refuses them, half-open admits a counted few."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Opens at `failures` among the last `window` calls; stays open `open_s` ± `jitter`."""

    failures: int = 10
    window: int = 20
    open_s: float = 30.0
    jitter: float = 0.2
    probes: int = 2


class Permit:
    """Leave to make one call. Exactly one of its three ends must be told; telling again does nothing.

    `ignored` is for what says nothing about health: a refused request, a cancelled call.
    """

    __slots__ = ("_breaker", "_period")

    def __init__(self, breaker: Breaker, period: int | None) -> None:
        self._breaker: Breaker | None = breaker
        self._period = period

    def succeeded(self) -> None:
        """The call ended in a Reply."""
        self._end(failed=False)

    def failed(self) -> None:
        """The call ended in a Failure of the endpoint."""
        self._end(failed=True)

    def ignored(self) -> None:
        """The call says nothing; a probe's place is given back."""
        self._end(failed=None)

    def _end(self, *, failed: bool | None) -> None:
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker._ended(failed, self._period)


class Breaker:
    """A sliding window of the last calls."""

    def __init__(self, settings: BreakerSettings, clock: Clock, uniform: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._uniform = uniform
        self._recent: deque[bool] = deque(maxlen=settings.window)
        self._state = State.CLOSED
        self._opens_until_s = 0.0
        self._probes_out = 0
        self._period = 0  # counts openings, so that a late probe of an earlier one is not mistaken

    @property
    def state(self) -> State:
        """The state now; an open breaker whose time is over counts as half-open."""
        if self._state is State.OPEN and self._clock.monotonic_s() >= self._opens_until_s:
            self._state = State.HALF_OPEN
            self._probes_out = 0
        return self._state

    @property
    def retry_after_s(self) -> float:
        """Seconds until a call may be tried; 0 when it may be now."""
        return max(0.0, self._opens_until_s - self._clock.monotonic_s()) if self.state is State.OPEN else 0.0

    def permit(self) -> Permit | None:
        """Leave to call, or None."""
        match self.state:
            case State.CLOSED:
                return Permit(self, None)
            case State.HALF_OPEN if self._probes_out < self._settings.probes:
                self._probes_out += 1
                return Permit(self, self._period)
            case _:
                return None

    def _ended(self, failed: bool | None, period: int | None) -> None:
        if period is not None:
            self._probe_ended(failed, period)
        elif failed is not None and self._state is State.CLOSED:
            # Calls that began before it opened and end now say nothing new.
            self._recent.append(failed)
            if sum(self._recent) >= self._settings.failures:
                self._open()

    def _probe_ended(self, failed: bool | None, period: int) -> None:
        if self._state is not State.HALF_OPEN or period != self._period:
            return
        self._probes_out -= 1
        if failed:
            self._open()
        elif failed is False:
            self._state = State.CLOSED
            self._recent.clear()

    def _open(self) -> None:
        spread = 1.0 + self._settings.jitter * (2.0 * self._uniform() - 1.0)
        self._opens_until_s = self._clock.monotonic_s() + self._settings.open_s * spread
        self._state = State.OPEN
        self._period += 1
        self._recent.clear()
