"""What asking one more source is worth, learned backwards from the last step. Pure numpy.

Fitted value iteration (Longstaff & Schwartz 2001, for optimal stopping): with the beliefs that training
held out, the value of every state at which nothing more can be asked is known; a ridge regression on the
beliefs one step earlier predicts it; and so on back to the empty state. One regression per step and
mistake cost, so that λ may be chosen afterwards.

Beliefs make smooth targets, but the best of several noisy beliefs flatters itself, and so would every value
built on it. What following the policy really came to, where the labels tell, corrects them: a second, heavily
punished regression on what was left over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fallback.cascade import LEAD
from router.scoring import State, tier_of, worth_inputs

Array = NDArray[np.float64]
Move = tuple[State, str]

GRID = 32
_GRID_FROM, _GRID_TO = 2.0, 80.0  # times the mean cost of the best tier's reply
_RIDGE = 1.0
_CORRECTION_RIDGE = 30.0
_MIN_ROWS = 40


@dataclass(frozen=True, slots=True)
class Table:
    """n rows at every state: `beliefs` (n, tiers) by state, `costs_usd` (n,) expected, by source, `onehot` (n, w)."""

    tiers: tuple[str, ...]
    sources: tuple[str, ...]
    beliefs: Mapping[State, Array]
    costs_usd: Mapping[str, Array]
    onehot: Array

    def take(self, rows: NDArray[np.intp]) -> Table:
        """The given rows."""
        return Table(
            self.tiers,
            self.sources,
            {state: p[rows] for state, p in self.beliefs.items()},
            {source: cost[rows] for source, cost in self.costs_usd.items()},
            self.onehot[rows],
        )


def grid(unit_usd: float) -> Array:
    """(GRID,) mistake costs in US dollars, evenly spaced in their logarithm."""
    return unit_usd * np.geomspace(_GRID_FROM, _GRID_TO, GRID)


def moves(state: State, sources: Sequence[str]) -> list[str]:
    """What may be asked next: tiers not seen, the cheapest only first, a further sample right after its tier."""
    if not state:
        return [source for source in sources if tier_of(source) == source]
    found = []
    for source in sources:
        if source in state or source == sources[0]:
            continue
        if tier_of(source) == source or state == (tier_of(source),):
            found.append(source)
    return found


def after(state: State, source: str, sources: Sequence[str]) -> State:
    """The state once `source` has answered too, in the order of `sources`."""
    return tuple(each for each in sources if each in state or each == source)


def kept(state: State) -> list[str]:
    """Tiers whose replies may be handed back; a further sample only helps to judge."""
    return [source for source in state if tier_of(source) == source]


def learn_worth(table: Table, labels: Mapping[str, Array], mistake_costs_usd: Array) -> dict[Move, Array]:
    """(mistake costs, k) weights over `worth_inputs` for every move that can be learned.

    `labels` by tier (n,): 1 good, 0 bad, NaN unknown.
    """
    states = sorted(table.beliefs, key=len, reverse=True)
    inputs = {state: worth_inputs(table.beliefs[state], table.onehot) for state in states}
    learned: dict[Move, list[Array]] = {}
    for mistake_usd in mistake_costs_usd:
        values: dict[State, _Value] = {}
        for state in states:
            value = _kept_value(table, labels, state)
            for source in moves(state, table.sources):
                then = values.get(after(state, source, table.sources))
                weights = None if then is None else _weights(inputs[state], then)
                if then is None or weights is None:
                    continue
                learned.setdefault((state, source), []).append(weights)
                cost = table.costs_usd[source] / mistake_usd
                value = value.or_else(np.clip(inputs[state] @ weights, 0.0, 1.0) - cost, then.real - cost)
            values[state] = value
    return {move: np.array(rows) for move, rows in learned.items()}


@dataclass(frozen=True, slots=True)
class _Value:
    """Of n rows at a state, in shares of the mistake cost: as believed, and as it came to (NaN where labels lack)."""

    believed: Array
    real: Array

    def or_else(self, believed: Array, real: Array) -> _Value:
        """The better by belief, row by row."""
        better = ~(believed <= self.believed)  # also where nothing can be kept
        return _Value(np.where(better, believed, self.believed), np.where(better, real, self.real))


def _kept_value(table: Table, labels: Mapping[str, Array], state: State) -> _Value:
    """Of handing back what is there: `fallback.cascade.best_seen`, for n rows."""
    nothing = np.full(len(table.onehot), np.nan)
    value = _Value(nothing, nothing)
    if tiers := kept(state):
        which = best_kept(table.beliefs[state][:, [table.tiers.index(tier) for tier in tiers]])
        for number, tier in enumerate(tiers):
            here = which == number
            believed = np.where(here, table.beliefs[state][:, table.tiers.index(tier)], value.believed)
            value = _Value(believed, np.where(here, labels[tier], value.real))
    return value


def best_kept(beliefs: Array) -> NDArray[np.intp]:
    """(n,) which of k replies, in ladder order, is handed back; `beliefs` (n, k). As `fallback.cascade.best_seen`."""
    last = beliefs.shape[1] - 1
    if not last:
        return np.zeros(len(beliefs), dtype=np.intp)
    best = beliefs[:, :last].argmax(axis=1)
    leads = beliefs[np.arange(len(beliefs)), best] - beliefs[:, last] > LEAD
    return np.asarray(np.where(leads, best, last), dtype=np.intp)


def walk(table: Table, worth: Mapping[Move, Array], mistake_usd: float, row: int) -> list[tuple[State, str]]:
    """What the n requests end with: for each a (sources asked, tier kept), by `fallback.cascade`'s rule.

    `row` of the worth weights belongs to `mistake_usd`. The vector form of `cascade.next_step`; a test holds
    the two to the same steps.
    """
    ended: list[tuple[State, str]] = [((), "")] * len(table.onehot)
    waiting: list[tuple[State, NDArray[np.intp]]] = [((), np.arange(len(table.onehot)))]
    while waiting:
        state, rows = waiting.pop()
        if not len(rows):
            continue
        names, values = _options(table, worth, mistake_usd, row, state, rows)
        choice = np.argmax(np.stack(values, axis=1), axis=1)
        for number, (asks, name) in enumerate(names):
            chosen = rows[choice == number]
            if asks:
                waiting.append((after(state, name, table.sources), chosen))
            else:
                for index in chosen:
                    ended[index] = (state, name)
    return ended


def _options(
    table: Table, worth: Mapping[Move, Array], mistake_usd: float, row: int, state: State, rows: NDArray[np.intp]
) -> tuple[list[tuple[bool, str]], list[Array]]:
    beliefs = table.beliefs[state][rows]
    inputs = worth_inputs(beliefs, table.onehot[rows])
    names: list[tuple[bool, str]] = []
    values: list[Array] = []
    if tiers := kept(state):
        columns = beliefs[:, [table.tiers.index(tier) for tier in tiers]]
        which = best_kept(columns)
        for number, tier in enumerate(tiers):
            names.append((False, tier))
            values.append(np.where(which == number, mistake_usd * columns[:, number], -np.inf))
    for source in moves(state, table.sources):
        if (state, source) in worth:
            names.append((True, source))
            expected = np.clip(inputs @ worth[state, source][row], 0.0, 1.0)
            values.append(mistake_usd * expected - table.costs_usd[source][rows])
    return names, values


def _weights(inputs: Array, value: _Value) -> Array | None:
    """(k,) of the regression on what is believed, corrected by what it came to."""
    weights = _ridge(inputs, value.believed, _RIDGE)
    if weights is None:
        return None
    correction = _ridge(inputs, value.real - inputs @ weights, _CORRECTION_RIDGE, free=False)
    return weights if correction is None else weights + correction


def _ridge(inputs: Array, target: Array, ridge: float, *, free: bool = True) -> Array | None:
    """(k,) ridge weights, with the first column (ones) unpunished if `free`; None with too few complete rows."""
    rows = np.isfinite(inputs).all(axis=1) & np.isfinite(target)
    if int(rows.sum()) < _MIN_ROWS:
        return None
    x, y = inputs[rows], target[rows]
    punish = np.full(x.shape[1], ridge)
    if free:
        punish[0] = 1e-9
    return np.asarray(np.linalg.solve(x.T @ x + np.diag(punish), x.T @ y))
