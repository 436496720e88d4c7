"""How long calls wait in gRPC's listener before anybody here looks at them, and which share to turn away for it. Pure.

The listener's line is seen by nobody: neither the event loop's lag nor the requests in flight grow with it. So a
canary, a call of the service to itself, stands in it, and what it waited is what others wait.

The share follows PIE (Pan et al., PIE: A Lightweight Control Scheme to Address the Bufferbloat Problem, HPSR 2013;
RFC 8033): it grows with the line's excess over a target and with its growth, and falls the same way, so that the line
settles at the target and neither empties nor overflows. It begins where a line has been long for a while: a burst's
goes away by itself, and one that stands and is short does no harm. It ends when nobody had to go for a while.

    share += per_s2 * (wait - target) * dt + per_s * (wait - wait before)

Turning away a share p of twice the capacity shortens the line by about 1.7 p seconds a second; with the two factors
below the loop answers within 0.1 s without swinging.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fallback.clock import Clock

_PER_S2: Final = 60.0
_PER_S: Final = 12.0
_LONGEST_STEP_S: Final = 0.05
# One thing that stops the loop for a while makes a line of one sample; a line is long only if it is seen to be.
_SEEN: Final = 10


@dataclass(frozen=True, slots=True)
class LineSettings:
    """A line of more than `long_s` for `burst_s` is kept at `target_s`, until for `calm_s` nobody had to go for it."""

    target_s: float = 0.01
    long_s: float = 0.25
    burst_s: float = 0.25
    calm_s: float = 1.0


class Line:
    """The line as its canary knows it. `key` marks the canary's calls; nobody else has it. `share` of all has to go."""

    def __init__(self, settings: LineSettings, clock: Clock, key: str) -> None:
        self.key = key
        self.share = 0.0
        self._settings = settings
        self._clock = clock
        self._sent_s: float | None = None
        self._waited_s = 0.0
        self._before_s = 0.0
        self._sampled_at_s = clock.monotonic_s()
        self._short_at_s = self._sampled_at_s
        self._seen_long = 0
        self._kept_until_s = self._sampled_at_s

    @property
    def wait_s(self) -> float:
        """What the last canary waited, or the one that is in the line, whichever is longer."""
        under_way_s = 0.0 if self._sent_s is None else self._clock.monotonic_s() - self._sent_s
        return max(self._waited_s, under_way_s)

    @property
    def pressed(self) -> bool:
        """Whether it has to be watched closely, even if nobody comes."""
        return self._clock.monotonic_s() < self._kept_until_s or 2 * self.wait_s > self._settings.long_s

    def sent(self) -> None:
        """A canary joins the line."""
        self._sent_s = self._clock.monotonic_s()

    def is_canary(self, key: str) -> bool:
        """Whether the call that has just been looked at is the canary's; if so, the line is as long as it waited."""
        if key != self.key:
            return False
        if self._sent_s is not None:
            self._ended(self._clock.monotonic_s() - self._sent_s)
        return True

    def lost(self) -> None:
        """The listener itself turned the canary away: the line is as long as it gets."""
        self._ended(max(self.wait_s, 2 * self._settings.long_s))

    def unknown(self) -> None:
        """The canary could not be sent: nothing is known of the line."""
        self._ended(0.0)

    def sample(self) -> None:
        """Let the share follow the line; every 10 ms or so."""
        now_s, wait_s, target_s = self._clock.monotonic_s(), self.wait_s, self._settings.target_s
        step_s = min(_LONGEST_STEP_S, now_s - self._sampled_at_s)
        grown_s, self._before_s, self._sampled_at_s = wait_s - self._before_s, wait_s, now_s
        if wait_s <= self._settings.long_s:
            self._short_at_s, self._seen_long = now_s, 0
        else:
            self._seen_long += 1
        standing = self._seen_long >= _SEEN and now_s - self._short_at_s >= self._settings.burst_s
        if not standing and now_s >= self._kept_until_s:
            return
        change = _PER_S2 * (wait_s - target_s) * step_s + _PER_S * grown_s
        self.share = min(1.0, max(0.0, self.share + change))
        if self.share > 0.0:
            self._kept_until_s = now_s + self._settings.calm_s

    def _ended(self, waited_s: float) -> None:
        self._sent_s = None
        self._waited_s = waited_s
