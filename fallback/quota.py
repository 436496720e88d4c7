"""What a provider's rate limit leaves of one endpoint for one tier. Pure.

A 429 says nothing about health, so no breaker counts it: the road is closed for as long as the provider
says. Before it comes to that, the headers of every reply say how much is left, and a road that is nearly
used up is taken only when there is no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from fallback.clock import Clock
from fallback.types import Headroom


@dataclass(frozen=True, slots=True)
class QuotaSettings:
    """`near` is the share of a limit from which a road is avoided; 0 never avoids one.

    `unsaid_s`: how long a 429 closes the road when it does not say. A word of the provider's is believed
    up to `longest_s`: then one call may ask again.
    """

    near: float = 0.02
    unsaid_s: float = 0.5
    longest_s: float = 300.0


class Quota:
    """One endpoint's rate limit for one tier."""

    __slots__ = ("_clock", "_closed_until_s", "_near_until_s", "_settings")

    def __init__(self, settings: QuotaSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._closed_until_s = 0.0
        self._near_until_s = 0.0

    @property
    def wait_s(self) -> float:
        """Seconds until the provider takes calls again; 0 when it does now."""
        return max(0.0, self._closed_until_s - self._clock.monotonic_s()) if self._closed_until_s else 0.0

    @property
    def near(self) -> bool:
        """Whether the limit is nearly used up, by what the last reply said."""
        return self._near_until_s > 0.0 and self._clock.monotonic_s() < self._near_until_s

    def limited(self, retry_after_s: float | None) -> None:
        """A call was answered 429."""
        wait_s = self._settings.unsaid_s if retry_after_s is None else retry_after_s
        until_s = self._clock.monotonic_s() + min(wait_s, self._settings.longest_s)
        self._closed_until_s = max(self._closed_until_s, until_s)

    def replied(self, headroom: Headroom | None) -> None:
        """A call ended in a Reply; `headroom` is None where its headers said nothing."""
        if headroom is None or headroom.share > self._settings.near:
            self._near_until_s = 0.0
        elif self._settings.near > 0:
            self._near_until_s = self._clock.monotonic_s() + min(headroom.resets_in_s, self._settings.longest_s)
