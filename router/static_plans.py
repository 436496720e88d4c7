"""Where a workload's plan without a model stands by measured rates and costs: its start, and what it skips. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router.experience import Experience
from router.store import WorkloadStats


@dataclass(frozen=True, slots=True)
class StaticPlan:
    """The tiers in order. `moved_from` is the configured start where it has moved, else empty; `skipped` in order."""

    tiers: tuple[str, ...]
    moved_from: str = ""
    skipped: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As shown."""
        notes = [f"start moved from {self.moved_from}"] if self.moved_from else []
        notes += [f"skips {', '.join(self.skipped)}"] if self.skipped else []
        return " → ".join(self.tiers) + (f" ({'; '.join(notes)})" if notes else "")


def static_plan(
    stats: WorkloadStats,
    allowed: Sequence[str],
    *,
    start_tier: str = "",
    fixed: bool = False,
    second_cost_usd: float = 0.0,
) -> StaticPlan | None:
    """What a service that starts with these numbers does without a model; None where a tier has no measured cost yet.

    `start_tier`: the configured one, empty for the lowest. A `fixed` plan never moves.
    """
    tiers = tuple(allowed)
    start = start_tier if start_tier in tiers else tiers[0]
    if fixed:
        return StaticPlan(tiers[tiers.index(start) :])
    experience = Experience(tiers)
    experience.seed([stats])
    price_usd: dict[str, float] = {}
    for tier in tiers:
        cost_usd, delay = experience.cost_usd(stats.workload, tier), experience.delay(stats.workload, tier)
        if cost_usd is None:
            return None
        price_usd[tier] = cost_usd + (second_cost_usd * delay.mean_s if delay is not None else 0.0)
    moved = start
    for _ in tiers:  # a rung a request
        moved = experience.start_tier(stats.workload, start, tiers, price_usd)
    ladder = tiers[tiers.index(moved) :]
    plan = experience.without_skips(stats.workload, ladder, price_usd)
    return StaticPlan(plan, "" if moved == start else start, tuple(tier for tier in ladder if tier not in plan))
