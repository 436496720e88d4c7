"""How often the checks are wrong, from tallied audits."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.outcome import AuditMethod, AuditVerdict
from router.rates import Rate, clopper_pearson, false_accept, false_escalate
from router.store import AuditTally

GOOD, BAD, UNKNOWN = AuditVerdict.GOOD, AuditVerdict.BAD, AuditVerdict.UNKNOWN


def tally(count: int, verdict: AuditVerdict = GOOD, *, propensity: float = 0.1, **changes: Any) -> AuditTally:
    values: dict[str, Any] = {"tier": "haiku", "accepted": True, "method": AuditMethod.VERIFIER, "cost_usd": 0.0}
    values |= {
        "count": count,
        "verdict": verdict,
        "weight": count / propensity,
        "weight_squared": count / propensity**2,
    }
    return AuditTally(**(values | changes))


def test_without_audits_nothing_is_known() -> None:
    assert false_accept([]) == false_escalate([]) == Rate(0.0, 0.0, 1.0, 0, 0, 0, 0.0)


def test_with_equal_chances_it_is_the_exact_interval_of_the_plain_share() -> None:
    rate = false_accept([tally(133), tally(15, BAD)])
    assert (rate.value, rate.n, rate.bad, rate.undetermined) == (pytest.approx(15 / 148), 148, 15, 0)
    assert rate.effective == pytest.approx(148)
    assert (rate.low, rate.high) == pytest.approx((0.0578, 0.1617), abs=5e-5)  # Newcombe 1998, method 5


def test_each_audit_stands_for_the_inverse_of_its_chance() -> None:
    rate = false_accept([tally(90, propensity=0.5), tally(10, BAD, propensity=0.1)])
    assert rate.value == pytest.approx(100 / 280)
    assert rate.effective == pytest.approx(280**2 / (90 * 4 + 10 * 100))
    assert rate.low < rate.value < rate.high


def test_only_accepted_replies_count_for_the_one_and_only_those_sent_on_for_the_other() -> None:
    audits = [tally(9), tally(1, BAD), tally(6, UNKNOWN, accepted=False, method=AuditMethod.ANSWERS, propensity=1.0)]
    audits.append(tally(4, GOOD, accepted=False, method=AuditMethod.ANSWERS, propensity=1.0))
    assert (false_accept(audits).n, false_accept(audits).value) == (10, pytest.approx(0.1))
    sent_on = false_escalate(audits)
    assert (sent_on.n, sent_on.value, sent_on.undetermined) == (10, pytest.approx(0.4), 0)


def test_an_auditor_that_gave_no_reply_says_nothing() -> None:
    assert false_accept([tally(9), tally(50, UNKNOWN, method=AuditMethod.FAILURE)]) == false_accept([tally(9)])


def test_what_could_not_be_decided_widens_the_interval_to_all_that_it_may_be() -> None:
    rate = false_accept([tally(80, method=AuditMethod.ANSWERS), tally(20, UNKNOWN, method=AuditMethod.ANSWERS)])
    assert (rate.value, rate.low, rate.undetermined) == (0.0, 0.0, 20)
    assert rate.high == pytest.approx(clopper_pearson(20, 100)[1])


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_the_interval_holds_the_share_and_lies_in_it(
    good: int, bad: int, unknown: int, one: float, other: float
) -> None:
    rate = false_accept([tally(good, propensity=one), tally(bad, BAD, propensity=other), tally(unknown, UNKNOWN)])
    assert 0.0 <= rate.low <= rate.value + 1e-9
    assert rate.value - 1e-9 <= rate.high <= 1.0


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """400 simulated weeks of 3,000 accepted replies, 4 % bad, audited with three different chances."""
    rng, covered = random.Random(5), 0
    for _ in range(400):
        counts = {(share, verdict): 0 for share in (0.02, 0.05, 0.1) for verdict in (GOOD, BAD)}
        for share in (0.02, 0.05, 0.1):
            for _ in range(1000):
                if rng.random() < share:
                    counts[share, BAD if rng.random() < 0.04 else GOOD] += 1
        rate = false_accept([tally(n, verdict, propensity=share) for (share, verdict), n in counts.items() if n])
        covered += rate.low <= 0.04 <= rate.high
    assert covered / 400 >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / 400)
