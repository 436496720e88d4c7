"""What a log shows of the chain's two habits: how many bad replies are noticed, and how a bad one is tied to the next.

**Caught**, by workload: the share of a cheaper tier's bad replies that a check rejects, or that the scorer, which has
not seen them, thinks likelier bad than good. Only where accepted replies were looked into (`training.labels`): else
every known bad reply would be one that was noticed. Shrunk to `cascade.CAUGHT`, which counts for ten replies.

**Tied**: the odds ratio by which `cascade.after_a_bad_reply` best foretells the next tier's replies after a cheaper
one's rejection; maximum a posteriori, its logarithm beforehand normal around that of `cascade.ODDS_RATIO`. So little
evidence changes little.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fallback.cascade import CAUGHT, ODDS_RATIO
from router.certificate import MAX_WORKLOADS
from router.scoring import State, Tied
from training.dataset import Dataset
from training.fit import Fitted
from training.labels import MIN_JUDGED
from training.rows import Row, Source

Array = NDArray[np.float64]

_PRIOR_BAD = 10.0  # bad replies that the prior counts for
_PRIOR_SD = 1.0  # of the odds ratio's logarithm
_GRID = np.linspace(0.0, math.log(60.0), 241)  # of that logarithm
_HALF = 0.5


def with_habits(fitted: Fitted, data: Dataset) -> Fitted:
    """The model with both, by the beliefs that the fit held out."""
    rows, model = data.rows, fitted.model
    beliefs = {state: held_out[: len(rows)] for state, held_out in fitted.beliefs.items()}
    caught, tied = caught_shares(rows, beliefs, model.tiers), odds_ratios(rows, beliefs, model.tiers)
    return replace(fitted, model=replace(model, caught=caught, tied=tied))


def caught_shares(rows: Sequence[Row], beliefs: Mapping[State, Array], tiers: Sequence[str]) -> dict[str, float]:
    """By workload, where there is evidence. `beliefs` (n, tiers) by state hold the rows out."""
    judged: Counter[tuple[str, str]] = Counter()
    for row in rows:
        label = row.labels.get(row.resolved)
        if row.accepted and label is not None and label.source is not Source.VERDICT:
            judged[row.workload, row.resolved] += 1
    found: defaultdict[str, list[tuple[float, bool]]] = defaultdict(list)
    for number, row in enumerate(rows):
        for step in row.steps:
            label = row.labels.get(step.tier)
            if label is None or label.good or step.tier == tiers[-1] or judged[row.workload, step.tier] < MIN_JUDGED:
                continue
            rejected = step.rejected in ("free", "paid")
            doubted = bool(beliefs[step.tier,][number, tiers.index(step.tier)] < _HALF)
            found[row.workload].append((label.weight, rejected or doubted))
    most = sorted(found, key=lambda workload: -len(found[workload]))[:MAX_WORKLOADS]
    return {workload: _shrunk(found[workload]) for workload in sorted(most)}


def _shrunk(bad: Sequence[tuple[float, bool]]) -> float:
    total = math.fsum(weight for weight, _ in bad)
    n = total**2 / math.fsum(weight * weight for weight, _ in bad)
    share = math.fsum(weight for weight, noticed in bad if noticed) / total
    return (n * share + _PRIOR_BAD * CAUGHT) / (n + _PRIOR_BAD)


def odds_ratios(rows: Sequence[Row], beliefs: Mapping[State, Array], tiers: Sequence[str]) -> Tied:
    """From every pair of a rejected reply and the next one, where it has a label."""
    # P(good) of the two before the first was read, and after; the label; its weight.
    pairs: list[tuple[float, ...]] = []
    for number, row in enumerate(rows):
        for step, after in pairwise(row.steps):
            label = row.labels.get(after.tier)
            if step.rejected in ("free", "paid") and label is not None and {step.tier, after.tier} <= set(tiers):
                columns = [tiers.index(step.tier), tiers.index(after.tier)]
                unread, read = beliefs[()][number, columns], beliefs[step.tier,][number, columns]
                pairs.append((*unread, *read, float(label.good), label.weight * label.strength))
    table = np.array(pairs, dtype=float).reshape(len(pairs), 6)
    return Tied(unread=_fitted(*table[:, [0, 1, 4, 5]].T), read=_fitted(*table[:, 2:].T))


def _fitted(p_bad_one: Array, p_other: Array, good: Array, weight: Array) -> float:
    """The odds ratio; `p_bad_one` is what was thought of the reply that turned out bad."""
    known = np.isfinite(p_bad_one) & np.isfinite(p_other)
    p, q, y, w = p_bad_one[known], p_other[known], good[known], weight[known]

    def log_posterior(log_ratio: float) -> float:
        expected = np.clip(after_bad(q, p, math.exp(log_ratio)), 1e-4, 1 - 1e-4)
        likelihood = float(w @ (y * np.log(expected) + (1.0 - y) * np.log1p(-expected)))
        return likelihood - _HALF * ((log_ratio - math.log(ODDS_RATIO)) / _PRIOR_SD) ** 2

    return math.exp(max(_GRID.tolist(), key=log_posterior))


def after_bad(p_good: Array, p_other: Array, odds_ratio: float) -> Array:
    """`cascade.after_a_bad_reply` for many at once; a test holds the two to the same values."""
    s = 1.0 + (odds_ratio - 1.0) * (p_good + p_other)
    product = odds_ratio * p_good * p_other
    both = 2.0 * product / (s + np.sqrt(np.maximum(0.0, s * s - 4.0 * (odds_ratio - 1.0) * product)))
    bad = np.maximum(1.0 - p_other, 1e-12)
    return np.where(p_other >= 1.0, p_good, np.clip((p_good - both) / bad, 0.0, 1.0))
