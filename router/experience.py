"""What a workload's tiers have really cost and taken, and how often their replies were rejected. Pure.

Measured costs beat list prices: they hold cache hits and output lengths. The escalation rate moves the static
plan by itself: its start goes up when the lower bound of the rate is above the break-even line, and down when
the upper bound is clearly below, so that it does not flap. By the same rule a tier is skipped whose replies, after
the tier below was rejected, are rejected too often to be worth trying before the one above.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from fallback.economics import break_even_rate
from fallback.errors import HEDGE_LOST
from fallback.plans import Delay
from fallback.types import Attempt, Reply
from router.outcome import Outcome, passages
from router.store import ReplyMeans, WorkloadStats
from router.tails import Tail

_ENOUGH = 20  # replies before a mean is trusted
_HORIZON = 500.0  # observations after which older ones weigh 1/e
_KEEP = math.exp(-1 / _HORIZON)
_Z = 1.96  # 95 %
_PRIOR_PASS = 0.8  # the share of replies that pass the checks, before any was judged
_PRIOR_REPLIES = 5.0  # as good as so many replies
# Coming down again asks for this much distance from the line, besides the interval.
_HYSTERESIS = 0.05


@dataclass(slots=True)
class Rate:
    """How many replies were judged and how many of those rejected, older ones decayed."""

    judged: float = 0.0
    rejected: float = 0.0

    def add(self, *, rejected: bool) -> None:
        """One more."""
        self.judged = self.judged * _KEEP + 1.0
        self.rejected = self.rejected * _KEEP + float(rejected)

    def bounds(self) -> tuple[float, float]:
        """95 % interval of the rate of rejection."""
        return wilson(self.rejected, self.judged)

    @classmethod
    def of(cls, judged: float, rejected: float) -> Rate:
        """From counts, of which no more than the horizon are believed."""
        scale = min(1.0, _HORIZON / judged) if judged else 0.0
        return cls(judged * scale, rejected * scale)


@dataclass(slots=True)
class TierExperience:
    """Decayed means over the replies of one workload's one tier. Costs and times are with the checks."""

    replies: float = 0.0
    timed: float = 0.0  # how many of them are in all means but the cost's
    cost_usd: float = 0.0
    check_usd: float = 0.0
    output_tokens: float = 0.0
    duration_s: float = 0.0
    square_s2: float = 0.0
    check_s: float = 0.0
    tail: Tail = field(default_factory=Tail)

    def replied(self, attempt: Attempt, reply: Reply) -> None:
        """One more reply."""
        check_usd, check_s = attempt.checks_usd, attempt.checks_s
        took_s = attempt.duration_s + check_s
        self.replies = self.replies * _KEEP + 1.0
        self.timed = self.timed * _KEEP + 1.0
        self.tail.add(attempt.duration_s)
        step = 1.0 / self.timed
        self.cost_usd += (attempt.cost_usd + check_usd - self.cost_usd) / self.replies
        self.check_usd += (check_usd - self.check_usd) * step
        self.output_tokens += (reply.usage.output_tokens - self.output_tokens) * step
        self.duration_s += (took_s - self.duration_s) * step
        self.square_s2 += (took_s * took_s - self.square_s2) * step
        self.check_s += (check_s - self.check_s) * step

    def seed(self, means: ReplyMeans) -> None:
        """Begin with what the store remembers."""
        self.timed = min(float(means.replies), _HORIZON)
        self.check_usd, self.check_s, self.output_tokens = means.check_usd, means.check_s, means.output_tokens
        self.duration_s, self.square_s2 = means.duration_s, means.square_s2


@dataclass(slots=True)
class WorkloadExperience:
    """`rates` by (tier whose rejected reply came before, tier), the first empty for a start.

    `start_tier` is where the static plan has moved to, empty while it has not; `skipped` has the pairs of which
    the second is not asked after the first.
    """

    tiers: dict[str, TierExperience] = field(default_factory=dict)
    rates: dict[tuple[str, str], Rate] = field(default_factory=dict)
    start_tier: str = ""
    skipped: set[tuple[str, str]] = field(default_factory=set)

    def tier(self, name: str) -> TierExperience:
        """The tier's experience, empty at first."""
        found = self.tiers.get(name)
        if found is None:
            found = self.tiers[name] = TierExperience()
        return found

    def rate(self, after: str, tier: str) -> Rate:
        """How often the tier's reply is rejected after `after`'s was; empty at first."""
        found = self.rates.get((after, tier))
        if found is None:
            found = self.rates[after, tier] = Rate()
        return found


class Experience:
    """By workload; the least recently seen are forgotten beyond `max_workloads`."""

    def __init__(self, ladder: tuple[str, ...], *, max_workloads: int = 1_000) -> None:
        self._ladder = ladder
        self._max_workloads = max_workloads
        self._workloads: OrderedDict[str, WorkloadExperience] = OrderedDict()

    def of(self, workload: str) -> WorkloadExperience:
        """The workload's experience, empty at first."""
        found = self._workloads.get(workload)
        if found is None:
            found = self._workloads[workload] = WorkloadExperience()
        self._workloads.move_to_end(workload)
        if len(self._workloads) > self._max_workloads:
            self._workloads.popitem(last=False)
        return found

    def observe(self, outcome: Outcome) -> None:
        """Learns from one finished request. Failures teach nothing about quality or cost."""
        seen = self.of(outcome.workload)
        for attempt in outcome.attempts:
            if isinstance(attempt.result, Reply):
                seen.tier(attempt.tier).replied(attempt, attempt.result)
            elif attempt.result.error_type == HEDGE_LOST:  # it would have taken longer still
                seen.tier(attempt.tier).tail.add(attempt.duration_s)
        for passage in passages(outcome):
            seen.rate(passage.after, passage.tier).add(rejected=passage.rejected)

    def seed(self, past: Sequence[WorkloadStats]) -> None:
        """Begin with what the store remembers, as far as the horizon counts it."""
        for stats in past:
            seen = self.of(stats.workload)
            for tier, cost_usd in stats.attempt_cost_usd.items():
                seen.tier(tier).cost_usd = cost_usd
                seen.tier(tier).replies = _ENOUGH
            for tier, means in stats.reply_means.items():
                seen.tier(tier).seed(means)
            for tier, judged in stats.first_judged.items():  # for outcomes of before passages were kept
                seen.rates["", tier] = Rate.of(judged, stats.first_rejected.get(tier, 0))
            for pair, (judged, rejected) in stats.passages.items():
                seen.rates[pair] = Rate.of(judged, rejected)

    def cost_usd(self, workload: str, tier: str) -> float | None:
        """Mean measured cost of one reply and its checks; None until there are enough."""
        found = self.of(workload).tiers.get(tier)
        return found.cost_usd if found is not None and found.replies >= _ENOUGH else None

    def timed(self, workload: str, tier: str) -> TierExperience | None:
        """The tier's means; None until there are enough replies."""
        found = self.of(workload).tiers.get(tier)
        return found if found is not None and found.timed >= _ENOUGH else None

    def slow_s(self, workload: str) -> dict[str, float]:
        """By tier, the 95th percentile of the workload's attempts in seconds, where there are enough."""
        tiers = self.of(workload).tiers
        return {name: tier.tail.p95_s for name, tier in tiers.items() if tier.tail.p95_s is not None}

    def output_tokens(self, workload: str, tier: str) -> float | None:
        """Mean output length in tokens; None until there are enough replies."""
        found = self.timed(workload, tier)
        return found.output_tokens if found is not None else None

    def delay(self, workload: str, tier: str) -> Delay | None:
        """How long one reply and its checks take; None until there are enough."""
        found = self.timed(workload, tier)
        return Delay.of(found.duration_s, found.square_s2) if found is not None else None

    def pass_rate(self, workload: str, after: str, tier: str) -> float:
        """P(the tier's reply passes the checks | `after`'s was rejected), a start's where that is empty.

        Little evidence leans on the tier's rate as a start, and that on a prior of 80 %.
        """
        rates = self.of(workload).rates
        expected = 1.0 - _PRIOR_PASS
        for pair in (("", tier), (after, tier)) if after else (("", tier),):
            rate = rates.get(pair)
            if rate is not None:
                expected = (rate.rejected + _PRIOR_REPLIES * expected) / (rate.judged + _PRIOR_REPLIES)
        return 1.0 - expected

    def rejection_bounds(self, workload: str, after: str, tier: str) -> tuple[float, float]:
        """95 % interval of P(the tier's reply is rejected | `after`'s was); (0, 1) where nothing is known."""
        rate = self.of(workload).rates.get((after, tier))
        return rate.bounds() if rate is not None else (0.0, 1.0)

    def start_tier(self, workload: str, static: str, allowed: tuple[str, ...], cost_usd: Mapping[str, float]) -> str:
        """Where a chain without a model starts, moved from `static` as far as the evidence goes."""
        seen = self.of(workload)
        current = seen.start_tier or static
        if current not in allowed:  # one request's own bounds: nothing to learn for the others
            below = self._ladder.index(current) < self._ladder.index(allowed[0])
            return allowed[0] if below else allowed[-1]
        moved = self._moved(seen, current, allowed, cost_usd)
        if moved != current:
            seen.start_tier = moved
        return moved

    def _moved(
        self, seen: WorkloadExperience, current: str, allowed: tuple[str, ...], cost_usd: Mapping[str, float]
    ) -> str:
        rung = allowed.index(current)
        if rung + 1 < len(allowed):
            line = break_even_rate(cost_usd[current], cost_usd[allowed[rung + 1]])
            low, _ = seen.rate("", current).bounds()
            if low > line:
                return allowed[rung + 1]
        if rung > 0:
            below = allowed[rung - 1]
            line = break_even_rate(cost_usd[below], cost_usd[current])
            if _clearly_below(seen.rate("", below), line):
                return below
        return current

    def without_skips(self, workload: str, tiers: tuple[str, ...], cost_usd: Mapping[str, float]) -> tuple[str, ...]:
        """The chain of `tiers` less those that are not worth trying after the one before was rejected.

        Tier j is tried between i and k while P(j rejected | i rejected) < 1 − cⱼ/cₖ: the break-even rule again.
        """
        seen, plan = self.of(workload), tiers[:1]
        for tier, above in pairwise(tiers[1:]):
            pair, line = (plan[-1], tier), break_even_rate(cost_usd[tier], cost_usd[above])
            rate = seen.rates.get(pair)
            if rate is not None:
                if rate.bounds()[0] > line:
                    seen.skipped.add(pair)
                elif _clearly_below(rate, line):
                    seen.skipped.discard(pair)
            if pair not in seen.skipped:
                plan = (*plan, tier)
        return plan if len(tiers) == 1 else (*plan, tiers[-1])


def _clearly_below(rate: Rate, line: float) -> bool:
    return rate.judged >= _ENOUGH and rate.bounds()[1] < line - _HYSTERESIS


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share; (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + _Z * _Z / (2 * trials)
    spread = _Z * math.sqrt(share * (1 - share) / trials + _Z * _Z / (4 * trials * trials))
    scale = 1 + _Z * _Z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
