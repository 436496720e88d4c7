"""What the demo counts, with 95 % intervals: quality, cost, calls, escalations; constant tiers and the oracle."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from fallback.economics import PriceBook, parse_price_book
from fallback.emulator.answers import Answer, Ask, count_tokens
from fallback.emulator.models import MODELS, ModelSpec
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.workloads import WORKLOADS
from fallback.emulator.workloads.base import Case
from fallback.types import Usage
from router.config import BUILT_IN_PRICES
from router.experience import wilson
from router.v1 import router_pb2

_DRAWS = 2_000


@dataclass(frozen=True)
class Answered:
    """One request: whether its reply was right, and the whole response."""

    case: Case
    good: bool
    response: router_pb2.CompleteResponse

    @property
    def escalated(self) -> bool:
        """A verdict sent it to a higher tier."""
        return any(attempt.purpose == "escalation" for attempt in self.response.attempts)


@dataclass(frozen=True)
class Day:
    """All requests of a day, in a fixed order."""

    answered: tuple[Answered, ...]

    def column(self, of: Callable[[Answered], float]) -> np.ndarray:
        """One figure of each request, shape (n,)."""
        return np.array([of(one) for one in self.answered], dtype=float)

    @property
    def quality(self) -> np.ndarray:
        """1.0 for a right reply."""
        return self.column(lambda one: float(one.good))

    @property
    def cost_usd(self) -> np.ndarray:
        """All attempts and checks."""
        return self.column(lambda one: one.response.cost_usd)

    @property
    def calls(self) -> np.ndarray:
        """Upstream calls."""
        return self.column(lambda one: float(len(one.response.attempts)))


def unexplored(day: Day) -> Day:
    """The requests that were started where the plan would have started them."""
    return Day(tuple(one for one in day.answered if not one.response.decision.explored))


def summary(day: Day) -> Table:
    """Per workload and in all: quality, cost per 1,000, calls per request, escalation rate, share by tier."""
    table = Table("workload", "quality", "$ per 1,000", "calls/request", "escalated", "resolved by", box=None)
    for name in (*WORKLOADS, "all"):
        part = Day(tuple(one for one in day.answered if name in ("all", one.case.workload)))
        n = len(part.answered)
        escalated = sum(one.escalated for one in part.answered)
        low, high = wilson(escalated, n)
        shares = {tier: sum(one.response.tier == tier for one in part.answered) / n for tier in _tiers()}
        table.add_row(
            name,
            _percent(part.quality),
            _with_interval(part.cost_usd * 1_000, "{:.3f}"),
            _with_interval(part.calls, "{:.2f}"),
            f"{escalated / n:.0%} [{low:.0%}, {high:.0%}]",
            "  ".join(f"{tier} {share:.0%}" for tier, share in shares.items() if share > 0),
            style="bold" if name == "all" else "",
        )
    return table


def oracle_and_constants(first: Day, second: Day, *, seed: int) -> Table:
    """What each tier alone would have given, and a router that knows the answers."""
    source, prices = SimulatedSource(seed), parse_price_book(tomllib.loads(BUILT_IN_PRICES.read_text()))
    table = Table(
        "for comparison", "day 1 quality", "day 1 $ per 1,000", "day 2 quality", "day 2 $ per 1,000", box=None
    )
    columns = []
    for day in (first, second):
        cases = [one.case for one in day.answered]
        by_tier = {tier: np.array([_alone(source, prices, case, tier) for case in cases]) for tier in _tiers()}
        columns.append((by_tier, _oracle(by_tier)))
    for tier in _tiers():
        table.add_row(f"always {tier}", *(cell for by_tier, _ in columns for cell in _cells(by_tier[tier])))
    table.add_row("oracle", *(cell for _, oracle in columns for cell in _cells(oracle)))
    table.add_row(
        "tierwise", *(cell for day in (first, second) for cell in _cells(np.stack([day.quality, day.cost_usd], 1)))
    )
    return table


def saving(second: Day, first: Day) -> str:
    """Day 2 against day 1 in one paragraph, with intervals."""
    cost = _ratio_interval(second.cost_usd, first.cost_usd)
    calls = _ratio_interval(second.calls, first.calls)
    quality = _difference_interval(second.quality, first.quality)
    return (
        f"day 2 against day 1's chain: cost {_change(cost)}, calls {_change(calls)}, "
        f"quality {100 * quality[0]:+.1f} points [{100 * quality[1]:+.1f}, {100 * quality[2]:+.1f}]"
    )


def _tiers() -> tuple[str, ...]:
    return tuple(spec.tier for spec in MODELS.values())


def _alone(source: SimulatedSource, prices: PriceBook, case: Case, tier: str) -> tuple[float, float]:
    """(right, cost in US dollars) of one tier asked alone."""
    spec = next(spec for spec in MODELS.values() if spec.tier == tier)
    return float(source.is_right(case, tier)), prices.cost_usd(spec.id, _answer(source, case, spec)[1])


def _answer(source: SimulatedSource, case: Case, spec: ModelSpec) -> tuple[Answer, Usage]:
    """What the emulator would answer, and what it would bill."""
    answer = source.answer(Ask(tier=spec.tier, model=spec.id, prompt=case.prompt))
    output = (answer.output_tokens or count_tokens(answer.text)) + answer.thinking_tokens
    return answer, Usage(input_tokens=count_tokens(case.prompt), output_tokens=output)


def _oracle(by_tier: dict[str, np.ndarray]) -> np.ndarray:
    """The cheapest tier that is right; the cheapest of all where none is. Shape (n, 2)."""
    stacked = np.stack(list(by_tier.values()))  # (tiers, n, 2)
    cost = np.where(stacked[:, :, 0] > 0, stacked[:, :, 1], math.inf)
    best = np.where(np.isinf(cost.min(0)), stacked[:, :, 1].argmin(0), cost.argmin(0))
    rows: np.ndarray = stacked[best, np.arange(stacked.shape[1])]
    return rows


def _cells(rows: np.ndarray) -> tuple[str, str]:
    return _percent(rows[:, 0]), _with_interval(rows[:, 1] * 1_000, "{:.3f}")


def _percent(good: np.ndarray) -> str:
    low, high = wilson(float(good.sum()), len(good))
    return f"{good.mean():.1%} [{low:.1%}, {high:.1%}]"


def _with_interval(values: np.ndarray, form: str) -> str:
    half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
    return f"{form.format(values.mean())} ± {form.format(half)}"


def _ratio_interval(new: np.ndarray, old: np.ndarray) -> tuple[float, float, float]:
    return _interval(new, old, lambda a, b: a / b)


def _difference_interval(new: np.ndarray, old: np.ndarray) -> tuple[float, float, float]:
    return _interval(new, old, lambda a, b: a - b)


def _interval(new: np.ndarray, old: np.ndarray, of: Callable[[float, float], float]) -> tuple[float, float, float]:
    """The statistic of two means with its 95 % bootstrap interval; the days are drawn independently."""
    rng = np.random.default_rng(0)
    draws: Sequence[float] = [
        of(rng.choice(new, len(new)).mean(), rng.choice(old, len(old)).mean()) for _ in range(_DRAWS)
    ]
    low, high = np.quantile(draws, [0.025, 0.975])
    return of(float(new.mean()), float(old.mean())), float(low), float(high)


def _change(ratio: tuple[float, float, float]) -> str:
    return f"{100 * (ratio[0] - 1):+.0f} % [{100 * (ratio[1] - 1):+.0f}, {100 * (ratio[2] - 1):+.0f}]"
