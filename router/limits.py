"""How many requests at once the process can serve. Pure.

Netflix's Gradient2 limit (concurrency-limits, `Gradient2Limit.java`) with another signal. There, the latency
of the calls says whether the limit is too high; here that latency is the provider's, seconds that differ by
tier, and says nothing of this process. What says something is the lag of the event loop: how much later than
asked for it wakes somebody up, or lets a piece of heavy work begin (`router/pacing.py`), whichever is longer. It stays
high where there is more work than one core does, and nowhere else.

    gradient = clamp(lag aimed at / lag, 1/2, 1)
    limit    = (1 - smoothing) * limit + smoothing * (min(limit, in flight if gradient < 1) * gradient + sqrt(limit))
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The limit stays within `least` and `most`; `lag_s` is the lag aimed at under overload."""

    most: int
    least: int = 32
    lag_s: float = 0.016


class AdaptiveLimit:
    """Starts at the most and comes down when the loop lags."""

    def __init__(self, settings: LimitSettings) -> None:
        self._settings = settings
        self._limit = float(settings.most)

    @property
    def limit(self) -> int:
        """Requests at once."""
        return int(self._limit)

    def sample(self, lag_s: float, in_flight: int) -> None:
        """The loop has just lagged by `lag_s` with so many in flight.

        Too long: those in flight are too many, whatever the limit says, because what waits outside is not counted.
        Otherwise the limit grows, used or not: what a hiccup took of a quiet service is back when a burst comes.
        """
        gradient = min(1.0, max(0.5, self._settings.lag_s / max(lag_s, 1e-9)))
        base = self._limit if gradient == 1.0 else min(self._limit, float(in_flight))
        wanted = base * gradient + math.sqrt(self._limit)
        found = self._limit + _SMOOTHING * (wanted - self._limit)
        self._limit = min(float(self._settings.most), max(float(self._settings.least), found))


class Turnover:
    """How many places are given back while all are taken; what is longer ago than `horizon_s` fades."""

    def __init__(self, horizon_s: float) -> None:
        self._horizon_s = horizon_s
        self._given_back = 0  # since the last sample
        self._seen, self._seen_s = 0.0, 0.0

    def given_back(self) -> None:
        """One was."""
        self._given_back += 1

    def sample(self, elapsed_s: float, *, full: bool) -> None:
        """So much time has passed since the last sample. Places left over say nothing of how fast they come free."""
        if full:
            kept = math.exp(-elapsed_s / self._horizon_s)
            self._seen = self._seen * kept + self._given_back
            self._seen_s = self._seen_s * kept + elapsed_s
        self._given_back = 0

    def within(self, seconds: float) -> float:
        """How many are expected in that time; any number until half a horizon has been seen."""
        return self._seen / self._seen_s * seconds if self._seen_s >= self._horizon_s / 2 else math.inf
