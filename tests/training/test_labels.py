"""Audits as labels, beside verdicts and feedback; the other rules are in test_dataset.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fallback.types import Reject
from router.outcome import Audit, AuditMethod, AuditVerdict, Feedback
from router.store import Recorded
from tests.support import outcomes as make
from tests.support.nights import World
from training.dataset import read_dataset
from training.labels import MAX_STANDS_FOR, MIN_JUDGED, labels_of
from training.learner import training_set
from training.rows import Row, Source

GOOD, BAD, UNKNOWN = AuditVerdict.GOOD, AuditVerdict.BAD, AuditVerdict.UNKNOWN


def said(one: Recorded) -> dict[str, tuple[bool, Source]]:
    return {tier: (label.good, label.source) for tier, label in labels_of(one).items()}


def audited(*audits: Audit, good: bool | None = None) -> Recorded:
    feedback = None if good is None else Feedback(make.request_id(1), good)
    return Recorded(make.outcome(1), feedback, audits)


# --- whose word counts -----------------------------------------------------------------------


@pytest.mark.parametrize("method", AuditMethod)
@pytest.mark.parametrize("verdict", AuditVerdict)
def test_only_an_audit_that_can_go_either_way_gives_a_label(method: AuditMethod, verdict: AuditVerdict) -> None:
    labels = said(audited(make.audit(method=method, verdict=verdict)))
    settled = method in (AuditMethod.VERIFIER, AuditMethod.JUDGE) and verdict is not UNKNOWN
    assert labels == {"haiku": (verdict is GOOD, Source.AUDIT) if settled else (True, Source.VERDICT)}


def test_feedback_beats_an_audit_and_an_audit_beats_a_verdict() -> None:
    bad = make.audit(verdict=BAD)
    assert said(audited()) == {"haiku": (True, Source.VERDICT)}
    assert said(audited(bad)) == {"haiku": (False, Source.AUDIT)}
    assert said(audited(bad, good=True)) == {"haiku": (True, Source.FEEDBACK)}


@pytest.mark.parametrize(("method", "labelled"), [(AuditMethod.VERIFIER, True), (AuditMethod.JUDGE, False)])
def test_the_auditors_own_reply_has_a_label_where_the_truth_is_known(method: AuditMethod, *, labelled: bool) -> None:
    labels = said(audited(make.audit(method=method, verdict=BAD, auditor_verdict=GOOD)))
    assert ("sonnet" in labels) is labelled


def test_a_reply_of_the_request_is_no_auditors() -> None:
    two = make.audit(tier="haiku", accepted=False, auditor_tier="sonnet", verdict=GOOD, auditor_verdict=BAD)
    one = Recorded(make.outcome(1, attempts=make.escalated_attempts()), None, (two, make.audit(tier="sonnet")))
    assert said(one) == {"haiku": (True, Source.AUDIT), "sonnet": (True, Source.AUDIT)}


# --- what an audit stands for ----------------------------------------------------------------


def log(n: int, *, audits: int = 0, bad: int = 0, propensity: float = 0.1, **world: float) -> list[Recorded]:
    """n requests of one workload, answered by opus and accepted; the first ones audited, the first of those bad."""
    made = World(**{"explore": 0.0, "feedback": 0.0, "caught": 0.0, **world}, start="opus").log(n)
    made = [replace(each, outcome=replace(each.outcome, workload="w")) for each in made]
    for i in range(audits):
        one = make.audit(tier="opus", auditor_tier="", propensity=propensity, verdict=BAD if i < bad else GOOD)
        made[i] = replace(made[i], audits=(replace(one, request_id=made[i].outcome.request_id),))
    return made


def weights(rows: tuple[Row, ...]) -> list[float | None]:
    return [row.labels["opus"].weight if row.labels else None for row in rows]


def quality(rows: tuple[Row, ...], tier: str = "opus") -> float:
    labels = [row.labels[tier] for row in rows if tier in row.labels]
    return sum(label.weight * label.good for label in labels) / sum(label.weight for label in labels)


def test_audited_replies_stand_for_those_nobody_looked_into() -> None:
    rows = read_dataset(log(100, audits=20, bad=5)).rows
    assert weights(rows) == [5.0] * 20 + [None] * 80
    assert quality(rows) == pytest.approx(0.75)


def test_each_stands_for_as_many_as_its_own_chance_says() -> None:
    records = log(100, audits=20, propensity=0.1)
    rare = [replace(each, audits=(replace(each.audits[0], propensity=0.3),)) for each in records[:10]]
    assert weights(read_dataset([*rare, *records[10:]]).rows)[:20] == pytest.approx([2.5] * 10 + [7.5] * 10)


def test_a_reported_reply_stands_for_itself_and_audits_for_the_others() -> None:
    records = log(100, audits=25, bad=5)
    for i in (*range(5), *range(90, 100)):
        records[i] = replace(records[i], feedback=Feedback(records[i].outcome.request_id, good=False))
    rows = read_dataset(records).rows
    assert weights(rows) == [1.0] * 5 + [pytest.approx(85 / 20)] * 20 + [None] * 65 + [1.0] * 10
    assert quality(rows) == pytest.approx(0.85)


def test_with_few_audits_they_stand_for_themselves_beside_weak_goods() -> None:
    rows = read_dataset(log(60, audits=MIN_JUDGED - 1, bad=MIN_JUDGED - 1)).rows
    assert set(weights(rows)) == {1.0}
    assert [row.labels["opus"].source for row in rows] == [Source.AUDIT] * 19 + [Source.VERDICT] * 41


def test_a_label_stands_for_a_bounded_number_and_proportions_stay() -> None:
    records = log(720, audits=20, bad=10)
    for n in range(600, 720):
        [attempt] = records[n].outcome.attempts
        rejected = replace(attempt, checks=(make.check(Reject("wrong")),))
        records[n] = replace(records[n], outcome=replace(records[n].outcome, attempts=(rejected,), accepted=False))
    rows = read_dataset(records).rows
    assert max(weight for weight in weights(rows) if weight is not None) == pytest.approx(MAX_STANDS_FOR)
    assert quality(rows) == pytest.approx(0.5 * 600 / 720)


def test_what_was_served_is_known_even_where_only_the_unhappy_report() -> None:
    truth = np.random.default_rng(0).random(4000) < 0.8
    records = log(4000)
    rng = np.random.default_rng(1)
    for i, (record, good) in enumerate(zip(records, truth.tolist(), strict=True)):
        audit = make.audit(tier="opus", propensity=0.1, verdict=GOOD if good else BAD)
        told = rng.random() < (0.01 if good else 0.5)
        records[i] = replace(
            record,
            feedback=Feedback(record.outcome.request_id, good) if told else None,
            audits=(replace(audit, request_id=record.outcome.request_id),) if rng.random() < 0.1 else (),
        )
    assert quality(read_dataset(records).rows) == pytest.approx(truth.mean(), abs=0.03)
    unaudited = [replace(record, audits=()) for record in records]
    assert quality(read_dataset(unaudited).rows) < 0.2  # feedback alone believes the unhappy


def test_an_auditors_reply_is_learned_from_with_what_it_stands_for() -> None:
    records = log(60, audits=20)
    features = next(one for one in records[0].outcome.reply_features if one)
    records = [
        replace(
            each,
            outcome=replace(each.outcome, attempts=(replace(each.outcome.attempts[0], tier="haiku"),),
                            resolved_tier="haiku"),
            audits=tuple(
                replace(audit, tier="haiku", auditor_tier="sonnet", auditor_verdict=GOOD, reply_features=features)
                for audit in each.audits
            ),
        )
        for each in records
    ]  # fmt: skip
    data = read_dataset(records)
    assert {row.labels["sonnet"].weight for row in data.rows[:20]} == {10.0}
    learned = training_set(data)
    assert np.nansum(learned.labels["sonnet"][:60] == 1.0) == 20
