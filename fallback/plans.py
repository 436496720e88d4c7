"""What ways there are to answer, and what each would cost, be worth and take. Pure.

Durations are taken to be log-normal, fitted by their first two moments; so is a sum of them (Fenton, "The
sum of log-normal probability distributions in scatter transmission systems", IRE Trans. Commun. Syst. 1960).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

from fallback.cascade import ODDS_RATIO, after_a_bad_reply

_P95 = 0.95
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


@dataclass(frozen=True, slots=True)
class Rung:
    """What a plan has to know of a tier. Costs and times of one reply.

    `p_good` is P(its reply is good) while nothing was seen. Its checks notice a bad reply with probability
    `caught` and cost `check_usd` on top of `cost_usd`; `delay` is the reply's and the checks' together.
    """

    tier: str
    p_good: float
    cost_usd: float
    delay: Delay
    check_usd: float = 0.0
    caught: float = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A way to answer, with what it would come to on average.

    One tier alone is asked without paid checks, its reply handed over as it is. `endings` are the ways in which it
    may end: the probability, and the time until then.
    """

    tiers: tuple[str, ...]
    cost_usd: float
    quality: float
    endings: tuple[tuple[float, Delay], ...]

    @property
    def time_s(self) -> float:
        """Expected time."""
        return sum(p * delay.mean_s for p, delay in self.endings)

    @property
    def calls(self) -> float:
        """Expected number of tiers asked."""
        return sum(p * number for number, (p, _) in enumerate(self.endings, start=1))

    @property
    def p95_s(self) -> float:
        """The time within which 95 % of such requests have ended."""
        low_s, high_s = 0.0, max(delay.quantile_s(0.95) for _, delay in self.endings)
        while high_s - low_s > 1e-3 * high_s:
            middle_s = (low_s + high_s) / 2.0
            low_s, high_s = (low_s, middle_s) if self.within(middle_s) >= _P95 else (middle_s, high_s)
        return high_s

    def within(self, time_s: float) -> float:
        """P(it has ended by then)."""
        return sum(p * delay.within(time_s) for p, delay in self.endings)

    def fits(self, latency_p95_s: float) -> bool:
        """Whether its 95th percentile is within the bound."""
        return self.within(latency_p95_s) >= _P95

    def value_usd(self, *, mistake_cost_usd: float, second_cost_usd: float) -> float:
        """λ · quality − cost − price · time."""
        return mistake_cost_usd * self.quality - self.cost_usd - second_cost_usd * self.time_s


def plan_of(rungs: Sequence[Rung], after: Mapping[tuple[str, str], float], *, odds_ratio: float = ODDS_RATIO) -> Plan:
    """What trying these in order would come to, at least one.

    `after` has P(the second's reply is good | the first's was rejected) where it was measured; elsewhere the two are
    tied by `odds_ratio` (`cascade.after_a_bad_reply`). The last one's reply is handed over whatever its checks say.
    """
    reached, cost_usd, quality, so_far = 1.0, 0.0, 0.0, Delay()
    endings: list[tuple[float, Delay]] = []
    beliefs = {rung.tier: rung.p_good for rung in rungs}
    for i, rung in enumerate(rungs):
        p = beliefs[rung.tier]
        so_far += rung.delay
        cost_usd += reached * (rung.cost_usd + (rung.check_usd if len(rungs) > 1 else 0.0))
        quality += reached * p
        rejected = (1.0 - p) * rung.caught if i + 1 < len(rungs) else 0.0
        endings.append((reached * (1.0 - rejected), so_far))
        for other in rungs[i + 1 :]:
            tied = after_a_bad_reply(beliefs[other.tier], p, odds_ratio=odds_ratio)
            beliefs[other.tier] = after.get((rung.tier, other.tier), tied)
        reached *= rejected
    return Plan(tuple(beliefs), cost_usd, quality, tuple(endings))


def all_plans(
    rungs: Sequence[Rung], after: Mapping[tuple[str, str], float] | None = None, *, odds_ratio: float = ODDS_RATIO
) -> list[Plan]:
    """Every tier alone, every chain of two or three, and from every tier to the top; by start, then length."""
    chosen: dict[tuple[int, ...], None] = {}
    for start in range(len(rungs)):
        above = range(start + 1, len(rungs))
        for size in range(3):
            chosen.update({(start, *more): None for more in combinations(above, size)})
        chosen[(start, *above)] = None
    return [plan_of([rungs[i] for i in one], after or {}, odds_ratio=odds_ratio) for one in chosen]
