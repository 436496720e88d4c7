"""One policy: fitted on the training prompts, its knob chosen there, replayed on prompts it has not seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from fallback.cascade import Ask, Option, next_step
from router.scoring import RouterModel, Seen, State, stack_inputs, tier_of
from training.benchmark.recorded import Recorded
from training.fit import default_states, fit_router, onehots
from training.heads import head_logits
from training.worth import Table, after, grid, kept, learn_worth, moves, walk

Array = NDArray[np.float64]

# Standard errors of the training prompts' quality that a knob must clear its target by. At 0 fresh prompts meet
# their target to within half a point at 99 % and below (docs/measurements.md has the figures at 0, 0.5 and 1).
CAUTION = 0.0


@dataclass(frozen=True, slots=True)
class Played:
    """What n requests came to: `good` (n,) 0/1, `cost_usd` (n,) of everything asked, `tier` (n,) handed back."""

    good: Array
    cost_usd: Array
    tier: NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Learned:
    """A model with its expected costs and, per target, a mistake cost; None means the best constant tier."""

    model: RouterModel
    expected_usd: Mapping[str, Mapping[str, float]]  # by workload and source
    best_tier: str
    knobs: Mapping[float, float | None]


def learn(
    train: Recorded, targets: Sequence[float], *, seed: int, progress: Callable[[str], None] = lambda _: None
) -> Learned:
    """Fit on `train` and choose, for each target share of the best tier's quality, the cheapest knob that meets it."""
    data = train.data
    fitted = fit_router(data, version="benchmark", states=default_states(data.sources), seed=seed, progress=progress)
    best_tier = max(data.tiers, key=lambda tier: float(train.correct(tier).mean()))
    expected = _expected_usd(train)
    table = Table(
        data.tiers,
        data.sources,
        fitted.beliefs,
        _costs(expected, train),
        onehots(data.workloads, fitted.model.workloads),
    )
    mistake_costs = grid(float(train.costs_usd[best_tier].mean()))
    worth = learn_worth(table, {tier: train.correct(tier) for tier in data.tiers}, mistake_costs)
    model = dataclasses.replace(fitted.model, mistake_costs_usd=mistake_costs, worth=worth)
    knobs = _choose(train, table, model, best_tier, targets)
    return Learned(model, expected, best_tier, knobs)


def _choose(
    train: Recorded, table: Table, model: RouterModel, best_tier: str, targets: Sequence[float]
) -> dict[float, float | None]:
    """The knobs, from held-out beliefs. Quality and cost rise with the mistake cost: the fits say so too."""
    played = [
        _outcome(train, walk(table, model.worth, float(mistake), row))
        for row, mistake in enumerate(model.mistake_costs_usd)
    ]
    constant_usd = float(train.costs_usd[best_tier].mean())
    order = np.arange(len(played))
    quality = IsotonicRegression().fit_transform(order, [float(each.good.mean()) for each in played])
    cost = IsotonicRegression().fit_transform(order, [float(each.cost_usd.mean()) for each in played])
    best_good = train.correct(best_tier)
    needed = float(best_good.mean())
    knobs: dict[float, float | None] = {}
    for target in targets:
        margins = [CAUTION * float(np.std(each.good - target * best_good)) / np.sqrt(len(train)) for each in played]
        enough = np.flatnonzero(quality - margins >= target * needed)
        if len(enough) and cost[enough[0]] < constant_usd:
            knobs[target] = _between(model.mistake_costs_usd, quality - margins, int(enough[0]), target * needed)
        else:
            knobs[target] = None
    return knobs


def _between(mistake_usd: Array, quality: Array, first: int, needed: float) -> float:
    """The mistake cost at which quality just reaches what is needed, between the grid's points."""
    if first == 0:
        return float(mistake_usd[0])
    below, above = quality[first - 1], quality[first]
    part = (needed - below) / (above - below)
    low, high = np.log(mistake_usd[first - 1]), np.log(mistake_usd[first])
    return float(np.exp(low + part * (high - low)))


def replay(learned: Learned, test: Recorded, target: float) -> Played:
    """The policy at a target's knob on `test`, decided request by request by the code that serves."""
    knob = learned.knobs[target]
    if knob is None:
        return _outcome(test, [((learned.best_tier,), learned.best_tier)] * len(test))
    return _outcome(test, [_run(learned, test, row, knob) for row in range(len(test))])


def table_of(learned: Learned, recorded: Recorded) -> Table:
    """Every belief about every prompt at once: the vector form of what `replay` asks for one by one."""
    model, data = learned.model, recorded.data
    request, own = head_logits(model.mean, model.scale, model.request, model.replies, data)
    onehot = onehots(data.workloads, model.workloads)
    beliefs = {
        state: stack.probabilities(stack_inputs(state, own, request, data.agree, onehot))
        for state, stack in model.stacks.items()
    }
    return Table(data.tiers, data.sources, beliefs, _costs(learned.expected_usd, recorded), onehot)


def _costs(expected: Mapping[str, Mapping[str, float]], recorded: Recorded) -> dict[str, Array]:
    """(n,) expected cost by source."""
    by_row = [expected.get(workload) or expected[""] for workload in recorded.data.workloads.tolist()]
    return {source: np.array([costs[source] for costs in by_row]) for source in recorded.data.sources}


def _run(learned: Learned, test: Recorded, row: int, mistake_usd: float) -> tuple[State, str]:
    model, workload = learned.model, str(test.data.workloads[row])
    expected = learned.expected_usd.get(workload) or learned.expected_usd[""]
    seen: list[Seen] = []
    state: State = ()
    while True:
        believed = model.believe(test.features[row], workload, seen)
        options = []
        for source in moves(state, model.sources):
            worth = model.worth_of(state, source, believed, workload, mistake_usd)
            if worth is not None:
                options.append(Option(source, expected[source], worth))
        step = next_step({tier: believed[tier] for tier in kept(state)}, options, mistake_cost_usd=mistake_usd)
        if not isinstance(step, Ask):
            return state, step.tier
        seen.append(_answer(test, row, state, step.source))
        state = after(state, step.source, model.sources)


def _answer(test: Recorded, row: int, state: State, source: str) -> Seen:
    agree = {}
    for earlier in state:
        pair = (earlier, source) if (earlier, source) in test.data.agree else (source, earlier)
        same, alike = test.data.agree[pair][row]
        agree[earlier] = (float(same), float(alike))
    return Seen(source, test.replies[source][row], agree)


def _outcome(recorded: Recorded, ended: Sequence[tuple[State, str]]) -> Played:
    good = np.array([recorded.correct(tier)[row] for row, (_, tier) in enumerate(ended)])
    cost = np.array([sum(recorded.costs_usd[each][row] for each in state) for row, (state, _) in enumerate(ended)])
    return Played(good, cost, np.array([tier for _, tier in ended]))


def _expected_usd(train: Recorded) -> dict[str, dict[str, float]]:
    """Mean cost by workload and source; under the empty name over all workloads."""
    names = train.data.workloads
    found = {"": {source: float(cost.mean()) for source, cost in train.costs_usd.items()}}
    for workload in sorted(set(names.tolist())):
        found[workload] = {source: float(cost[names == workload].mean()) for source, cost in train.costs_usd.items()}
    for costs in found.values():  # a further sample's cost is its tier's: what it was is known only afterwards
        for source in costs:
            costs[source] = costs[tier_of(source)]
    return found
