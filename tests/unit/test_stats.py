from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from router import stats, stats_show
from router.outcome import AuditMethod, AuditVerdict
from router.store import AuditTally, WorkloadStats

LADDER = ("haiku", "sonnet", "opus")


def workload(**changed: object) -> WorkloadStats:
    values: dict[str, object] = {
        "workload": "triage",
        "requests": 200,
        "resolved": {"opus": 10, "haiku": 150, "sonnet": 30},
        "unaccepted": 6,
        "no_reply": 4,
        "escalated": 40,
        "direct": 50,
        "misroutes": 5,
        "attempts": 260,
        "failures": 12,
        "first_judged": {"sonnet": 10, "haiku": 100},
        "first_rejected": {"haiku": 20},
        "attempt_cost_usd": {"haiku": 0.001, "sonnet": 0.02},
        "cost_usd": 2.0,
        "top_tier_cost_usd": 8.0,
        "feedback_good": 9,
        "feedback_bad": 1,
    }
    return WorkloadStats(**(values | changed))  # type: ignore[arg-type]


def printed(rows: list[stats.StatsRow]) -> str:
    console = Console(file=io.StringIO(), width=300, color_system=None)
    console.print(stats_show.render(rows))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_row_says_the_numbers() -> None:
    (row,) = stats.rows([workload()], LADDER)
    assert list(row.resolved.items()) == [("haiku", 0.75), ("sonnet", 0.15), ("opus", 0.05)]
    assert (row.escalated.value, row.misroutes.value) == (0.2, 0.1)
    assert (row.cost_per_request_usd, row.saved) == (0.01, 0.75)
    assert (row.feedback_bad.count, row.feedback_bad.of) == (1, 10)


def test_the_start_tiers_are_held_against_their_lines() -> None:
    (row,) = stats.rows([workload()], LADDER)
    haiku, sonnet = row.starts
    assert (haiku.tier, haiku.next_tier, haiku.rejected.count, haiku.rejected.of) == ("haiku", "sonnet", 20, 100)
    assert haiku.break_even == pytest.approx(0.95)
    assert haiku.finding == "pays"
    assert (sonnet.next_tier, sonnet.break_even, sonnet.finding) == ("opus", None, "no line yet")
    assert sonnet.rejected.count == 0


@pytest.mark.parametrize(("rejected", "finding"), [(5, "pays"), (50, "undecided"), (95, "start higher")])
def test_the_finding_needs_the_whole_interval(rejected: int, finding: str) -> None:
    measured = workload(
        first_judged={"haiku": 100},
        first_rejected={"haiku": rejected},
        attempt_cost_usd={"haiku": 1.0, "sonnet": 2.0},
    )
    assert stats.rows([measured], LADDER)[0].starts[0].finding == finding


def test_the_highest_tier_and_a_tier_of_yesterday_have_no_line() -> None:
    measured = workload(first_judged={"opus": 1, "ancient": 1}, first_rejected={})
    starts = stats.rows([measured], LADDER)[0].starts
    assert [(start.tier, start.finding) for start in starts] == [("opus", "highest tier"), ("ancient", "highest tier")]


def test_clopper_pearson_is_exact() -> None:
    # Newcombe 1998, method 5: 15 of 148.
    assert stats.clopper_pearson(15, 148) == pytest.approx((0.0578, 0.1617), abs=5e-5)
    assert stats.clopper_pearson(0, 10) == pytest.approx((0.0, 0.3085), abs=5e-5)
    assert stats.clopper_pearson(10, 10) == pytest.approx((0.6915, 1.0), abs=5e-5)
    assert stats.clopper_pearson(0, 0) == (0.0, 1.0)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_clopper_pearson_holds_the_share(one: int, other: int) -> None:
    count, of = min(one, other), max(one, other)
    low, high = stats.clopper_pearson(count, of)
    assert 0.0 <= low <= (count / of if of else 0.0) <= high <= 1.0


def test_nothing_is_divided_by_nothing() -> None:
    empty = workload(
        requests=0, resolved={}, escalated=0, direct=0, misroutes=0, attempts=0, failures=0, first_judged={},
        first_rejected={}, cost_usd=0.0, top_tier_cost_usd=0.0, feedback_good=0, feedback_bad=0,
    )  # fmt: skip
    (row,) = stats.rows([empty], LADDER)
    assert (row.cost_per_request_usd, row.saved, row.escalated.value) == (0.0, None, 0.0)
    assert "triage" in printed([row])


def test_the_table_holds_the_numbers() -> None:
    text = printed(stats.rows([workload(), workload(workload="[red]other")], LADDER))
    for expected in ("triage", "[red]other", "haiku 75.0%", "not accepted 6", "no reply 4", "20.0% [15", "12 of 260",
                     "75.0%", "10.0% [0.3%–44.5%]", "< 95.0%: pays", "no line yet"):  # fmt: skip
        assert expected in text, expected


def test_what_audits_found_is_shown_with_how_sure_it_is() -> None:
    def tally(count: int, verdict: AuditVerdict, *, accepted: bool = True, tier: str = "haiku") -> AuditTally:
        method = AuditMethod.VERIFIER if accepted else AuditMethod.ANSWERS
        return AuditTally(tier, accepted, method, verdict, count, count * 20.0, count * 400.0, count * 0.01)

    audits = (
        tally(90, AuditVerdict.GOOD),
        tally(5, AuditVerdict.BAD),
        tally(5, AuditVerdict.GOOD, tier="sonnet"),
        tally(3, AuditVerdict.GOOD, accepted=False),
        tally(7, AuditVerdict.UNKNOWN, accepted=False),
    )
    [row] = stats.rows([workload(audits=audits)], LADDER)
    assert (row.audits, row.audit_cost_usd) == (100, pytest.approx(1.1))
    assert list(row.false_accept_by_tier) == ["haiku", "sonnet"]
    text = printed([row])
    for expected in ("false accepts 5.0% [1.6%–11.3%] of 100", "false escalations 30.0% [", "100 for $1.1"):
        assert expected in text, expected
    [as_json] = json.loads(json.dumps(stats_show.as_json([row])))
    assert as_json["false_accept"]["bad"] == 5
    assert as_json["false_escalate"]["n"] == 10


def test_no_rows_are_said_in_words() -> None:
    assert "No requests are recorded" in printed([])
    assert stats_show.as_json([]) == []


def test_the_json_form_is_json() -> None:
    (row,) = json.loads(json.dumps(stats_show.as_json(stats.rows([workload()], LADDER))))
    assert row["escalated"] == {
        "count": 40,
        "of": 200,
        "low": pytest.approx(0.150, abs=1e-3),
        "high": pytest.approx(0.2608, abs=1e-3),
    }
    assert row["starts"][0]["finding"] == "pays"
    assert row["starts"][0]["break_even"] == pytest.approx(0.95)
