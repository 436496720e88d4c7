"""What a workload's tiers have really cost, and how often its start tier's replies were rejected. Pure.

Measured costs beat list prices: they hold cache hits and output lengths. The escalation rate moves
the static start tier by itself: up when its lower bound is above the break-even line, down when the
upper bound is clearly below, so that it does not flap.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from fallback.economics import break_even_rate
from fallback.types import Purpose, Reply
from router.outcome import Mode, Outcome
from router.store import WorkloadStats

_ENOUGH = 20  # replies before a mean is trusted
_HORIZON = 500.0  # observations after which older ones weigh 1/e
_Z = 1.96  # 95 %
# Coming down again asks for this much distance from the line, besides the interval.
_HYSTERESIS = 0.05


@dataclass(slots=True)
class TierExperience:
    """Decayed counts and means of one workload's one tier."""

    replies: float = 0.0
    cost_usd: float = 0.0
    output_tokens: float = 0.0
    duration_s: float = 0.0
    judged: float = 0.0
    rejected: float = 0.0

    def replied(self, cost_usd: float, output_tokens: int, duration_s: float) -> None:
        """One more reply."""
        self.replies = self.replies * math.exp(-1 / _HORIZON) + 1.0
        step = 1.0 / self.replies
        self.cost_usd += (cost_usd - self.cost_usd) * step
        # The store remembers costs alone: the first lengths seen after it stand for themselves.
        self.output_tokens += (output_tokens - self.output_tokens) * (step if self.output_tokens else 1.0)
        self.duration_s += (duration_s - self.duration_s) * (step if self.duration_s else 1.0)

    def started(self, *, rejected: bool) -> None:
        """One more request that started here was judged."""
        keep = math.exp(-1 / _HORIZON)
        self.judged = self.judged * keep + 1.0
        self.rejected = self.rejected * keep + float(rejected)


@dataclass(slots=True)
class WorkloadExperience:
    """By tier; `start_tier` is where the static plan has moved to, empty while it has not."""

    tiers: dict[str, TierExperience] = field(default_factory=dict)
    start_tier: str = ""

    def tier(self, name: str) -> TierExperience:
        """The tier's experience, empty at first."""
        return self.tiers.setdefault(name, TierExperience())


class Experience:
    """By workload; the least recently seen are forgotten beyond `max_workloads`."""

    def __init__(self, ladder: tuple[str, ...], *, max_workloads: int = 1_000) -> None:
        self._ladder = ladder
        self._max_workloads = max_workloads
        self._workloads: OrderedDict[str, WorkloadExperience] = OrderedDict()

    def of(self, workload: str) -> WorkloadExperience:
        """The workload's experience, empty at first."""
        found = self._workloads.setdefault(workload, WorkloadExperience())
        self._workloads.move_to_end(workload)
        if len(self._workloads) > self._max_workloads:
            self._workloads.popitem(last=False)
        return found

    def observe(self, outcome: Outcome) -> None:
        """Learns from one finished request. Failures teach nothing about quality or cost."""
        seen = self.of(outcome.workload)
        for attempt in outcome.attempts:
            if isinstance(attempt.result, Reply):
                checks_usd = sum(report.cost_usd for report in attempt.checks)
                tokens = attempt.result.usage.output_tokens
                seen.tier(attempt.tier).replied(attempt.cost_usd + checks_usd, tokens, attempt.duration_s)
        first = outcome.attempts[0] if outcome.attempts else None
        # A DIRECT start is chosen because it looked easy: its rejections say nothing about the rest.
        undirected = outcome.decision.mode is Mode.CHAIN and not outcome.decision.model_version
        if undirected and first is not None and first.purpose is Purpose.FIRST and isinstance(first.result, Reply):
            seen.tier(first.tier).started(rejected=first.rejection is not None)

    def seed(self, past: Sequence[WorkloadStats]) -> None:
        """Begin with what the store remembers, as far as the horizon counts it."""
        for stats in past:
            seen = self.of(stats.workload)
            for tier, cost_usd in stats.attempt_cost_usd.items():
                seen.tier(tier).cost_usd = cost_usd
                seen.tier(tier).replies = _ENOUGH
            for tier, judged in stats.first_judged.items():
                scale = min(1.0, _HORIZON / judged) if judged else 0.0
                seen.tier(tier).judged = judged * scale
                seen.tier(tier).rejected = stats.first_rejected.get(tier, 0) * scale

    def cost_usd(self, workload: str, tier: str) -> float | None:
        """Mean measured cost of one reply; None until there are enough."""
        found = self.of(workload).tiers.get(tier)
        return found.cost_usd if found is not None and found.replies >= _ENOUGH else None

    def output_tokens(self, workload: str, tier: str) -> float | None:
        """Mean output length in tokens; None until there are enough replies."""
        found = self.of(workload).tiers.get(tier)
        return found.output_tokens or None if found is not None and found.replies >= _ENOUGH else None

    def start_tier(self, workload: str, static: str, allowed: tuple[str, ...], cost_usd: dict[str, float]) -> str:
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
        self, seen: WorkloadExperience, current: str, allowed: tuple[str, ...], cost_usd: dict[str, float]
    ) -> str:
        rung = allowed.index(current)
        if rung + 1 < len(allowed):
            line = break_even_rate(cost_usd[current], cost_usd[allowed[rung + 1]])
            low, _ = wilson(seen.tier(current).rejected, seen.tier(current).judged)
            if low > line:
                return allowed[rung + 1]
        if rung > 0:
            below = allowed[rung - 1]
            line = break_even_rate(cost_usd[below], cost_usd[current])
            _, high = wilson(seen.tier(below).rejected, seen.tier(below).judged)
            if seen.tier(below).judged >= _ENOUGH and high < line - _HYSTERESIS:
                return below
        return current


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share; (0, 1) without trials."""
    if trials <= 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + _Z * _Z / (2 * trials)
    spread = _Z * math.sqrt(share * (1 - share) / trials + _Z * _Z / (4 * trials * trials))
    scale = 1 + _Z * _Z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
