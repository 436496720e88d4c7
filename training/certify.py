"""Thresholds with a guarantee: P(bad | accepted) ≤ α with probability ≥ 1 − δ. Pure numpy and scipy.

**The test.** Learn then Test (Angelopoulos, Bates, Candès, Jordan & Lei, "Learn then Test: Calibrating Predictive
Algorithms to Achieve Risk Control", arXiv 2110.01052). Each threshold of a grid, fixed before any data, is a null
hypothesis "accepting from here has a risk above α". Of the n examples at or above it, b are bad; b is binomial, so
P(Bin(n, α) ≤ b) is an exact p-value: rejecting at level ε is the same as the Clopper–Pearson upper bound at
1 − ε being at most α (Clopper & Pearson 1934).

**Many thresholds.** The strictest have too few examples to pass and a good loose one may stand behind them. So
the grid is tested by the fallback procedure (Wiens & Dmitrienko 2005), strictest first: δ is spread evenly over a few
fixed starts, and a threshold that passes hands its level on to the next. This is fixed-sequence testing from
several starts; the probability of one wrongly passed threshold is at most δ whatever the dependence. The loosest
threshold that passes is taken, since all that passed hold at once. Where none passes although some has enough
examples and a smaller share of bad ones than α, more examples may do: that is not called infeasible.

**Weights.** An example stands for as many requests as its weight says (inverse propensities). A bound for weighted
binomials would need a variance that is not known, so the examples are brought to equal weight first: each is kept with
probability weight / greatest weight (von Neumann 1951), and what is kept is an independent sample of the weighted
population, for which Clopper–Pearson is exact. This is how Park, Dobriban, Lee & Bastani, "PAC Prediction Sets
Under Covariate Shift" (ICLR 2022), do it. It costs examples where the weights differ much.

**What the promise rests on.** The examples are an independent sample of the replies that will be accepted, and the
scorer has not seen them. A shift after that voids it: `router.drift` watches for one, and a test shows both.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv

from router.certificate import State, Threshold

Array = NDArray[np.float64]

# Strictest first. A start begins with its share of δ; the others live on what passed before them.
GRID = (
    0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.92, 0.90, 0.88, 0.86, 0.84, 0.82, 0.80, 0.77, 0.74, 0.70, 0.65, 0.60, 0.55,
    0.50, 0.40, 0.30, 0.0,
)  # fmt: skip
STARTS = frozenset((0.97, 0.92, 0.82, 0.60))
_MOST_EXAMPLES = 1_000_000


def certify(score: Array, bad: Array, weight: Array, *, alpha: float, delta: float, seed: int = 0) -> Threshold:
    """The loosest threshold on `score` (n,) from which at most a share `alpha` of replies are `bad` (n,), 0 or 1.

    `weight` (n,) > 0 needs no scale. ValueError where alpha or delta is not in (0, 1).
    """
    if not 0.0 < alpha < 1.0 or not 0.0 < delta < 1.0:
        raise ValueError(f"alpha and delta must lie in (0, 1), got {alpha} and {delta}")
    kept = equally_weighted(weight, seed)
    score, bad = score[kept], bad[kept]
    needed = examples_needed(alpha, delta / len(STARTS))
    passed: Threshold | None = None
    level = 0.0
    for value in GRID:
        level += delta / len(STARTS) if value in STARTS else 0.0
        above = score >= value
        n, b = int(above.sum()), int(bad[above].sum())
        if level > 0.0 and n > 0 and float(bdtr(b, n, alpha)) <= level:
            passed = Threshold(State.CERTIFIED, value, n, b, needed, upper_bound(b, n, delta))
        else:
            level = 0.0
    if passed is not None:
        return passed
    n, b = len(score), int(bad.sum())
    enough = _enough(score, bad, alpha, delta / len(STARTS))
    state = State.INFEASIBLE if enough is None else State.NOT_CERTIFIED
    return Threshold(state, 0.0, n, b, needed if enough is None else enough, upper_bound(b, n, delta))


def _enough(score: Array, bad: Array, alpha: float, level: float) -> int | None:
    """How many examples like these would let a threshold pass; None where no threshold looks as if it could."""
    needed = examples_needed(alpha, level)
    if len(score) < needed:
        return needed
    wanted: list[float] = []
    for value in GRID:
        above = score >= value
        n, share = int(above.sum()), float(bad[above].mean()) if above.any() else 1.0
        if n < needed or share >= alpha:
            continue
        more = needed
        while more < _MOST_EXAMPLES and float(bdtr(math.floor(share * more), more, alpha)) > level:
            more = math.ceil(more * 1.05)
        wanted.append(more * len(score) / n)
    return math.ceil(max(min(wanted), len(score) + 1)) if wanted else None


def equally_weighted(weight: Array, seed: int) -> NDArray[np.bool_]:
    """(n,) which examples to keep so that the kept ones count alike: rejection sampling, repeatable by seed."""
    if not len(weight):
        return np.zeros(0, dtype=bool)
    drawn = np.random.default_rng(seed).random(len(weight))
    return np.asarray(drawn < weight / weight.max())


def upper_bound(bad: int, n: int, delta: float) -> float:
    """Clopper–Pearson: P(bad) is at most this with probability 1 − delta; 1 without examples."""
    return float(betaincinv(bad + 1, n - bad, 1.0 - delta)) if bad < n else 1.0


def examples_needed(alpha: float, delta: float) -> int:
    """The fewest examples, none bad, that show a risk of at most alpha at level delta."""
    return math.ceil(math.log(delta) / math.log1p(-alpha))
