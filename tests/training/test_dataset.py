from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import Cancelled, Failure, Overloaded, TimedOut
from fallback.types import Accept, Attempt, Purpose, Reject, Remedy, Reply, Unjudged
from router.outcome import Decision, Feedback, Mode, Outcome
from router.store import Recorded
from tests.support import nights
from tests.support import outcomes as make
from tests.support.nights import World
from training.dataset import MAX_INVERSE_PROPENSITY, Dataset, read_dataset
from training.labels import MAX_STANDS_FOR, MIN_JUDGED, labels_of
from training.rows import Row, Source
from training.weights import cap_groups

GOOD_BY_CHECK, BAD_BY_CHECK = (True, Source.VERDICT), (False, Source.VERDICT)
GOOD_BY_CALLER, BAD_BY_CALLER = (True, Source.FEEDBACK), (False, Source.FEEDBACK)


def record(*attempts: Attempt, feedback: Feedback | None = None, **fields: object) -> Recorded:
    return Recorded(replace(make.outcome(attempts=attempts), **fields), feedback)


def said(one: Recorded) -> dict[str, tuple[bool, Source]]:
    """The labels without what they weigh."""
    return {tier: (label.good, label.source) for tier, label in labels_of(one).items()}


def told(*, good: bool, enough: str = "") -> Feedback:
    return Feedback(make.request_id(1), good, enough)


# --- verdicts --------------------------------------------------------------------------------


def test_an_accepted_reply_is_good_and_a_rejected_one_bad() -> None:
    assert said(record(*make.escalated_attempts())) == {"haiku": BAD_BY_CHECK, "sonnet": GOOD_BY_CHECK}


@pytest.mark.parametrize("remedy", [Remedy.RAISE_LIMIT, Remedy.HAND_BACK])
def test_truncation_and_refusal_say_nothing_of_ability(remedy: Remedy) -> None:
    assert said(record(make.attempt(verdict=Reject("max_tokens", remedy)))) == {}


def test_the_last_reply_of_a_tier_speaks_for_it() -> None:
    truncated = make.attempt(verdict=Reject("max_tokens", Remedy.RAISE_LIMIT))
    longer = make.attempt(purpose=Purpose.LONGER)
    assert said(record(truncated, longer)) == {"haiku": GOOD_BY_CHECK}


def test_an_unjudged_reply_has_no_label_even_where_the_workload_lets_it_pass() -> None:
    assert said(record(make.attempt(verdict=Unjudged("timeout")), accepted=True)) == {}


def test_a_reply_that_no_check_looked_at_has_no_label() -> None:
    assert said(record(replace(make.attempt(), checks=()))) == {}


def test_a_reply_whose_checks_were_cut_short_has_no_label() -> None:
    cut = record(make.attempt(), status="CANCELLED", resolved_tier="", accepted=False)
    assert said(cut) == {}


@pytest.mark.parametrize("verdict", [Accept(), Reject("low_score"), Unjudged("tier_not_in_model")])
def test_the_learned_scorer_has_no_say(verdict: Accept | Reject | Unjudged) -> None:
    def scored(form: Accept | Reject | Unjudged | None) -> Recorded:
        others = () if form is None else (make.check(form),)
        judged = replace(make.attempt(), checks=(*others, make.check(verdict, name="scorer")))
        return record(judged, resolved_tier="", accepted=False)

    assert said(scored(Accept())) == {"haiku": GOOD_BY_CHECK}
    assert said(scored(Unjudged("timeout"))) == {}
    assert said(scored(None)) == {}


@pytest.mark.parametrize("failure", [TimedOut(), Overloaded(), Cancelled()])
def test_a_failure_has_no_label(failure: Failure) -> None:
    failed_over = record(
        make.attempt("haiku", result=failure),
        make.attempt("sonnet", purpose=Purpose.FAILOVER),
        feedback=told(good=True, enough="haiku"),
    )
    assert said(failed_over) == {"sonnet": GOOD_BY_CALLER}


# --- feedback --------------------------------------------------------------------------------


def test_feedback_beats_the_verdict_on_the_tier_whose_reply_the_caller_saw() -> None:
    assert said(record(*make.escalated_attempts(), feedback=told(good=False))) == {
        "haiku": BAD_BY_CHECK,
        "sonnet": BAD_BY_CALLER,
    }


def test_a_sufficient_tier_is_good_and_the_cheaper_ones_are_bad() -> None:
    assert said(record(make.attempt("haiku"), feedback=told(good=False, enough="opus"))) == {
        "haiku": BAD_BY_CALLER,
        "sonnet": BAD_BY_CALLER,
        "opus": GOOD_BY_CALLER,
    }
    assert said(record(make.attempt("opus"), feedback=told(good=True, enough="sonnet"))) == {
        "haiku": BAD_BY_CALLER,
        "sonnet": GOOD_BY_CALLER,
        "opus": GOOD_BY_CALLER,
    }


def test_where_feedback_contradicts_itself_the_judgement_of_the_reply_stands() -> None:
    assert said(record(make.attempt("haiku"), feedback=told(good=True, enough="sonnet"))) == {
        "haiku": GOOD_BY_CALLER,
        "sonnet": GOOD_BY_CALLER,
    }


def test_an_unknown_sufficient_tier_is_ignored() -> None:
    assert said(record(make.attempt(), feedback=told(good=True, enough="gigantic"))) == {"haiku": GOOD_BY_CALLER}


def test_feedback_without_a_reply_labels_nothing() -> None:
    assert said(record(make.attempt(result=TimedOut()), feedback=told(good=True, enough="opus"))) == {}


@given(make.outcomes(), st.none() | make.feedbacks)
def test_a_label_never_comes_from_a_failure(outcome: Outcome, feedback: Feedback | None) -> None:
    labels = labels_of(Recorded(outcome, feedback))
    replied = {attempt.tier for attempt in outcome.attempts if isinstance(attempt.result, Reply)}
    failed = {attempt.tier for attempt in outcome.attempts} - replied
    assert not labels.keys() & failed
    assert labels.keys() <= set(make.TIERS)
    for tier, label in labels.items():
        if label.source is Source.VERDICT:
            assert tier in replied


@given(make.outcomes())
def test_without_feedback_only_verdicts_speak(outcome: Outcome) -> None:
    assert all(label.source is Source.VERDICT for label in labels_of(Recorded(outcome, None)).values())


# --- reading ---------------------------------------------------------------------------------


def test_corrupt_old_and_repeated_records_are_counted_and_left_out() -> None:
    log = World().log(20)
    damaged = [
        replace(log[0], outcome=replace(log[0].outcome, request_features=b"\xff\x00rubbish")),
        replace(log[1], outcome=replace(log[1].outcome, features_version="ancient")),
        *log[2:],
        log[19],
    ]
    data = read_dataset(damaged)
    assert [row.request_id for row in data.rows] == [each.outcome.request_id for each in log[2:]]
    assert data.skipped == {
        "corrupt request features": 1,
        "features of another version": 1,
        "repeated or out of order": 1,
    }


def test_corrupt_reply_features_cost_the_reply_not_the_request() -> None:
    [one] = World(explore=0.0).log(1)
    broken = replace(one, outcome=replace(one.outcome, reply_features=(b"\xffx",) * len(one.outcome.attempts)))
    data = read_dataset([broken])
    assert data.skipped == {"corrupt reply features": len(broken.outcome.attempts)}
    assert [step.reply_features for step in data.rows[0].steps] == [None] * len(broken.outcome.attempts)
    assert data.rows[0].labels == labels_of(one)


def test_only_the_newest_requests_are_kept() -> None:
    log = World().log(30)
    data = read_dataset(log, max_requests=10)
    assert [row.request_id for row in data.rows] == [each.outcome.request_id for each in log[20:]]
    assert data.skipped == {"older than the newest 10": 20}


def test_no_outcomes_make_an_empty_data_set() -> None:
    data = read_dataset([])
    assert (data.rows, data.labelled, data.simulated) == ((), 0, False)
    assert len(data.examples("haiku").row) == 0
    assert all(part.rows == () for part in data.split(0.3))


def test_costs_at_a_tier_hold_its_wasted_attempts() -> None:
    wasted = make.attempt("haiku", result=Overloaded(), cost_usd=0.002)
    retried = make.attempt("haiku", purpose=Purpose.RETRY, cost_usd=0.003)
    [row] = read_dataset([_readable(record(wasted, retried))]).rows
    assert [(step.tier, step.cost_usd) for step in row.steps] == [("haiku", pytest.approx(0.005))]


@pytest.mark.parametrize(
    ("check", "cost_usd", "by"), [("scorer", 0.0, "learned"), ("judge", 0.01, "paid"), ("form", 0.0, "free")]
)
def test_who_rejected_is_kept(check: str, cost_usd: float, by: str) -> None:
    report = replace(make.check(Reject("no"), name=check), cost_usd=cost_usd)
    rejected = replace(make.attempt(), checks=(make.check(Accept()), report))
    [row] = read_dataset([_readable(record(rejected))]).rows
    assert row.steps[0].rejected == by


@pytest.mark.parametrize(("value", "simulated"), [("true", True), ("1", True), ("false", False), ("", False)])
def test_simulated_outcomes_are_known_as_such(value: str, *, simulated: bool) -> None:
    assert read_dataset(World(labels={"simulated": value}).log(3)).simulated is simulated


def _readable(one: Recorded) -> Recorded:
    [pattern] = World().log(1)
    return replace(
        one,
        outcome=replace(
            one.outcome,
            features_version=pattern.outcome.features_version,
            request_features=pattern.outcome.request_features,
            reply_features=(None,) * len(one.outcome.attempts),
        ),
    )


# --- what an Accept is worth -----------------------------------------------------------------


def accepted_log(judged: int, *, good: int, unjudged: int, rejected: int = 0) -> tuple[Row, ...]:
    """Replies of one workload's top tier: accepted ones with and without feedback, and rejected ones."""
    made = World(explore=0.0, feedback=0.0, start="opus", caught=0.0).log(judged + unjudged + rejected)
    made = [replace(each, outcome=replace(each.outcome, workload="w")) for each in made]
    for n in range(judged):
        made[n] = replace(made[n], feedback=Feedback(made[n].outcome.request_id, good=n < good))
    for n in range(judged + unjudged, len(made)):
        [attempt] = made[n].outcome.attempts
        bad = replace(attempt, checks=(make.check(Reject("wrong")),))
        made[n] = replace(made[n], outcome=replace(made[n].outcome, attempts=(bad,), accepted=False))
    return read_dataset(made).rows


def quality(rows: tuple[Row, ...]) -> float:
    labels = [row.labels["opus"] for row in rows if "opus" in row.labels]
    return sum(label.weight * label.good for label in labels) / sum(label.weight for label in labels)


def test_judged_replies_stand_for_accepted_ones_nobody_spoke_of() -> None:
    rows = accepted_log(30, good=15, unjudged=60, rejected=10)
    weights = [row.labels["opus"].weight if row.labels else None for row in rows]
    assert weights == [3.0] * 30 + [None] * 60 + [1.0] * 10
    assert quality(rows) == pytest.approx(0.5 * 90 / 100)
    assert all(row.labels["opus"].strength == 1.0 for row in rows if row.labels)


def test_with_little_feedback_an_accept_stays_a_weak_good() -> None:
    rows = accepted_log(MIN_JUDGED - 1, good=0, unjudged=60)
    assert [row.labels["opus"].good for row in rows] == [False] * (MIN_JUDGED - 1) + [True] * 60
    assert {(row.labels["opus"].weight, row.labels["opus"].strength) for row in rows} == {(1.0, 1.0), (1.0, 0.5)}


def test_a_label_stands_for_a_bounded_number_and_proportions_stay() -> None:
    rows = accepted_log(20, good=10, unjudged=580, rejected=100)
    assert max(row.labels["opus"].weight for row in rows if row.labels) == MAX_STANDS_FOR
    assert quality(rows) == pytest.approx(0.5 * 600 / 700)


def test_what_was_served_is_as_good_as_it_really_was_where_checks_miss_half_of_the_bad_replies() -> None:
    world = World(caught=0.5, feedback=0.3, explore=0.0)
    truth = [row.labels[row.resolved].good for row in read_dataset(replace(world, feedback=1.0).log(3000)).rows]
    labels = [
        row.labels[row.resolved] for row in read_dataset(world.log(3000, seed=1)).rows if row.resolved in row.labels
    ]
    measured = sum(each.weight * each.good for each in labels) / sum(each.weight for each in labels)
    assert measured == pytest.approx(np.mean(truth), abs=0.04)


# --- splitting and fingerprint ---------------------------------------------------------------


@given(st.integers(0, 40), st.floats(0, 1))
def test_the_split_is_by_request_id(n: int, share: float) -> None:
    data = _data(n)
    older, newer = data.split(share)
    assert older.rows + newer.rows == data.rows
    assert len(newer.rows) == round(n * share)


def test_the_fingerprint_follows_the_labels_and_nothing_else_that_changes() -> None:
    log = World(feedback=0.0).log(50)
    data = read_dataset(log)
    assert data.fingerprint() == read_dataset(log).fingerprint()
    assert data.fingerprint() != read_dataset(log[:-1]).fingerprint()
    fed_back = [replace(log[0], feedback=Feedback(log[0].outcome.request_id, good=False)), *log[1:]]
    assert data.fingerprint() != read_dataset(fed_back).fingerprint()


_LOG = read_dataset(World().log(40)).rows


def _data(n: int) -> Dataset:
    return Dataset(_LOG[:n])


# --- weights ---------------------------------------------------------------------------------


def test_weights_are_source_times_clipped_inverse_propensity() -> None:
    def one(n: int, propensity: float, *, feedback: bool) -> Recorded:
        [pattern] = World(explore=0.0, feedback=0.0, start="opus").log(1, first=n)
        decision = Decision(Mode.CHAIN, ("opus",), "x", propensities={"opus": propensity})
        outcome = replace(pattern.outcome, decision=decision, workload=f"w{n}")
        return Recorded(outcome, Feedback(outcome.request_id, good=True) if feedback else None)

    cases = [(1.0, True), (1.0, False), (0.25, True), (0.001, True), (math.nan, True), (-3.0, True), (0.0, True)]
    data = read_dataset([one(i, p, feedback=f) for i, (p, f) in enumerate(cases, start=1)])
    alone = [Dataset((row,)).examples("opus").weight[0] for row in data.rows]
    assert alone == [1.0, 0.5, 4.0, MAX_INVERSE_PROPENSITY, 1.0, 1.0, 1.0]


def test_one_tenant_cannot_dominate() -> None:
    loud = World(labels={"tenant": "loud"}, start="opus", explore=0.0).log(400)
    others = [
        replace(each, outcome=replace(each.outcome, labels={"tenant": f"t{i % 19}"}))
        for i, each in enumerate(World(start="opus", explore=0.0).log(190, first=1000))
    ]
    data = read_dataset([*loud, *others])
    examples = data.examples("opus")
    of_loud = examples.weight[[data.rows[i].group == "tenant:loud" for i in examples.row]].sum()
    assert of_loud / examples.weight.sum() == pytest.approx(0.10)


@given(
    st.lists(st.tuples(st.floats(0.001, 10.0), st.integers(0, 30)), min_size=1, max_size=120),
    st.floats(0.02, 1.0),
)
def test_no_group_holds_more_than_its_ceiling_and_none_is_raised(
    examples: list[tuple[float, int]], ceiling: float
) -> None:
    weight = np.array([each for each, _ in examples])
    groups = [f"g{group}" for _, group in examples]
    capped = cap_groups(weight, groups, ceiling=ceiling)
    k = len(set(groups))
    allowed = max(ceiling, 2 / k)
    assert np.all(capped > 0)
    assert np.all(capped <= weight * (1 + 1e-12))
    for group in set(groups):
        inside = np.array([each == group for each in groups])
        assert capped[inside].sum() <= allowed * capped.sum() * (1 + 1e-6)
        ratios = capped[inside] / weight[inside]
        assert np.allclose(ratios, ratios[0])  # a group keeps its inner proportions


def test_balanced_groups_are_left_alone() -> None:
    weight = np.ones(100)
    assert np.array_equal(cap_groups(weight, [f"g{i % 20}" for i in range(100)]), weight)


def test_examples_index_their_rows() -> None:
    data = read_dataset(nights.World().log(200))
    for tier in data.ladder:
        examples = data.examples(tier)
        assert [data.rows[i].labels[tier].good for i in examples.row] == [bool(y) for y in examples.good]
        assert len(examples.row) == sum(tier in row.labels for row in data.rows)
