"""What the policy is measured against, and the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.benchmark.policy import Played
from training.benchmark.recorded import TIERS, Recorded

Array = NDArray[np.float64]
_RESAMPLES = 2000


def relative(
    good: Array, cost_usd: Array, best_good: Array, best_usd: Array, groups: NDArray[np.str_], seed: int
) -> dict[str, Any]:
    """Quality in % of the best tier's and saved cost in %, with 95 % intervals.

    Percentile bootstrap over prompts (2,000 draws); the same question asked in two workloads is one prompt.
    """
    names, of = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(of, weights=each) for each in (good, best_good, cost_usd, best_usd)], axis=1)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES) @ sums
    quality, saved = 100 * draws[:, 0] / draws[:, 1], 100 * (1 - draws[:, 2] / draws[:, 3])
    total = sums.sum(axis=0)
    return {
        "quality": _rounded(100 * total[0] / total[1]),
        "quality_ci": [_rounded(x) for x in np.percentile(quality, (2.5, 97.5))],
        "saved": _rounded(100 * (1 - total[2] / total[3])),
        "saved_ci": [_rounded(x) for x in np.percentile(saved, (2.5, 97.5))],
    }


def best_constant(recorded: Recorded) -> str:
    """The tier that answers most prompts rightly; the cheaper of equals."""
    return max(TIERS, key=lambda tier: float(recorded.correct(tier).mean()))


def baselines(test: Recorded, played: Mapping[float, Played], seed: int) -> dict[str, Any]:
    """Constant tiers, a random mix, a cost-matched shuffle, an oracle router and a perfect check."""
    best = best_constant(test)
    good, cost = test.correct(best), test.costs_usd[best]
    groups = test.data.groups

    def against(its_good: Array, its_cost: Array) -> dict[str, Any]:
        return relative(its_good, its_cost, good, cost, groups, seed)

    right = np.stack([test.correct(tier) for tier in TIERS], axis=1)
    paid = np.stack([test.costs_usd[tier] for tier in TIERS], axis=1)
    rows = np.arange(len(test))
    oracle = np.where(right.any(axis=1), right.argmax(axis=1), 0)
    failed = right[:, 0] == 0
    low_good, low_cost = test.correct(TIERS[0]), test.costs_usd[TIERS[0]]
    return {
        "best_constant": best,
        "constant": {tier: against(test.correct(tier), test.costs_usd[tier]) for tier in TIERS},
        "random_mix": [
            {"target": round(100 * target), **against(*_mix(target, low_good, low_cost, good, cost))}
            for target in played
        ],
        "cost_matched_shuffle": [
            {"target": round(100 * target), **against(_shuffled(each, right), each.cost_usd)}
            for target, each in played.items()
        ],
        "oracle_router": against(right[rows, oracle], paid[rows, oracle]),
        "perfect_check_cascade": against(np.where(failed, good, low_good), low_cost + failed * cost),
    }


def _mix(target: float, low_good: Array, low_cost: Array, good: Array, cost: Array) -> tuple[Array, Array]:
    """The expected outcome of sending each prompt to the cheapest tier with the probability that just meets the target.

    Chosen with the test's own means: more than any random mix could know.
    """
    gap = float(good.mean() - low_good.mean())
    share = 1.0 if gap <= 0 else min(1.0, (1 - target) * float(good.mean()) / gap)
    return share * low_good + (1 - share) * good, share * low_cost + (1 - share) * cost


def _shuffled(played: Played, right: Array) -> Array:
    """The expected quality when the policy's tiers, at its cost, are dealt to the prompts at random."""
    share = np.array([(played.tier == tier).mean() for tier in TIERS])
    return np.asarray(right @ share)


def _rounded(x: float) -> float:
    return round(float(x), 2)
