"""What counts as evidence for a certificate: whose replies, which truth, and how much each stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router.certificate import Promise, State
from router.features import Features
from router.scoring import RouterModel, Seen
from tests.support.small_models import TIERS, plain_model
from training.evidence import certify_policy, current_models, expected_ratios, gather
from training.follow import Means
from training.rows import Label, Row, Source, Step
from training.served import Served, Terms

COST_USD = {"haiku": 0.001, "sonnet": 0.003, "opus": 0.005}
CELL = ("maths", "haiku")


class Believes(RouterModel):
    """Believes what the features say: their first value is P(good), of the request for haiku or of a reply."""

    def believe(self, features: Features, workload: str, seen: Sequence[Seen]) -> dict[str, float]:
        before = {"haiku": float(features.dense[0]), "sonnet": 0.9, "opus": 0.95}
        return before | {each.source: float(each.features.dense[0]) for each in seen}

    def worth_of(self, *_: object) -> float | None:
        return None


MODEL = Believes(**{name: getattr(plain_model(), name) for name in RouterModel.__slots__})


def served(mistake_cost_usd: float = 0.005, **terms: Any) -> Served:
    """At half a cent a mistake, haiku's reply is kept where it is good with about 0.5 or more."""
    return Served(MODEL, lambda _: Terms(TIERS, mistake_cost_usd=mistake_cost_usd, **terms), Means(()))


def features(p_good: float) -> Features:
    return Features(np.zeros(0, np.int32), np.zeros(0, np.uint8), np.array([p_good], np.float32))


def step(tier: str = "haiku", p_good: float = 0.8, *, rejected: str = "", model: str = "m1") -> Step:
    return Step(tier, rejected, False, COST_USD[tier], 0.0, features(p_good), "claude", model)


def row(
    n: int = 1,
    *steps: Step,
    believed: float = 0.8,
    start: str = "haiku",
    labels: Mapping[str, Label] | None = None,
    propensity: float = 1.0,
    workload: str = "maths",
) -> Row:
    made = steps or (step(),)
    return Row(
        request_id=f"{n:032x}", workload=workload, group="g", received_at_s=1_000.0 + n, features=features(believed),
        start=start, direct=False, propensities={start: propensity}, expected_cost_usd=COST_USD, steps=made,
        resolved=made[-1].tier, accepted=True, labels=labels or {}, cost_usd=0.0, top_tier_cost_usd=0.0, simulated=True,
    )  # fmt: skip


GOOD, BAD = Label(True, Source.FEEDBACK), Label(False, Source.FEEDBACK)


def accept(rows: Sequence[Row], **since: Any) -> tuple[list[float], list[float], list[float]]:
    found = gather(served(), rows, since_s=since.get("since_s", {})).get(CELL)
    return tuple(each.round(6).tolist() for each in found.accept()) if found else ([], [], [])  # type: ignore[return-value]


def test_judged_replies_that_would_be_handed_over_count_with_their_score() -> None:
    rows = [row(1, step(p_good=0.9), labels={"haiku": GOOD}), row(2, step(p_good=0.7), labels={"haiku": BAD})]
    assert accept(rows) == ([0.9, 0.7], [0.0, 1.0], [1.0, 1.0])


def test_a_verdict_is_no_truth() -> None:
    assert accept([row(labels={"haiku": Label(True, Source.VERDICT)})]) == ([], [], [])


def test_a_reply_that_the_policy_would_send_on_is_not_accepted() -> None:
    assert accept([row(1, step(p_good=0.05), labels={"haiku": GOOD})]) == ([], [], [])


def test_judged_ones_stand_for_those_that_nobody_judged() -> None:
    rows = [row(1, labels={"haiku": GOOD}), *(row(n) for n in range(2, 5))]
    assert accept(rows) == ([0.8], [0.0], [4.0])


def test_a_start_counts_by_the_inverse_of_its_propensity_and_another_start_not_at_all() -> None:
    rows = [row(1, labels={"haiku": GOOD}, propensity=0.5), row(2, step("sonnet"), start="sonnet")]
    assert accept(rows) == ([0.8], [0.0], [1.0])
    rows.append(row(3, step(p_good=0.9), labels={"haiku": BAD}, propensity=0.25))
    assert accept(rows) == ([0.8, 0.9], [0.0, 1.0], [0.5, 1.0])


def test_each_model_version_is_a_sample_of_its_own() -> None:
    seldom = replace(row(2, step(p_good=0.9), labels={"haiku": BAD}, propensity=0.01), regime="v2")
    assert accept([row(1, labels={"haiku": GOOD}, propensity=0.5), seldom]) == ([0.8, 0.9], [0.0, 1.0], [1.0, 1.0])


def sent_on(n: int, p_good: float = 0.8, **how: Any) -> Row:
    return row(n, step(p_good=p_good, rejected="learned"), step("sonnet", 0.9), **how)


def test_what_was_sent_on_and_never_judged_counts_as_bad() -> None:
    rows = [row(1, step(p_good=0.9), labels={"haiku": GOOD}), sent_on(2, 0.6), sent_on(3, 0.7)]
    assert accept(rows) == ([0.9, 0.6, 0.7], [0.0, 1.0, 1.0], [1.0, 1.0, 1.0])


def test_audits_speak_for_what_was_sent_on() -> None:
    audited = Label(True, Source.AUDIT, propensity=0.25)
    rows = [sent_on(n, labels={"haiku": audited} if n <= 20 else {}) for n in range(1, 81)]
    scores, bad, weight = accept(rows)
    assert (len(scores), sum(bad), sum(weight)) == (20, 0.0, pytest.approx(80.0))


def test_unjudged_replies_alone_say_nothing() -> None:
    assert accept([sent_on(1), row(2)]) == ([], [], [])


def test_replies_of_an_earlier_model_id_and_those_before_an_alarm_are_no_evidence() -> None:
    rows = [row(n, step(model="m1" if n < 3 else "m2"), labels={"haiku": GOOD}) for n in range(1, 6)]
    assert current_models(rows) == {("claude", "haiku"): "m2"}
    assert len(accept(rows)[0]) == 3
    assert len(accept(rows, since_s={CELL: 1_005.0})[0]) == 1
    assert len(accept(rows, since_s={("other", "haiku"): 1_005.0})[0]) == 3


def test_direct_is_judged_by_the_request_alone_and_what_a_paid_check_rejects_is_bad() -> None:
    rows = [
        row(1, step(p_good=0.9), believed=0.7, labels={"haiku": GOOD}),
        row(2, step(rejected="paid"), step("sonnet", 0.9), believed=0.75),
    ]
    score, bad, weight = (each.round(6).tolist() for each in gather(served(), rows, since_s={})[CELL].direct())
    assert (score, bad, weight) == ([0.7, 0.75], [0.0, 1.0], [1.0, 1.0])


# --- certificates ----------------------------------------------------------------------------


def many(n: int, bad_share: float) -> list[Row]:
    rng = np.random.default_rng(1)
    return [row(i, labels={"haiku": BAD if rng.random() < bad_share else GOOD}) for i in range(1, n + 1)]


def test_each_promise_is_certified_and_nothing_else() -> None:
    rows = [
        *many(300, 0.01),
        *(replace(each, workload="free", request_id=f"f{each.request_id}") for each in many(9, 0)),
    ]
    promises = {"maths": Promise(0.05), "free": Promise()}
    found = certify_policy(served(), rows, lambda name: promises[name])
    assert set(found) == {"maths"}
    haiku, sonnet = found["maths"].tiers["haiku"], found["maths"].tiers["sonnet"]
    assert (haiku.accept.state, haiku.accept.n, haiku.direct.state) == (State.CERTIFIED, 300, State.CERTIFIED)
    assert (haiku.since_s, haiku.until_s) == (1_001.0, 1_300.0)
    assert (sonnet.accept.state, sonnet.accept.n) == (State.NOT_CERTIFIED, 0)
    assert "opus" not in found["maths"].tiers


def test_too_many_bad_replies_are_infeasible() -> None:
    found = certify_policy(served(), many(300, 0.2), lambda _: Promise(0.05))
    assert found["maths"].tiers["haiku"].accept.state is State.INFEASIBLE


def test_the_evidence_after_an_alarm_is_dated_from_it() -> None:
    found = certify_policy(served(), many(300, 0.0), lambda _: Promise(0.05), since_s={CELL: 1_250.0})
    haiku = found["maths"].tiers["haiku"]
    assert (haiku.since_s, haiku.accept.n, haiku.accept.state) == (1_250.0, 51, State.NOT_CERTIFIED)


def test_the_cost_of_a_mistake_gives_what_is_allowed() -> None:
    found = certify_policy(served(0.06), many(300, 0.0), lambda _: Promise(mistake_cost_usd=0.06))
    assert found["maths"].tiers["haiku"].false_accept_max == pytest.approx(0.05)  # sonnet's 0.003 / 0.06
    assert found["maths"].mistake_cost_usd == 0.06
    cheap = certify_policy(served(), many(9, 1.0), lambda _: Promise(mistake_cost_usd=0.001))
    assert cheap["maths"].tiers["haiku"].accept.at_least == 0.0  # any mistake costs less than asking sonnet


# --- what drift is judged against ------------------------------------------------------------


def test_ratios_are_what_came_of_what_the_model_said() -> None:
    rows = [row(n, step(p_good=0.9), labels={"haiku": BAD if n % 10 == 0 else GOOD}) for n in range(1, 401)]
    rows += [row(n, step(rejected="free"), step("sonnet"), believed=0.8) for n in range(401, 501)]
    [tiers] = expected_ratios(served(), rows).values()
    # 100 of 500 rejected where 0.2 each were expected; 40 of 400 bad where 0.1 each were; doubt 0.1 against 0.2.
    assert tiers["haiku"]["checks"] == pytest.approx(1.0, abs=0.2)
    assert tiers["haiku"]["truth"] == pytest.approx(1.0, abs=0.3)
    assert tiers["haiku"]["doubt"] == pytest.approx(0.5, abs=0.2)
    assert all(ratio >= 1.0 for stream, ratio in tiers["haiku"].items() if stream != "doubt")


def test_too_few_requests_give_no_ratio() -> None:
    assert expected_ratios(served(), many(29, 0.5)) == {}
