"""What the log can show of a policy's accepted replies: scores, truth and weights for `training.certify`.

The population is what the promise is about: the replies of one tier in one workload that the policy, decided
request by request by the code that serves, would hand over as accepted, exploration left out. An example is such a
reply of which the truth is known, from feedback or an audit; a check's verdict is no truth.

- A request counts where it started as the policy would have started it, with the inverse of that start's logged
  propensity. What one model version decided is a sample of its own of the same requests, so weights are brought to
  one scale within each: else a version that hardly ever took that start would outweigh the others. Where the policy
  would have gone on after a reply and the log went elsewhere, the request is left out.
- *Replies that were handed over*: the judged ones stand for all, as `training.labels` says.
- *Replies that were sent on* to a higher tier although this policy would keep them: audits stand for them, where
  there are at least 20; else each one that nobody judged counts as bad. A threshold can therefore not be
  certified down into scores of which nobody knows anything.
- For DIRECT a reply that a paid check rejected counts as bad: a DIRECT reply skips paid checks.
- Replies of a model id that its endpoint no longer gives, and those before an alarm, are no evidence any more.

The scorer must not have seen the requests: they are those after the last one that it was fitted on.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fallback.cascade import Ask, Keep
from router.alarms import Stream
from router.certificate import Certificate, Promise, State, Threshold, TierCertificate
from training.certify import certify
from training.labels import MIN_JUDGED
from training.rows import Row, Source, Step
from training.served import Served

Array = NDArray[np.float64]
Cell = tuple[str, str]  # workload, tier

_ENOUGH = 30  # observations before a ratio is believed
_MOST_OFF = 20.0
_Z = 1.64


@dataclass(frozen=True, slots=True)
class Kept:
    """One reply that the policy would hand over. `bad` is None where nobody looked; `judged` is the label's weight."""

    score: float
    request_score: float
    bad: bool | None
    judged: float
    handed_over: bool
    start_weight: float
    regime: str
    first: bool
    received_at_s: float


@dataclass(slots=True)
class Evidence:
    """Of one tier in one workload. `paid_rejected` are DIRECT's bad ones: (P(good) of the request, weight)."""

    kept: list[Kept] = field(default_factory=list)
    paid_rejected: list[tuple[float, float]] = field(default_factory=list)

    def accept(self) -> tuple[Array, Array, Array]:
        """(score, bad, weight), each (n,)."""
        weighed = _weighed(self.kept)
        return _arrays([(each.score, bad, weight) for each, bad, weight in weighed])

    def direct(self) -> tuple[Array, Array, Array]:
        """(P(good) of the request alone, bad, weight) of the replies to the first call."""
        weighed = _weighed([each for each in self.kept if each.first])
        rejected = [(score, True, weight) for score, weight in self.paid_rejected] if weighed else []
        return _arrays([*((each.request_score, bad, weight) for each, bad, weight in weighed), *rejected])


def gather(policy: Served, rows: Sequence[Row], *, since_s: Mapping[Cell, float]) -> dict[Cell, Evidence]:
    """By workload and tier, from requests that the model was not fitted on; `since_s` says what is too old."""
    found: defaultdict[Cell, Evidence] = defaultdict(Evidence)
    current = current_models(rows)
    for row in rows:
        plan = policy.plan(row)
        if row.start != plan.tiers[0]:
            continue
        before = policy.probabilities(row)
        replies: list[Step] = []
        for number, step in enumerate(row.steps):
            cell = found[row.workload, step.tier]
            stale = current[step.endpoint, step.tier] != step.model
            stale |= row.received_at_s < since_s.get((row.workload, step.tier), 0.0)
            if step.rejected == "paid" and number == 0 and not stale:
                cell.paid_rejected.append((before.get(step.tier, 0.0), 1.0))  # the weight of the heaviest
            if step.ends:
                break
            replies.append(replace(step, rejected="") if step.rejected == "learned" else step)
            following = row.steps[number + 1].tier if number + 1 < len(row.steps) else ""
            match policy.think(row, plan, replies):
                case Keep(tier=tier), float(score) if tier == step.tier and not stale:
                    cell.kept.append(_kept(row, step, score, before, first=number == 0))
                    break
                case Ask(source=source), _ if source == following:
                    continue
                case _:
                    break
    return dict(found)


def expected_ratios(policy: Served, rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """By workload, tier and stream (`router.drift`): what came of these requests as a multiple of what the model said.

    With its upper 95 % limit (normal approximation), so that what is not known well alarms late rather than early.
    """
    sums: defaultdict[tuple[str, str, Stream], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(workload: str, tier: str, stream: Stream, y: float, expected: float) -> None:
        cell = sums[workload, tier, stream]
        cell[0] += y
        cell[1] += expected
        cell[2] += 1.0

    for row in rows:
        if not row.steps or row.steps[0].tier != row.start or row.steps[0].ends:
            continue
        first, before = row.steps[0], policy.probabilities(row)
        expected = 1.0 - before.get(first.tier, 1.0)
        rejected = first.rejected in ("free", "paid")
        add(row.workload, first.tier, Stream.CHECKS, float(rejected), expected)
        score = None if rejected else policy.think(row, policy.plan(row), (replace(first, rejected=""),))[1]
        if score is None:
            continue
        add(row.workload, first.tier, Stream.DOUBT, 1.0 - score, expected)
        label = row.labels.get(first.tier)
        if row.resolved == first.tier and label is not None and label.source is not Source.VERDICT:
            add(row.workload, first.tier, Stream.TRUTH, float(not label.good), 1.0 - score)
    ratios: defaultdict[str, defaultdict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (workload, tier, stream), (y, expected, n) in sums.items():
        if n >= _ENOUGH and expected > 0:
            ratio = (y + _Z * math.sqrt(y + 1.0)) / expected
            ratios[workload][tier][stream.value] = min(_MOST_OFF, max(1.0 / _MOST_OFF, ratio))
    return {workload: dict(tiers) for workload, tiers in ratios.items()}


def current_models(rows: Sequence[Row]) -> Mapping[tuple[str, str], str]:
    """The model id of the newest reply by endpoint and tier."""
    return {(step.endpoint, step.tier): step.model for row in rows for step in row.steps}


def certify_policy(
    policy: Served,
    rows: Sequence[Row],
    promises: Callable[[str], Promise],
    *,
    seed: int = 0,
    since_s: Mapping[Cell, float] | None = None,
) -> dict[str, Certificate]:
    """A certificate for every workload that promises something, from requests that the model was not fitted on."""
    promised = [row for row in rows if promises(row.workload).made]
    if not promised:
        return {}
    evidence = gather(policy, promised, since_s=since_s or {})
    certificates = {}
    for workload in sorted({row.workload for row in promised}):
        promise = promises(workload)
        own = [row for row in promised if row.workload == workload]
        tiers = {}
        allowed = policy.allowed(workload)
        for tier, above in pairwise(allowed):
            alpha = promise.alpha(policy.expected_cost_usd(own, above))
            start_s = max(own[0].received_at_s, (since_s or {}).get((workload, tier), 0.0))
            tiers[tier] = _certified(
                evidence.get((workload, tier), Evidence()),
                alpha,
                1.0 - promise.confidence,
                seed,
                (start_s, max(start_s, own[-1].received_at_s)),
            )
        made_from = promise.mistake_cost_usd or 0.0 if promise.false_accept_max is None else 0.0
        certificates[workload] = Certificate(promise.confidence, made_from, tiers)
    return certificates


def _certified(
    evidence: Evidence, alpha: float, delta: float, seed: int, period_s: tuple[float, float]
) -> TierCertificate:
    if alpha >= 1.0:  # any mistake is cheaper than asking on
        anything = Threshold(State.CERTIFIED, 0.0, 0, 0, 0, 1.0)
        return TierCertificate(1.0, anything, anything, *period_s)
    accept = certify(*evidence.accept(), alpha=alpha, delta=delta, seed=seed)
    direct = certify(*evidence.direct(), alpha=alpha, delta=delta, seed=seed)
    return TierCertificate(alpha, accept, direct, *period_s)


def _kept(row: Row, step: Step, score: float, before: Mapping[str, float], *, first: bool) -> Kept:
    label = row.labels.get(step.tier)
    known = label is not None and label.source is not Source.VERDICT
    handed_over = row.resolved == step.tier
    judged = 0.0
    if label is not None and known:
        judged = label.weight if handed_over else 1.0 / label.propensity
    return Kept(
        score=score,
        request_score=before[step.tier],
        bad=not label.good if label is not None and known else None,
        judged=judged,
        handed_over=handed_over,
        start_weight=1.0 / row.propensity,
        regime=row.regime,
        first=first,
        received_at_s=row.received_at_s,
    )


def _weighed(kept: Sequence[Kept]) -> list[tuple[Kept, bool, float]]:
    """(reply, bad, weight) of those that count, the judged ones standing for those they speak for."""
    heaviest: defaultdict[str, float] = defaultdict(float)
    for each in kept:
        heaviest[each.regime] = max(heaviest[each.regime], each.start_weight)
    kept = [replace(each, start_weight=each.start_weight / heaviest[each.regime]) for each in kept]
    found = []
    for handed_over in (True, False):
        those = [each for each in kept if each.handed_over is handed_over]
        judged = [each for each in those if each.bad is not None]
        spoken_for = handed_over or len(judged) >= MIN_JUDGED
        scale = len(those) / sum(each.judged for each in judged) if spoken_for and judged else 0.0
        for each in those:
            if each.bad is None and not spoken_for:
                found.append((each, True, each.start_weight))
            elif each.bad is not None:
                weight = scale * each.judged if spoken_for else 1.0
                found.append((each, each.bad, weight * each.start_weight))
    # Unjudged ones alone say nothing.
    return found if any(each.bad is not None for each, _, _ in found) else []


def _arrays(examples: Sequence[tuple[float, bool, float]]) -> tuple[Array, Array, Array]:
    table = np.array(examples, dtype=float).reshape(len(examples), 3)
    return table[:, 0], table[:, 1], table[:, 2]
