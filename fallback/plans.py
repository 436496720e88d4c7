"""How long things take, as plans need to know it. Pure.

Durations are taken to be log-normal, fitted by their first two moments; so is a sum of them (Fenton, "The
sum of log-normal probability distributions in scatter transmission systems", IRE Trans. Commun. Syst. 1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Delay:
    """A duration that is not known yet: its mean in seconds and its variance in seconds squared."""

    mean_s: float = 0.0
    variance: float = 0.0

    def __add__(self, other: Delay) -> Delay:
        """One after the other, independently."""
        return Delay(self.mean_s + other.mean_s, self.variance + other.variance)

    def within(self, time_s: float) -> float:
        """P(it takes at most `time_s`)."""
        if time_s <= 0.0:
            return 0.0
        mu, sigma = self._log()
        if sigma == 0.0 or math.isinf(time_s):
            return float(time_s >= self.mean_s)
        return 0.5 * math.erfc((mu - math.log(time_s)) / (sigma * math.sqrt(2.0)))

    def quantile_s(self, share: float) -> float:
        """The time within which it ends with probability `share`, in (0, 1)."""
        mu, sigma = self._log()
        return math.exp(mu + sigma * _NORMAL.inv_cdf(share))

    @classmethod
    def of(cls, mean_s: float, square_s2: float) -> Delay:
        """From the mean, and the mean of the square."""
        return cls(mean_s, max(0.0, square_s2 - mean_s * mean_s))

    def _log(self) -> tuple[float, float]:
        """Mean and standard deviation of its logarithm."""
        if self.mean_s <= 0.0:
            return -math.inf, 0.0
        squared = math.log1p(self.variance / self.mean_s**2)
        return math.log(self.mean_s) - squared / 2.0, math.sqrt(squared)
