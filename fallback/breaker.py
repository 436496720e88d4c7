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
from functools import partial
from typing import Literal

from fallback.clock import Clock

_Ending = Literal["succeeded", "failed", "ignored"]


class State(StrEnum):
    """Closed lets calls pass, open refuses them, half-open admits a counted few."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Opens at `failures` among the last `window` calls; then stays open `first_open_s` ± `jitter`.

    Each probe that fails doubles that, up to `open_s`, until one is answered: a short outage is over soon, a long
    one costs two probes in `open_s` (Envoy's ejection time grows so; ADR 0020).
    """

    failures: int = 10
    window: int = 10
    open_s: float = 30.0
    first_open_s: float = 5.0
    jitter: float = 0.2
    probes: int = 2


class Permit:
    """Leave to make one call. Exactly one of its three ends must be told; telling again does nothing.

    `ignored` is for what says nothing about health: a refused request, a cancelled call.
    """

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[_Ending], None]) -> None:
        self._end: Callable[[_Ending], None] | None = end

    def succeeded(self) -> None:
        """The call ended in a Reply."""
        self._tell("succeeded")

    def failed(self) -> None:
        """The call ended in a Failure of the endpoint."""
        self._tell("failed")

    def ignored(self) -> None:
        """The call says nothing; a probe's place is given back."""
        self._tell("ignored")

    def _tell(self, ending: _Ending) -> None:
        end, self._end = self._end, None
        if end is not None:
            end(ending)


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
        self._open_s = 0.0  # of the last opening, before jitter; 0 since a probe was answered
        self._period = 0  # counts openings: a call that began before one says nothing about the time after it

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
                return Permit(partial(self._call_ended, self._period))
            case State.HALF_OPEN if self._probes_out < self._settings.probes:
                self._probes_out += 1
                return Permit(partial(self._probe_ended, self._period))
            case _:
                return None

    def _call_ended(self, period: int, ending: _Ending) -> None:
        if ending == "ignored" or period != self._period:
            return
        self._recent.append(ending == "failed")
        if sum(self._recent) >= self._settings.failures:
            self._open()

    def _probe_ended(self, period: int, ending: _Ending) -> None:
        if self._state is not State.HALF_OPEN or period != self._period:
            return
        self._probes_out -= 1
        if ending == "failed":
            self._open()
        elif ending == "succeeded":
            self._state = State.CLOSED
            self._open_s = 0.0
            self._recent.clear()

    def _open(self) -> None:
        spread = 1.0 + self._settings.jitter * (2.0 * self._uniform() - 1.0)
        self._open_s = min(self._settings.open_s, 2.0 * self._open_s or self._settings.first_open_s)
        self._opens_until_s = self._clock.monotonic_s() + self._open_s * spread
        self._state = State.OPEN
        self._period += 1
        self._recent.clear()
