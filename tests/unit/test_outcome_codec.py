from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import Failure, Overloaded, RateLimited
from fallback.types import Accept, CheckReport, Purpose, Reject, Remedy, Unjudged
from router.outcome import Agreement, Feedback, Mode, Outcome, RetainedText
from router.store import codec
from router.store.attempts import decode_attempt, decode_attempts, encode_attempt, encode_attempts
from tests.support import outcomes as make

CANARY = "canary-7f3a"


@given(make.outcomes())
def test_what_is_encoded_comes_back_without_reply_content(outcome: Outcome) -> None:
    rows = codec.encode(outcome)
    back = codec.decode(rows.outcome, rows.retained)
    assert make.comparable(back) == make.comparable(outcome)
    assert all(a.result.content == () for a in back.attempts if not isinstance(a.result, Failure))


@given(make.feedbacks)
def test_feedback_comes_back(feedback: Feedback) -> None:
    assert codec.decode_feedback(codec.encode_feedback(feedback)) == feedback


def test_reply_text_is_in_no_row() -> None:
    outcome = make.outcome(attempts=[make.attempt(result=make.reply(text=CANARY))])
    assert CANARY not in repr(codec.encode(outcome))


@given(make.outcomes(), st.data())
def test_a_row_that_differs_in_anything_is_refused(outcome: Outcome, data: st.DataObject) -> None:
    rows = codec.encode(outcome)
    name = data.draw(st.sampled_from(sorted(rows.outcome)))
    other = data.draw(
        st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5)
    )
    damaged = {**rows.outcome, name: other}
    if damaged == rows.outcome and type(other) is type(rows.outcome[name]):
        return
    with pytest.raises(codec.CorruptRow):
        codec.decode(damaged, rows.retained)


def test_a_damaged_text_or_judgement_is_refused() -> None:
    rows = codec.encode(make.outcome(retained=RetainedText("{}", "{}")))
    assert rows.retained is not None
    with pytest.raises(codec.CorruptRow):
        codec.decode(rows.outcome, {**rows.retained, "prompt_json": "{ }"})
    judgement = codec.encode_feedback(Feedback(make.request_id(1), good=True))
    for damaged in ({**judgement, "good": 0}, {**judgement, "score": b"?"}, {"checksum": 1}, {}):
        with pytest.raises(codec.CorruptRow):
            codec.decode_feedback(damaged)


def test_a_format_of_the_future_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "FORMAT", 2)
    rows = codec.encode(make.outcome())
    monkeypatch.undo()
    with pytest.raises(codec.CorruptRow):
        codec.decode(rows.outcome, None)


@pytest.mark.parametrize("field", ["cost_usd", "top_tier_cost_usd", "received_at_s", "duration_s"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_cannot_be_encoded(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        codec.encode(replace(make.outcome(), **{field: value}))


def test_numbers_inside_json_are_finite_too() -> None:
    outcome = make.outcome()
    decision = replace(outcome.decision, probabilities={"haiku": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        codec.encode(replace(outcome, decision=decision))


def test_a_nonsensical_retry_after_costs_the_hint_not_the_outcome() -> None:
    attempt = make.attempt(result=RateLimited(http_status=429, retry_after_s=float("nan")))
    encoded = json.loads(json.dumps(encode_attempt(attempt)))
    result = decode_attempt(encoded).result
    assert isinstance(result, RateLimited)
    assert (result.retry_after_s, result.http_status) == (None, 429)


def test_every_leaf_of_the_failure_tree_has_a_kind_of_its_own() -> None:
    assert len({kind.kind for kind in make.FAILURES}) == len(make.FAILURES)
    for kind in make.FAILURES:
        back = decode_attempt(encode_attempt(make.attempt(result=kind("code")))).result
        assert type(back) is kind


def test_a_failure_of_an_unknown_kind_is_refused() -> None:
    class Strange(Failure):
        kind = "strange"

    with pytest.raises(ValueError, match="kind"):
        encode_attempt(make.attempt(result=Strange()))


def test_an_unknown_verdict_is_refused() -> None:
    encoded = encode_attempt(make.attempt())
    encoded["checks"][0]["verdict"] = ["maybe"]
    with pytest.raises(ValueError, match="verdict"):
        decode_attempt(encoded)


def test_minus_zero_is_stored_as_zero() -> None:
    rows = codec.encode(replace(make.outcome(), cost_usd=-0.0))
    assert str(rows.outcome["cost_usd"]) == "0.0"


def _start(*attempts: object, mode: Mode = Mode.CHAIN) -> tuple[int, int]:
    row = codec.encode(make.outcome(attempts=attempts, mode=mode)).outcome  # type: ignore[arg-type]
    return row["start_judged"], row["start_rejected"]


def test_the_start_tier_counts_as_judged_by_its_last_reply() -> None:
    truncated = make.attempt(verdict=Reject("truncated", Remedy.RAISE_LIMIT))
    longer = make.attempt(purpose=Purpose.LONGER, verdict=Accept())
    assert _start(*make.escalated_attempts()) == (1, 1)
    assert _start(make.attempt()) == (1, 0)
    assert _start(truncated, longer) == (1, 0)
    assert _start(truncated) == (1, 1)
    assert _start(make.attempt(verdict=Reject("refused", Remedy.HAND_BACK))) == (1, 0)
    assert _start(make.attempt(verdict=Unjudged("scorer_down"))) == (0, 0)
    assert _start(make.attempt(result=Overloaded())) == (0, 0)
    assert _start() == (0, 0)


def test_reply_costs_hold_what_the_checks_cost() -> None:
    paid = replace(make.check(Accept(), name="judge"), cost_usd=0.5)
    attempt = replace(make.attempt(cost_usd=0.25), checks=(paid,))
    rows = codec.encode(make.outcome(attempts=[make.attempt(result=Overloaded()), attempt]))
    assert [(row["position"], row["tier"], row["cost_usd"]) for row in rows.reply_costs] == [(1, "haiku", 0.75)]


def test_agreements_come_back_and_rows_from_before_there_were_any_can_be_read() -> None:
    found = (Agreement(0, 1, 1.0, 1.0), Agreement(0, 2, 0.0, 0.25), Agreement(1, 2, 0.0, 0.5))
    attempts = [make.attempt("haiku"), make.attempt("sonnet"), make.attempt("opus")]
    rows = encode_attempts(attempts, found)
    assert decode_attempts(json.loads(json.dumps(rows)))[1] == found
    assert decode_attempts([encode_attempt(attempt) for attempt in attempts])[1] == ()


def test_what_a_paid_check_did_comes_back_and_rows_from_before_there_were_any_can_be_read() -> None:
    report = CheckReport("judge", "1+m", Reject("low_grade"), 0.4, 0.01, 0.2, 0.3, calls=2)
    overruled = CheckReport("scorer", "v1", Accept(), 0.6, overruled=True)
    attempt = replace(make.attempt(), checks=(overruled, report))
    row = encode_attempt(attempt)
    decoded = decode_attempt(json.loads(json.dumps(row)))
    assert decoded.checks == (overruled, report)
    assert decoded.rejection == Reject("low_grade")
    for old in row["checks"]:
        old.pop("calls", None)
        old.pop("overruled", None)
    assert [(each.calls, each.overruled) for each in decode_attempt(row).checks] == [(0, False), (0, False)]
