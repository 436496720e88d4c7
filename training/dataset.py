"""Outcomes → rows with labels and weights. The label rule lives here and only here.

**The label rule.** A label says whether a tier's reply to a request was good. Each source of labels
speaks in turn, weakest first, and a later one overrules an earlier one for the tiers it names
(`_SOURCES`); a new source is one function in that tuple.

1. *Verdict* (weak). The tier's last reply labels it, by the checks that are not learned:
   - a Reject → bad, unless its remedy is `raise_limit` or `hand_back`: a truncated reply or a refusal
     by policy says nothing of ability and gives no label;
   - all of them accepted, at least one looked, and none was cut off → good. Checks miss things, so
     this is what the checks thought, not the truth;
   - anything else (an Unjudged check, no check at all) → no label.
   The learned scorer has no say, either way: its Reject means that a dearer tier is worth asking, not
   that the reply is bad, and a model that learns from its own opinion only gets surer of it.
2. *Feedback* (strong). The caller's good/bad labels the resolved tier, whose reply the caller saw. A
   `sufficient_tier` labels that tier good and the cheaper ones bad, called or not, because the caller
   says so of the request; where the two contradict each other the judgement of the reply stands.

**What an Accept is worth.** Checks miss things, so "accepted" says less than "good". Where a workload's tier
has at least 20 accepted replies that were handed over and judged by feedback, its Accepts are no labels any
more: the judged ones stand for all that were handed over, each with the weight 1/P(judged | workload, tier,
accepted), estimated by their share (Horvitz & Thompson 1952; with the estimated share it is Hájek's
normalised form). This is right if who reports does not hang on how good the reply was, given workload, tier
and accepted (missing at random). A label stands for at most 10 replies; beyond that the Rejects of that
workload's tier weigh less instead, so that accepted and rejected keep their proportion. What the checks accepted
and the learned scorer sent on was never handed over, and has no label there. Where there is less
feedback, an Accept is a weak good, as said above. A Reject stays what it is.

A Failure never gives a label: a tier that was tried and never replied has none, whoever speaks. Nor
has a cancelled attempt, which is a Failure too.

**Weights** (of an example in its tier's training set) are the product of
- the replies that it stands for, as above;
- the source's strength: verdicts count half of feedback, good and bad alike so that the classes keep
  their proportion; but all of it where feedback speaks for the accepted replies;
- the inverse propensity of the start tier, clipped to [1, 10], so that what was explored stands for
  what was not (Horvitz & Thompson 1952; clipping: Ionides 2008);
- a factor ≤ 1 per group, so that no group holds more than its ceiling of a tier's total weight. A group
  is the `tenant` label, or the workload where there is none. The ceiling is 10 %, or twice an equal
  share where there are fewer than twenty groups.

**Time** is the order of request ids, never the wall clock.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fallback.checks.scorer import ScorerCheck
from fallback.types import Accept, Attempt, Reject, Remedy, Reply
from router.features import DENSE_NAMES, FEATURES_VERSION, Features
from router.outcome import Mode, Outcome
from router.reply_features import REPLY_NAMES
from router.store import Recorded
from training.rows import Label, Row, Source, Step
from training.weights import cap_groups

LADDER = ("haiku", "sonnet", "opus")
TENANT_LABEL = "tenant"
SIMULATED_LABEL = "simulated"

MAX_INVERSE_PROPENSITY = 10.0
MAX_REQUESTS = 30_000  # about 5 kB a row, and four times that while fitting: a night stays below 1 GB
MIN_JUDGED = 20  # accepted replies with feedback, before they speak for those without
MAX_STANDS_FOR = 10.0
_WEAK = 0.5  # a verdict's weight beside feedback's, where Accepts are labels

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Examples:
    """One tier's training set: `row` (n,) indexes `Dataset.rows`; `good` (n,) is 0 or 1; `weight` (n,) > 0."""

    row: NDArray[np.intp]
    good: Array
    weight: Array


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows in time order, with what was left out and why (`skipped`: reason → count)."""

    rows: tuple[Row, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    ladder: tuple[str, ...] = LADDER

    def split(self, held_out: float) -> tuple[Dataset, Dataset]:
        """(older, newest `held_out` share), by request id order: the model is judged on its future."""
        cut = len(self.rows) - round(len(self.rows) * held_out)
        return (
            Dataset(self.rows[:cut], self.skipped, self.ladder),
            Dataset(self.rows[cut:], {}, self.ladder),
        )

    def examples(self, tier: str) -> Examples:
        """The tier's labelled rows, weighted."""
        found = [(i, row, row.labels[tier]) for i, row in enumerate(self.rows) if tier in row.labels]
        weight = np.array(
            [
                label.strength * label.weight * min(1.0 / row.propensity, MAX_INVERSE_PROPENSITY)
                for _, row, label in found
            ],
            dtype=float,
        )
        return Examples(
            np.array([i for i, _, _ in found], dtype=np.intp),
            np.array([float(label.good) for _, _, label in found], dtype=float),
            cap_groups(weight, [row.group for _, row, _ in found]),
        )

    @property
    def labelled(self) -> int:
        """Requests with at least one label."""
        return sum(bool(row.labels) for row in self.rows)

    @property
    def simulated(self) -> bool:
        """Whether any row is simulated; such a data set must be shown as simulated."""
        return any(row.simulated for row in self.rows)

    def label_counts(self) -> dict[str, dict[str, int]]:
        """Labels by tier and `source good|bad`."""
        counts: dict[str, Counter[str]] = {tier: Counter() for tier in self.ladder}
        for row in self.rows:
            for tier, label in row.labels.items():
                counts[tier][f"{label.source} {'good' if label.good else 'bad'}"] += 1
        return {tier: dict(sorted(count.items())) for tier, count in counts.items()}

    def fingerprint(self) -> str:
        """sha256 of everything that training reads, in hex: the same data give the same model."""
        digest = sha256(f"{FEATURES_VERSION}|{self.ladder}".encode())
        for row in self.rows:
            labels = sorted((tier, each.good, each.source.value, each.weight) for tier, each in row.labels.items())
            # What an id's outcome holds never changes once stored; its labels may, when feedback comes.
            digest.update(repr((row.request_id, row.group, row.propensity, labels)).encode())
        return digest.hexdigest()


# --- reading ---------------------------------------------------------------------------------


def read_dataset(
    records: Iterable[Recorded],
    *,
    ladder: Sequence[str] = LADDER,
    max_requests: int = MAX_REQUESTS,
    progress: Callable[[int], None] = lambda _: None,
) -> Dataset:
    """The newest `max_requests` usable records, in bounded memory.

    Records must come by request id, as `Store.read` gives them. One with features of another version
    or that cannot be decoded, and an id seen twice, is counted in `skipped` and left out.
    """
    skipped: Counter[str] = Counter()
    rows: deque[Row] = deque(maxlen=max_requests)
    last_id = ""
    for count, record in enumerate(records, start=1):
        progress(count)
        outcome = record.outcome
        if outcome.request_id <= last_id:
            skipped["repeated or out of order"] += 1
            continue
        last_id = outcome.request_id
        if outcome.features_version != FEATURES_VERSION:
            skipped["features of another version"] += 1
            continue
        features = _decode(outcome.request_features, len(DENSE_NAMES))
        if features is None:
            skipped["corrupt request features"] += 1
            continue
        if len(rows) == max_requests:
            skipped["older than the newest " + f"{max_requests:,}"] += 1
        rows.append(_row(record, features, tuple(ladder), skipped))
    return Dataset(weighed(rows), dict(sorted(skipped.items())), tuple(ladder))


def _row(record: Recorded, features: Features, ladder: tuple[str, ...], skipped: Counter[str]) -> Row:
    outcome = record.outcome
    tenant = outcome.labels.get(TENANT_LABEL, "")
    return Row(
        request_id=outcome.request_id,
        workload=outcome.workload,
        group=f"tenant:{tenant}" if tenant else f"workload:{outcome.workload}",
        received_at_s=outcome.received_at_s,
        features=features,
        start=outcome.decision.start_tier,
        direct=outcome.decision.mode is Mode.DIRECT,
        propensities=dict(outcome.decision.propensities),
        expected_cost_usd=dict(outcome.decision.expected_cost_usd),
        steps=tuple(_steps(outcome, skipped)),
        resolved=outcome.resolved_tier,
        accepted=outcome.accepted,
        labels=labels_of(record, ladder),
        cost_usd=outcome.cost_usd,
        top_tier_cost_usd=outcome.top_tier_cost_usd,
        simulated=outcome.labels.get(SIMULATED_LABEL, "").lower() in ("true", "1", "yes"),
    )


def _steps(outcome: Outcome, skipped: Counter[str]) -> Iterator[Step]:
    for tier, (index, last) in _last_replies(outcome).items():
        at_tier = [attempt for attempt in outcome.attempts if attempt.tier == tier]
        encoded = outcome.reply_features[index] if index < len(outcome.reply_features) else None
        features = _decode(encoded, len(REPLY_NAMES)) if encoded else None
        if encoded and features is None:
            skipped["corrupt reply features"] += 1
        rejected = _rejecter(last)
        yield Step(
            tier=tier,
            rejected=rejected,
            ends=rejected != "learned" and _hands_back(last.rejection),
            cost_usd=math.fsum(attempt.cost_usd for attempt in at_tier),
            check_cost_usd=math.fsum(report.cost_usd for attempt in at_tier for report in attempt.checks),
            reply_features=features,
        )


def _rejecter(attempt: Attempt) -> str:
    for report in attempt.checks:
        if isinstance(report.verdict, Reject):
            if report.check == ScorerCheck.name:
                return "learned"
            return "paid" if report.cost_usd > 0 else "free"
    return ""


def _hands_back(rejection: Reject | None) -> bool:
    if rejection is None:
        return False
    remedy = rejection.otherwise if rejection.remedy is Remedy.RAISE_LIMIT else rejection.remedy
    return remedy is Remedy.HAND_BACK


def _last_replies(outcome: Outcome) -> dict[str, tuple[int, Attempt]]:
    """The last reply of each tier that replied, with its place among the attempts; in order of first reply."""
    found: dict[str, tuple[int, Attempt]] = {}
    for index, attempt in enumerate(outcome.attempts):
        if isinstance(attempt.result, Reply):
            found[attempt.tier] = (index, attempt)
    return found


def _decode(encoded: bytes, dense: int) -> Features | None:
    """None for what cannot be read, or has not this many dense features."""
    try:
        features = Features.from_bytes(encoded)
    except ValueError:
        return None
    return features if len(features.dense) == dense else None


# --- the label rule --------------------------------------------------------------------------


def labels_of(record: Recorded, ladder: Sequence[str] = LADDER) -> dict[str, Label]:
    """By tier, as the module's docstring says; a tier outside the ladder has none."""
    labels: dict[str, Label] = {}
    for source in _SOURCES:
        labels |= source(record, ladder)
    replied = _last_replies(record.outcome).keys()
    only_failed = {attempt.tier for attempt in record.outcome.attempts} - replied
    accepted = {tier for tier, label in _from_verdicts(record, ladder).items() if label.good}
    return {
        tier: replace(labels[tier], accepted=tier in accepted)
        for tier in ladder
        if tier in labels and tier not in only_failed
    }


def weighed(rows: Collection[Row]) -> tuple[Row, ...]:
    """The rows with labels as the module's docstring says what an Accept is worth."""
    handed_over: Counter[tuple[str, str]] = Counter()
    judged: Counter[tuple[str, str]] = Counter()
    for row in rows:
        label = row.labels.get(row.resolved)
        if label is not None and label.accepted:
            handed_over[row.workload, row.resolved] += 1
            judged[row.workload, row.resolved] += label.source is Source.FEEDBACK
    stands_for = {cell: handed_over[cell] / n for cell, n in judged.items() if n >= MIN_JUDGED}
    return tuple(replace(row, labels=dict(_weighed(row, stands_for))) for row in rows)


def _weighed(row: Row, stands_for: Mapping[tuple[str, str], float]) -> Iterator[tuple[str, Label]]:
    for tier, label in row.labels.items():
        replies = stands_for.get((row.workload, tier))
        if replies is None:
            yield tier, label
        elif label.source is Source.FEEDBACK and label.accepted and tier == row.resolved:
            yield tier, replace(label, weight=min(replies, MAX_STANDS_FOR))
        elif label.source is Source.FEEDBACK or not label.accepted:
            yield tier, replace(label, weight=min(1.0, MAX_STANDS_FOR / replies), strength=1.0)


def _from_verdicts(record: Recorded, _ladder: Sequence[str]) -> dict[str, Label]:
    outcome = record.outcome
    labels: dict[str, Label] = {}
    for tier, (_, attempt) in _last_replies(outcome).items():
        verdicts = [report.verdict for report in attempt.checks if report.check != ScorerCheck.name]
        rejections = [verdict for verdict in verdicts if isinstance(verdict, Reject)]
        # The scorer comes last: where it spoke, or the reply was accepted, no other check was cut off.
        finished = len(verdicts) < len(attempt.checks) or (outcome.accepted and tier == outcome.resolved_tier)
        if rejections:
            if rejections[0].remedy is Remedy.ESCALATE:
                labels[tier] = Label(False, Source.VERDICT, strength=_WEAK)
        elif finished and verdicts and all(isinstance(verdict, Accept) for verdict in verdicts):
            labels[tier] = Label(True, Source.VERDICT, strength=_WEAK)
    return labels


def _from_feedback(record: Recorded, ladder: Sequence[str]) -> dict[str, Label]:
    feedback, resolved = record.feedback, record.outcome.resolved_tier
    if feedback is None or not resolved:
        return {}
    labels: dict[str, Label] = {}
    if feedback.sufficient_tier in ladder:
        enough = list(ladder).index(feedback.sufficient_tier)
        labels = {tier: Label(rung == enough, Source.FEEDBACK) for rung, tier in enumerate(ladder[: enough + 1])}
    labels[resolved] = Label(feedback.good, Source.FEEDBACK)
    return labels


# Weakest first: a later source overrules an earlier one.
_SOURCES = (_from_verdicts, _from_feedback)
