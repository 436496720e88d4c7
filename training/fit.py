"""Fit a router: heads, and the stacks on them (see `router.scoring`), from labelled requests and replies.

Stacks are fitted on out-of-fold logits of the heads (Wolpert 1992), because a head's logits on its own
training rows are too good to be true.

Labels may be partial: a source without a reply to a request has NaN there, and weights may hold inverse
propensities. What has too few examples is left out of the model, and the model then falls back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from router.scoring import RouterModel, Stack, State, stack_inputs, tier_of
from training.heads import (
    MIN_EXAMPLES,
    MIN_OF_EACH,
    Array,
    Rows,
    TooLittleData,
    TrainingSet,
    Vectors,
    check_enough,
    fit_heads,
    head_logits,
)

__all__ = ["Fitted", "TooLittleData", "TrainingSet", "Vectors", "default_states", "fit_router", "folds", "onehots"]

FOLDS = 5
_STACK_C = 0.3  # inverse regularisation
_MAX_WORKLOADS = 64
_BELIEF_CLIP = 0.001


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model, the estimators behind it, and P(good) by state (n, tiers) for its training rows, out of fold."""

    model: RouterModel
    estimators: Mapping[str, Any]
    beliefs: Mapping[State, Array]


def fit_router(
    data: TrainingSet,
    *,
    version: str,
    states: Sequence[State],
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Fit heads and the stacks of `states`. TooLittleData when a tier's request head cannot be fitted."""
    check_enough(data)
    parts = folds(data, seed, FOLDS)
    _check_varied(data, parts)
    workloads = tuple(sorted(set(data.workloads.tolist())))[:_MAX_WORKLOADS]
    request = np.full((len(data), len(data.tiers)), np.nan)
    own = {source: np.full(len(data), np.nan) for source in data.sources}
    for number, (inside, outside) in enumerate(parts, start=1):
        progress(f"fold {number} of {FOLDS}")
        part = data.take(outside)
        heads = fit_heads(data.take(inside))
        request[outside], logits = head_logits(heads.mean, heads.scale, heads.request, heads.replies, part)
        for source, column in logits.items():
            own[source][outside] = column
    progress("all rows")
    heads = fit_heads(data)
    onehot = onehots(data.workloads, workloads)
    stacks: dict[State, Stack] = {}
    estimators = dict(heads.estimators)
    beliefs: dict[State, Array] = {}
    for state in states:
        inputs = stack_inputs(state, own, request, data.agree, onehot)
        stack, fitted, held_out = _fit_stack(data, inputs, seed)
        beliefs[state] = np.clip(held_out, _BELIEF_CLIP, 1 - _BELIEF_CLIP)
        if stack is not None:
            stacks[state] = stack
            estimators |= {f"stack {'+'.join(state)} {tier}": estimator for tier, estimator in fitted.items()}
    model = RouterModel(
        version, data.tiers, data.sources, workloads, heads.mean, heads.scale, heads.request, heads.replies, stacks
    )
    return Fitted(model, estimators, beliefs)


def _check_varied(data: TrainingSet, parts: Sequence[tuple[Rows, Rows]]) -> None:
    """TooLittleData where holding a fold out leaves a tier without good or without bad examples."""
    for tier in data.tiers:
        for inside, _ in parts:
            labels = data.labels[tier][inside]
            for word, label in (("good", 1), ("bad", 0)):
                if not (labels == label).any():
                    raise TooLittleData(f"{tier}: its {word} examples are one request over and over")


def folds(data: TrainingSet, seed: int, count: int = FOLDS) -> list[tuple[Rows, Rows]]:
    """(inside, outside) row numbers; a group is never on both sides."""
    splitter = GroupKFold(count, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(len(data)), groups=data.groups))


def onehots(names: NDArray[np.str_], workloads: Sequence[str]) -> Array:
    """(n, w)."""
    return np.asarray(names[:, None] == np.array(workloads, dtype=str)[None, :], dtype=float)


# --- stacks ----------------------------------------------------------------------------------


def _fit_stack(
    data: TrainingSet, inputs: Array, seed: int
) -> tuple[Stack | None, dict[str, LogisticRegression], Array]:
    """(stack, its estimators, out-of-fold probabilities (n, tiers)); NaN, and no stack, where there is too little."""
    present = np.asarray(~np.isnan(inputs).any(axis=1))
    beliefs = np.full((len(data), len(data.tiers)), np.nan)
    weights = np.zeros((len(data.tiers), inputs.shape[1]))
    bias = np.full(len(data.tiers), np.nan)
    fitted: dict[str, LogisticRegression] = {}
    for row, tier in enumerate(data.tiers):
        labels, weight = data.labels[tier], data.weight(tier)
        rows = np.flatnonzero(present & ~np.isnan(labels))
        if len(rows) < MIN_EXAMPLES or min((labels[rows] == 1).sum(), (labels[rows] == 0).sum()) < MIN_OF_EACH:
            continue
        for inside, outside in folds(data, seed + 1):
            chosen = np.intersect1d(inside, rows)
            if len(set(labels[chosen])) < 2:
                continue
            held_out = outside[present[outside]]
            beliefs[held_out, row] = _stack(inputs[chosen], labels[chosen], weight[chosen]).predict_proba(
                inputs[held_out]
            )[:, 1]
        fitted[tier] = _stack(inputs[rows], labels[rows], weight[rows])
        weights[row], bias[row] = fitted[tier].coef_[0], fitted[tier].intercept_[0]
    return (Stack(weights, bias) if fitted else None), fitted, beliefs


def _stack(inputs: Array, labels: Array, weights: Array) -> LogisticRegression:
    return LogisticRegression(C=_STACK_C, max_iter=300).fit(inputs, labels, sample_weight=weights)


def default_states(sources: Sequence[str]) -> list[State]:
    """Every set of sources that a cascade can have seen: ladder order, a further sample only beside its tier."""
    found = [state for size in range(len(sources) + 1) for state in combinations(sources, size)]
    return [state for state in found if all(tier_of(source) in state for source in state)]
