"""What asking on really came to in the log, as a correction of the chain rule's worth.

`training.worth` learns from recorded answers of every tier to every prompt. A log is censored: what a higher tier
would have said is there only where it was asked. So the chain rule (`fallback.cascade.chain_worth`, with the shares
and odds ratios that the night measured) stays what is believed where nothing is seen, and only its error is learned,
backwards from the last step as there: what asking came to where labels tell, less what the rule said, regressed on
what was believed before asking, with weights that are small beforehand. A correction is kept where it makes requests
that it has not seen better foretold, by more than chance; elsewhere the rule stands as it is.

A row counts for a step where the log took that step: a start that was drawn counts with its inverse propensity; after
a reply the step was taken because of what was seen, which is among the regression's inputs, or an audit took it by
lot. Beliefs are those that serving would have: a rejected reply is worth nothing, and says what it says of the tiers
above. Where the policy would go on and the log did not, the rule's own figure stands for what it would have come to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from fallback.cascade import ODDS_RATIO
from router.scoring import State, Tied, worth_inputs
from training.dataset import MAX_INVERSE_PROPENSITY
from training.noticed import after_bad
from training.rows import Row, Source
from training.worth import Move, best_kept

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

MIN_ROWS = 60  # requests in which a step was taken, before anything is learned of it
_SD = 0.02  # of a weight, beforehand
_FOLDS = 5
_SHOWN = 1.64  # standard errors by which foretelling must get better


@dataclass(frozen=True, slots=True)
class Logged:
    """n requests of a log. `beliefs` (n, tiers) by state, NaN where it was not reached; `costs_usd` (n, tiers).

    `taken` (n,) by step is what a row counts there, 0 where it was not taken. `labels` and `weights` (n, tiers):
    1 good, 0 bad, NaN unknown, and what each stands for. `caught` (n,).
    """

    tiers: tuple[str, ...]
    beliefs: Mapping[State, Array]
    costs_usd: Array
    taken: Mapping[Move, Array]
    labels: Array
    weights: Array
    caught: Array
    onehot: Array


def read_log(
    rows: Sequence[Row],
    beliefs: Mapping[State, Array],
    costs_usd: Array,
    *,
    tiers: tuple[str, ...],
    caught: Array,
    tied: Tied,
    onehot: Array,
) -> Logged:
    """The log's steps. `beliefs` (n, tiers) by state hold the rows out; NaN where a state was not fitted or reached."""
    states = [state for size in range(len(tiers) + 1) for state in combinations(tiers, size)]
    steps = [(state, tier) for state in states for tier in tiers if not state or _above(tiers, tier, state)]
    taken = {step: np.zeros(len(rows)) for step in steps}
    reached: dict[State, list[int]] = {state: [] for state in states}
    rejected = np.zeros((len(rows), len(tiers)), dtype=bool)
    for number, row in enumerate(rows):
        reached[()].append(number)
        state: State = ()
        for tier, weight, bad in _path(row, tiers):
            taken[state, tier][number] = weight
            state = (*state, tier)
            reached[state].append(number)
            rejected[number, tiers.index(tier)] = bad
    found = {}
    for state, numbers in reached.items():
        found[state] = np.full((len(rows), len(tiers)), np.nan)
        found[state][numbers] = _believed(state, tiers, beliefs, rejected, tied)[numbers]
    labels, weights = np.full(rejected.shape, np.nan), np.zeros(rejected.shape)
    for number, row in enumerate(rows):
        for tier, label in row.labels.items():
            column = tiers.index(tier)
            labels[number, column], weights[number, column] = label.good, label.weight * label.strength
    return Logged(tiers, found, costs_usd, taken, labels, weights, caught, onehot)


def _above(tiers: Sequence[str], tier: str, state: State) -> bool:
    return tiers.index(tier) > tiers.index(state[-1])


def _path(row: Row, tiers: Sequence[str]) -> list[tuple[str, float, bool]]:
    """(tier, what the step counts, whether its reply was rejected) as long as the log went up the ladder by itself."""
    path: list[tuple[str, float, bool]] = []
    rung = -1
    for step in row.steps:
        if step.tier not in tiers or tiers.index(step.tier) <= rung or step.reply_features is None:
            break
        if not path and step.tier != row.start:
            break
        rung = tiers.index(step.tier)
        weight = 1.0 if path else min(1.0 / row.propensity, MAX_INVERSE_PROPENSITY)
        path.append((step.tier, weight, step.rejected in ("free", "paid")))
    if len(path) == len(row.steps) == 1 and row.accepted:
        label = row.labels.get(path[0][0])
        drawn = label is not None and label.source is Source.AUDIT
        for tier in row.audit_replies:
            if drawn and tier in tiers and tiers.index(tier) > rung:
                assert label is not None
                path.append((tier, min(1.0 / label.propensity, MAX_INVERSE_PROPENSITY), False))
                break
    return path


def _believed(state: State, tiers: Sequence[str], beliefs: Mapping[State, Array], rejected: Mask, tied: Tied) -> Array:
    """(n, tiers) P(good), as `router.deliberation` has it after these replies."""
    believed = beliefs[()].copy()
    for part in (*((tier,) for tier in state), state):  # the state itself overrules its parts, where it was fitted
        if (found := beliefs.get(part)) is None:
            continue
        for column, tier in enumerate(tiers):
            if part == state or tier in part:
                believed[:, column] = np.where(np.isnan(found[:, column]), believed[:, column], found[:, column])
    for tier in state:
        column = tiers.index(tier)
        bad, expected = rejected[:, column], believed[:, column].copy()
        for other in range(len(tiers)):
            if tiers[other] not in state:
                told = after_bad(believed[:, other], expected, tied.read)
                believed[:, other] = np.where(bad, told, believed[:, other])
        believed[:, column] = np.where(bad, 0.0, expected)
    return believed


def chain_worths(
    tiers: Sequence[int], p_good: Array, costs_usd: Array, *, mistake_usd: float, caught: Array, odds_ratio: float
) -> Array:
    """(n,) `cascade.chain_worth` of asking the first of `tiers` (columns); a test holds the two to the same values."""
    first, *above = tiers
    p = p_good[:, first]
    if not above:
        return p
    believed = p_good.copy()
    for each in above:
        believed[:, each] = after_bad(p_good[:, each], p, odds_ratio)
    on = chain_worths(above, believed, costs_usd, mistake_usd=mistake_usd, caught=caught, odds_ratio=odds_ratio)
    return np.asarray(p + (1.0 - p) * caught * np.maximum(0.0, on - costs_usd[:, above[0]] / mistake_usd))


def learn_corrections(log: Logged, mistake_costs_usd: Array, *, odds_ratio: float = ODDS_RATIO) -> dict[Move, Array]:
    """(mistake costs, k) weights over `worth_inputs`, for every step that the log took often enough."""
    learned: dict[Move, list[Array]] = {}
    for mistake_usd in mistake_costs_usd.tolist():
        for move, weights in _at(log, mistake_usd, odds_ratio).items():
            learned.setdefault(move, []).append(weights)
    return {move: np.array(rows) for move, rows in learned.items() if np.any(rows)}


@dataclass(slots=True)
class _Value:
    """Of n rows at a state, in shares of the mistake cost: as believed, and as it came to with what that counts."""

    believed: Array
    real: Array
    counts: Array


def _at(log: Logged, mistake_usd: float, odds_ratio: float) -> dict[Move, Array]:
    """The corrections at one mistake cost."""
    values: dict[State, _Value] = {}
    learned: dict[Move, Array] = {}
    for state in sorted(log.beliefs, key=len, reverse=True):
        believed = log.beliefs[state]
        inputs = worth_inputs(believed, log.onehot)
        value = _kept(log, state)
        for rung, tier in enumerate(log.tiers):
            taken = log.taken.get((state, tier))
            if taken is None:
                continue
            worth = chain_worths(
                range(rung, len(log.tiers)), believed, log.costs_usd,
                mistake_usd=mistake_usd, caught=log.caught, odds_ratio=odds_ratio,
            )  # fmt: skip
            then = values[*state, tier]
            weights = _shown(inputs, then.real - worth, taken * then.counts)
            learned[state, tier] = weights
            worth = np.clip(worth + inputs @ weights, 0.0, 1.0)
            cost = log.costs_usd[:, rung] / mistake_usd
            seen = taken > 0
            better = ~(worth - cost <= value.believed)  # also where nothing can be kept
            value = _Value(
                np.where(better, worth - cost, value.believed),
                np.where(better, np.where(seen, then.real, worth) - cost, value.real),
                np.where(better, np.where(seen, then.counts, 1.0), value.counts),
            )
        values[state] = value
    return learned


def _kept(log: Logged, state: State) -> _Value:
    """Of handing back what is there (`fallback.cascade.best_seen`)."""
    n = len(log.onehot)
    if not state:
        return _Value(np.full(n, np.nan), np.full(n, np.nan), np.zeros(n))
    columns = [log.tiers.index(tier) for tier in state]
    believed = log.beliefs[state][:, columns]
    which = np.array(columns)[best_kept(believed)]
    at = np.arange(n)
    return _Value(log.beliefs[state][at, which], log.labels[at, which], log.weights[at, which])


def _shown(inputs: Array, off: Array, counts: Array) -> Array:
    """(k,) ridge weights that foretell by how much the rule is off; zeros unless rows held out are foretold better."""
    rows = np.isfinite(inputs).all(axis=1) & np.isfinite(off) & (counts > 0)
    nothing = np.zeros(inputs.shape[1])
    if int(rows.sum()) < MIN_ROWS:
        return nothing
    x, y, w = inputs[rows], off[rows], counts[rows]
    w = w * (w.sum() / (w @ w))  # together their effective number (Kish)
    fold = np.arange(len(y)) % _FOLDS
    foretold = np.zeros(len(y))
    for number in range(_FOLDS):
        inside, outside = fold != number, fold == number
        foretold[outside] = x[outside] @ _ridge(x[inside], y[inside], w[inside])
    better = w * (y**2 - (y - foretold) ** 2)
    if better.mean() <= _SHOWN * better.std() / np.sqrt(len(better)):
        return nothing
    return _ridge(x, y, w)


def _ridge(x: Array, y: Array, w: Array) -> Array:
    """(k,) the posterior mean of weights that are normal around 0 beforehand, errors being as large as they are."""
    punish = float(w @ (y * y) / w.sum()) / _SD**2
    return np.asarray(np.linalg.solve((x.T * w) @ x + punish * np.eye(x.shape[1]), x.T @ (w * y)))
