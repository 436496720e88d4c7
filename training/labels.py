"""Whether a tier's reply was good, and how many replies a label stands for. The label rule lives here and only here.

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
2. *Audit* (strong). What an audit verifier or a judge found of the audited tier's reply; an audit verifier labels
   the auditor's own reply too. A verdict that could only have been good gives no label (`AuditMethod.settles`):
   where answers are compared and nobody says which of two different ones is right, labels for the same ones alone
   would be a sample in which nothing is ever bad.
3. *Feedback* (strong). The caller's good/bad labels the resolved tier, whose reply the caller saw. A
   `sufficient_tier` labels that tier good and the cheaper ones bad, called or not, because the caller
   says so of the request; where the two contradict each other the judgement of the reply stands.

A Failure never gives a label: a tier that was tried and never replied has none, whoever speaks. Nor
has a cancelled attempt, which is a Failure too.

**What an Accept is worth.** Checks miss things, so "accepted" says less than "good". Where enough accepted
replies of a workload's tier were looked into, its Accepts are no labels any more: those looked into stand for all
that were handed over.
- *Audits*, at least 20 of replies that nobody reported on. A reply with feedback stands for itself; the audited ones
  among the others stand for all others, each in proportion to 1/P(audited), which is known because an audit is
  drawn by lot (Horvitz & Thompson 1952, in Hájek's normalised form; two-phase sampling: Neyman 1938). Right
  whoever reports and why: among those not reported on, audits are still a fair sample.
- else *feedback*, at least 20 judged by it (or by one of a few audits): each stands for 1/P(judged | workload, tier,
  accepted), estimated by their share. Right only if who reports does not hang on how good the reply was, given
  workload, tier and accepted (missing at random).
- else an Accept is a weak good, as said above.

A label stands for at most 10 replies; beyond that the other labels of that workload's tier weigh less instead, so
that accepted and rejected keep their proportion. What the checks accepted and the learned scorer sent on was never
handed over, and has no label there, unless an audit looked. A Reject stays what it is. An auditor's own reply
stands for 1/P(audited) requests that a cheaper tier answered.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fallback.checks.scorer import ScorerCheck
from fallback.types import Accept, Attempt, Reject, Remedy, Reply
from router.outcome import AuditMethod, AuditVerdict, Outcome
from router.store import Recorded
from training.rows import Label, Row, Source

LADDER = ("haiku", "sonnet", "opus")
MIN_JUDGED = 20  # accepted replies looked into, before they speak for the others
MAX_STANDS_FOR = 10.0
_WEAK = 0.5  # a verdict's weight beside feedback's, where Accepts are labels


def labels_of(record: Recorded, ladder: Sequence[str] = LADDER) -> dict[str, Label]:
    """By tier, as the module's docstring says; a tier outside the ladder has none."""
    labels: dict[str, Label] = {}
    for source in _SOURCES:
        labels |= source(record, ladder)
    replied = last_replies(record.outcome).keys()
    only_failed = {attempt.tier for attempt in record.outcome.attempts} - replied
    accepted = {tier for tier, label in _from_verdicts(record, ladder).items() if label.good}
    return {
        tier: replace(labels[tier], accepted=tier in accepted)
        for tier in ladder
        if tier in labels and tier not in only_failed
    }


def last_replies(outcome: Outcome) -> dict[str, tuple[int, Attempt]]:
    """The last reply of each tier that replied, with its place among the attempts; in order of first reply."""
    found: dict[str, tuple[int, Attempt]] = {}
    for index, attempt in enumerate(outcome.attempts):
        if isinstance(attempt.result, Reply):
            found[attempt.tier] = (index, attempt)
    return found


# --- the sources -----------------------------------------------------------------------------


def _from_verdicts(record: Recorded, _ladder: Sequence[str]) -> dict[str, Label]:
    outcome = record.outcome
    labels: dict[str, Label] = {}
    for tier, (_, attempt) in last_replies(outcome).items():
        verdicts = [report.verdict for report in attempt.checks if report.check != ScorerCheck.name]
        rejections = [verdict for verdict in verdicts if isinstance(verdict, Reject)]
        # The scorer comes after the free checks, and a paid one that was cut off has a report: so where the scorer
        # spoke, or the reply was accepted, nothing that would have spoken is missing.
        finished = len(verdicts) < len(attempt.checks) or (outcome.accepted and tier == outcome.resolved_tier)
        if rejections:
            if rejections[0].remedy is Remedy.ESCALATE:
                labels[tier] = Label(False, Source.VERDICT, strength=_WEAK)
        elif finished and verdicts and all(isinstance(verdict, Accept) for verdict in verdicts):
            labels[tier] = Label(True, Source.VERDICT, strength=_WEAK)
    return labels


def _from_audits(record: Recorded, _ladder: Sequence[str]) -> dict[str, Label]:
    labels: dict[str, Label] = {}
    for audit in record.audits:
        if audit.method is AuditMethod.VERIFIER and audit.auditor_verdict is not AuditVerdict.UNKNOWN:
            good = audit.auditor_verdict is AuditVerdict.GOOD
            labels.setdefault(audit.auditor_tier, Label(good, Source.AUDIT, propensity=audit.propensity))
        if audit.method.settles and audit.verdict is not AuditVerdict.UNKNOWN:
            good = audit.verdict is AuditVerdict.GOOD
            labels[audit.tier] = Label(good, Source.AUDIT, propensity=audit.propensity)
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
_SOURCES = (_from_verdicts, _from_audits, _from_feedback)


# --- what a label stands for -----------------------------------------------------------------


@dataclass(slots=True)
class _Cell:
    """What is known of the accepted replies that one tier handed over in one workload."""

    handed_over: int = 0
    labelled: int = 0  # by anybody, a verdict included
    reported: int = 0
    judged: int = 0  # of the labelled ones, by a caller or an audit
    audits: int = 0
    drawn: float = 0.0  # what the audits stand for together, by their propensities

    def count(self, label: Label | None) -> None:
        """One more of them."""
        self.handed_over += 1
        if label is None:
            return
        self.labelled += label.accepted
        self.judged += label.accepted and label.source is not Source.VERDICT
        self.reported += label.source is Source.FEEDBACK
        if label.source is Source.AUDIT:
            self.audits += 1
            self.drawn += 1.0 / label.propensity

    @property
    def by_audits(self) -> bool:
        """Whether audits speak for those not reported on."""
        return self.audits >= MIN_JUDGED

    @property
    def spoken_for(self) -> bool:
        """Whether anybody speaks for the others."""
        return self.by_audits or self.judged >= MIN_JUDGED

    def stands_for(self, label: Label) -> float:
        """How many replies a judged one stands for, unbounded."""
        if self.by_audits:
            if label.source is Source.FEEDBACK:
                return 1.0
            return (self.handed_over - self.reported) / self.drawn / label.propensity
        return self.labelled / self.judged if label.accepted else 1.0


def weighed(rows: Collection[Row]) -> tuple[Row, ...]:
    """The rows with labels as the module's docstring says what an Accept is worth."""
    cells: defaultdict[tuple[str, str], _Cell] = defaultdict(_Cell)
    for row in rows:
        if row.resolved and row.accepted:
            cells[row.workload, row.resolved].count(row.labels.get(row.resolved))
    largest: defaultdict[tuple[str, str], float] = defaultdict(lambda: 1.0)
    for row in rows:
        cell, label = cells.get((row.workload, row.resolved)), row.labels.get(row.resolved)
        if cell is not None and cell.spoken_for and _judged(row, row.resolved, label):
            assert label is not None
            largest[row.workload, row.resolved] = max(largest[row.workload, row.resolved], cell.stands_for(label))
    return tuple(replace(row, labels=dict(_weighed(row, cells, largest))) for row in rows)


def _judged(row: Row, tier: str, label: Label | None) -> bool:
    """Whether it is of a reply that was handed over as accepted, by one who looked."""
    return label is not None and label.source is not Source.VERDICT and row.accepted and tier == row.resolved


def _weighed(
    row: Row, cells: Mapping[tuple[str, str], _Cell], largest: Mapping[tuple[str, str], float]
) -> Iterator[tuple[str, Label]]:
    for tier, label in row.labels.items():
        cell = cells.get((row.workload, tier))
        drawn = min(1.0 / label.propensity, MAX_STANDS_FOR) if label.source is Source.AUDIT else 1.0
        if cell is None or not cell.spoken_for:
            # An accepted reply's audit stands for itself there: the Accepts beside it are labels too.
            yield tier, label if _judged(row, tier, label) else replace(label, weight=drawn)
            continue
        scale = min(1.0, MAX_STANDS_FOR / largest[row.workload, tier])
        if _judged(row, tier, label):
            yield tier, replace(label, weight=scale * cell.stands_for(label))
        elif label.source is not Source.VERDICT or not label.accepted:
            yield tier, replace(label, weight=scale * drawn, strength=1.0)
