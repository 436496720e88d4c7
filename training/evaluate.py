"""Challenger, champion, constant tiers, shuffle and oracle on the held-out requests, with intervals."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fallback.economics import break_even_rate
from router.experience import wilson
from training.dataset import Dataset
from training.follow import Constant, Means, Plan, Policy, follow
from training.offpolicy import (
    MAX_CORRECTION,
    MAX_WEIGHT,
    Array,
    Estimates,
    Terms,
    effective_size,
    figure,
    point,
    resample,
)
from training.results import Bin, Calibration, Difference, Escalation, Evaluation, Figure, Kind, PolicyResult
from training.rows import Row

_BINS = 10
_Z95 = 1.96
CHALLENGER = "challenger"


# --- terms of the estimators -----------------------------------------------------------------


def terms(
    policy: Policy,
    mixes: Sequence[Mapping[Plan, float]],
    rows: Sequence[Row],
    means: Means,
    beliefs: Sequence[Mapping[str, float]],
) -> Terms:
    """A policy's terms. For each row, `mixes` has the probability of each plan, and `beliefs` P(good) by tier.

    The beliefs must not have seen the row's labels; q̂ follows from them and the means.
    """
    table = np.zeros((len(rows), len(Terms.__slots__)))
    for i, (row, mix, p_good) in enumerate(zip(rows, mixes, beliefs, strict=True)):
        for plan, probability in mix.items():
            guess_q, guess_c = means.expected(plan, row.workload, p_good)
            table[i, :2] += probability * guess_q, probability * guess_c
            if plan.tiers[0] != row.start:
                continue
            seen = follow(policy, plan, row, means)
            weight = probability * min(1.0 / row.propensity, MAX_WEIGHT)
            shrunk = probability * min(1.0 / row.propensity, MAX_CORRECTION)
            label = 0.0 if seen.quality is None else seen.weight
            quality = seen.quality or 0.0
            table[i, 2:] += (
                weight,
                weight * label,
                weight * label * quality,
                shrunk * label * (quality - guess_q),
                weight * seen.cost_usd,
                shrunk * (seen.cost_usd - guess_c),
                weight * label * seen.imputed,
            )
    return Terms(*table.T)


def logged_terms(rows: Sequence[Row]) -> Terms:
    """What was served: plain means, exploration included."""
    zero, one = np.zeros(len(rows)), np.ones(len(rows))
    labels = [row.labels.get(row.resolved) for row in rows]
    known = np.array([label.weight if label else 0.0 for label in labels])
    seen = np.array([label.weight * label.good if label else 0.0 for label in labels])
    cost = np.array([row.cost_usd for row in rows])
    return Terms(zero, zero, one, known, seen, seen, cost, cost, zero)


def oracle_terms(rows: Sequence[Row], ladder: Sequence[str], means: Means) -> Terms:
    """The cheapest good tier, where it is known: from requests started at the lowest tier, labels going up.

    Where every tier's reply was bad it pays for the lowest.
    """
    table = np.zeros((len(rows), len(Terms.__slots__)))
    for i, row in enumerate(rows):
        if row.start != ladder[0]:
            continue
        best: str | None = ladder[0]
        for tier in ladder:
            if tier not in row.labels:
                best = None
                break
            if row.labels[tier].good:
                best = tier
                break
        if best is None:
            continue
        weight = min(1.0 / row.propensity, MAX_WEIGHT) * row.labels[best].weight
        costs = {step.tier: step.cost_usd for step in row.steps}
        cost = costs[best] if best in costs else means.get("cost", "only", best, row.workload)
        quality = weight * row.labels[best].good
        table[i] = 0.0, 0.0, weight, weight, quality, quality, weight * cost, weight * cost, 0.0
    return Terms(*table.T)


# --- the whole -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Candidate:
    kind: Kind
    terms: Terms
    mix: Mapping[str, float] = field(default_factory=dict)


def evaluate(
    challenger: Policy,
    champion: Policy | None,
    held_in: Dataset,
    held_out: Dataset,
    *,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Everything measured, each policy on the same held-out requests; a tier that never replied is left out."""
    rows, ladder, means = held_out.rows, held_out.ladder, Means(held_in.rows)
    replied = {step.tier for row in (*held_in.rows, *rows) for step in row.steps}
    notes = [f"{tier} never replied: not compared" for tier in ladder if tier not in replied]
    if not rows:
        return Evaluation(0, 0, (), (), (), (), (*notes, "no held-out requests: nothing was measured"))
    policies: list[tuple[str, Kind, Policy]] = [(CHALLENGER, "challenger", challenger)]
    if champion is not None:
        policies.append(("champion", "champion", champion))
    policies += [(f"always {tier}", "constant", Constant(tier)) for tier in ladder if tier in replied]
    progress("beliefs")
    beliefs = [challenger.probabilities(row) for row in rows]
    candidates: dict[str, _Candidate] = {"as served": _Candidate("logged", logged_terms(rows))}
    dealt: dict[Plan, float] = {}
    for name, kind, policy in policies:
        progress(name)
        plans = [policy.plan(row) for row in rows]
        own = terms(policy, [{plan: 1.0} for plan in plans], rows, means, beliefs)
        candidates[name] = _Candidate(kind, own, _shares(plans))
        dealt = dealt or {plan: n / len(rows) for plan, n in Counter(plans).items()}  # the challenger comes first
    progress("shuffle")
    shuffled = terms(challenger, [dealt] * len(rows), rows, means, beliefs)
    candidates["same mix, shuffled"] = _Candidate("shuffle", _cost_matched(shuffled, candidates))
    candidates["oracle"] = _Candidate("oracle", oracle_terms(rows, ladder, means))
    progress("intervals")
    measured = resample({name: each.terms for name, each in candidates.items()}, seed=seed)
    return Evaluation(
        n=len(rows),
        labelled=held_out.labelled,
        results=tuple(_result(name, each, measured[name]) for name, each in candidates.items()),
        differences=tuple(
            _difference(name, each, measured[CHALLENGER], measured[name])
            for name, each in candidates.items()
            if name != CHALLENGER
        ),
        calibration=tuple(_calibrations(beliefs, rows, ladder)),
        escalation=tuple(_escalations(rows, ladder)),
        notes=tuple(notes),
    )


def _shares(plans: Sequence[Plan]) -> dict[str, float]:
    counts = Counter(plan.name for plan in plans)
    return {name: n / len(plans) for name, n in sorted(counts.items())}


def _cost_matched(shuffled: Terms, candidates: Mapping[str, _Candidate]) -> Terms:
    """The challenger's mix of plans, dealt out regardless of the request, blended with a constant to cost the same."""
    wanted, have = point(candidates[CHALLENGER].terms).cost[0], point(shuffled).cost[0]
    for each in candidates.values():
        other = point(each.terms).cost[0]
        if each.kind == "constant" and min(have, other) < wanted < max(have, other):
            return shuffled.blended(each.terms, float((wanted - have) / (other - have)))
    return shuffled


def _result(name: str, candidate: _Candidate, measured: Estimates) -> PolicyResult:
    share, money = (0.0, 1.0), (0.0, np.inf)
    own = candidate.terms
    return PolicyResult(
        name=name,
        kind=candidate.kind,
        quality=_widened(figure(measured.quality, within=share), _unseen_sigma(own), within=share),
        cost_usd=figure(measured.cost, within=money),
        quality_ips=_widened(figure(measured.quality_ips, within=share), _unseen_sigma(own), within=share),
        cost_ips_usd=figure(measured.cost_ips, within=money),
        support=int(np.count_nonzero(own.labelled)),
        effective=effective_size(own.labelled),
        imputed=float(own.imputed.sum() / max(own.labelled.sum(), 1e-12)),
        mix=candidate.mix,
    )


def _difference(name: str, candidate: _Candidate, challenger: Estimates, other: Estimates) -> Difference:
    quality = figure(challenger.quality - other.quality)
    return Difference(
        name,
        candidate.kind,
        _widened(quality, _unseen_sigma(candidate.terms), within=(-1.0, 1.0)),
        figure(challenger.cost - other.cost),
    )


def _unseen_sigma(own: Terms) -> float:
    """The standard error that a bootstrap cannot see: 20 good replies out of 20 are no proof of 100 % (Wilson)."""
    known = own.labelled > 0
    seen = own.quality_seen[known] / own.labelled[known]
    if len(seen) == 0 or seen.min() < seen.max():
        return 0.0
    n = effective_size(own.labelled)
    low, high = wilson(float(seen[0]) * n, n)
    return (high - low) / (2 * _Z95)


def _widened(figure_: Figure, sigma: float, *, within: tuple[float, float]) -> Figure:
    if sigma == 0.0:
        return figure_
    total = math.hypot(figure_.sigma, sigma)
    low, high = np.clip([figure_.value - _Z95 * total, figure_.value + _Z95 * total], *within)
    return Figure(figure_.value, min(figure_.low, float(low)), max(figure_.high, float(high)), total)


def _calibrations(
    beliefs: Sequence[Mapping[str, float]], rows: Sequence[Row], ladder: Sequence[str]
) -> list[Calibration]:
    """By tier that has labels and predictions. Bins of equal count, so that each point has its share of the data."""
    found: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for row, probabilities in zip(rows, beliefs, strict=True):
        for tier, label in row.labels.items():
            if tier in probabilities:
                found[tier].append((probabilities[tier], float(label.good)))
    return [_calibration(tier, np.array(found[tier])) for tier in ladder if found[tier]]


def _calibration(tier: str, pairs: Array) -> Calibration:
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    predicted, labels = pairs.T
    bins = []
    for part in np.array_split(pairs, min(_BINS, max(1, len(pairs) // 20))):
        low, high = wilson(float(part[:, 1].sum()), len(part))
        bins.append(Bin(float(part[:, 0].mean()), float(part[:, 1].mean()), low, high, len(part)))
    return Calibration(
        tier=tier,
        n=len(pairs),
        ece=sum(each.n * abs(each.predicted - each.good) for each in bins) / len(pairs),
        brier=float(np.mean((predicted - labels) ** 2)),
        constant_brier=float(np.var(labels)),
        bins=tuple(bins),
    )


def _escalations(rows: Sequence[Row], ladder: Sequence[str]) -> list[Escalation]:
    """As served, by workload and start tier, of the requests whose start tier's reply was judged."""
    judged: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    costs: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for row in rows:
        for step in row.steps:
            costs[row.workload, step.tier].append(step.cost_usd)
        if row.steps and row.steps[0].tier == row.start and row.start in ladder:
            judged[row.workload, row.start].append(row)
    found = []
    for (workload, start), those in sorted(judged.items(), key=lambda item: (item[0][0], ladder.index(item[0][1]))):
        rejected = sum(bool(row.steps[0].rejected) for row in those)
        above = [tier for tier in ladder[ladder.index(start) + 1 :] if costs[workload, tier]]
        line = None
        if above:
            line = break_even_rate(float(np.mean(costs[workload, start])), float(np.mean(costs[workload, above[0]])))
        low, high = wilson(rejected, len(those))
        found.append(Escalation(workload, start, len(those), rejected, rejected / len(those), low, high, line))
    return found
