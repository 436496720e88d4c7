"""What tiers have cost and how often they were rejected: means, intervals, and a start that does not flap."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.errors import Overloaded
from fallback.types import Accept, CheckReport, Purpose, Reject, Remedy
from router.experience import Experience, wilson
from router.outcome import Decision, Mode, Outcome, Passage, passages
from router.store import WorkloadStats
from router.store.sql import SqlStore
from tests.support import outcomes as make
from tests.support.outcomes import attempt

LADDER = ("haiku", "sonnet", "opus")
COST = {"haiku": 0.001, "sonnet": 0.02, "opus": 0.04}  # lines: 0.95 and 0.5


def _seen(n: int, *, start: str = "haiku", rejected: bool = False, **changes: Any) -> Outcome:
    return make.outcome(
        n, attempts=[attempt(start, verdict=Reject("x") if rejected else Accept(), cost_usd=COST[start])], **changes
    )


def _after(rejections: int, passes: int, *, start: str = "haiku") -> Experience:
    experience = Experience(LADDER)
    for n in range(rejections + passes):
        experience.observe(_seen(n, start=start, rejected=n < rejections))
    return experience


def _start(experience: Experience, static: str = "haiku", allowed: tuple[str, ...] = LADDER) -> str:
    return experience.start_tier("triage", static, allowed, COST)


def test_costs_are_known_from_twenty_replies_on() -> None:
    experience = Experience(LADDER)
    for n in range(19):
        experience.observe(_seen(n))
    assert experience.cost_usd("triage", "haiku") is None
    assert experience.output_tokens("triage", "haiku") is None
    experience.observe(_seen(19))
    experience.observe(_seen(20))
    assert experience.cost_usd("triage", "haiku") == pytest.approx(0.001)
    assert experience.output_tokens("triage", "haiku") == pytest.approx(20)
    assert experience.cost_usd("triage", "sonnet") is None
    assert experience.cost_usd("other", "haiku") is None


def test_failures_teach_nothing() -> None:
    experience = Experience(LADDER)
    for n in range(100):
        experience.observe(make.outcome(n, attempts=[attempt("haiku", result=Overloaded())], status="UNAVAILABLE"))
        experience.observe(make.outcome(n, attempts=[], status="UNAVAILABLE"))
    assert experience.cost_usd("triage", "haiku") is None
    assert experience.of("triage").rate("", "haiku").judged == 0


def test_old_costs_fade() -> None:
    experience = Experience(LADDER)
    for n in range(1_000):
        experience.observe(make.outcome(n, attempts=[attempt(cost_usd=1.0)]))
    for n in range(2_000):
        experience.observe(make.outcome(n, attempts=[attempt(cost_usd=2.0)]))
    mean = experience.cost_usd("triage", "haiku")
    assert mean == pytest.approx(2.0, abs=0.03)


def test_it_starts_where_the_plan_says_without_evidence() -> None:
    assert _start(Experience(LADDER), "sonnet") == "sonnet"


def test_up_only_when_the_interval_is_above_the_line() -> None:
    assert _start(_after(8, 8, start="sonnet"), "sonnet") == "sonnet"
    assert _start(_after(70, 30, start="sonnet"), "sonnet") == "opus"
    assert _start(_after(94, 6), "haiku") == "haiku", "a cheap first try pays up to 95 % escalations"
    assert _start(_after(300, 0), "haiku") == "sonnet"


def test_down_only_with_enough_evidence_clearly_below_the_line() -> None:
    assert _start(_after(0, 19, start="sonnet"), "opus") == "opus"
    assert _start(_after(0, 40, start="sonnet"), "opus") == "sonnet"
    assert _start(_after(38, 62, start="sonnet"), "opus") == "opus", "0.38 + its interval is not clearly below 0.5"


@given(st.integers(0, 200), st.integers(0, 200))
def test_it_never_moves_there_and_back_on_the_same_evidence(rejections: int, passes: int) -> None:
    experience = _after(rejections, passes, start="sonnet")
    places = [_start(experience, "sonnet") for _ in range(6)]
    assert places == sorted(places, key=LADDER.index)
    assert places[2:] == places[2:3] * 4


def test_direct_modelled_and_recovered_starts_do_not_count() -> None:
    experience = Experience(LADDER)
    modelled = Decision(Mode.CHAIN, LADDER, "x", model_version="v1")
    for n in range(50):
        experience.observe(_seen(n, rejected=True, mode=Mode.DIRECT))
        seen = _seen(n, rejected=True)
        experience.observe(Outcome(**{f: getattr(seen, f) for f in seen.__slots__} | {"decision": modelled}))
        experience.observe(make.outcome(n, attempts=[attempt(purpose=Purpose.FAILOVER, verdict=Reject("x"))]))
    assert experience.of("triage").rate("", "haiku").judged == 0
    assert experience.cost_usd("triage", "haiku") is not None, "their costs do"


def test_one_requests_narrow_bounds_move_nobody_else() -> None:
    experience = Experience(LADDER)
    assert _start(experience, "haiku", ("opus",)) == "opus"
    assert _start(experience, "opus", ("haiku", "sonnet")) == "sonnet"
    assert _start(experience, "haiku") == "haiku"
    moved = _after(300, 0)
    assert _start(moved) == "sonnet"
    assert _start(moved, "haiku", ("haiku",)) == "haiku"
    assert _start(moved) == "sonnet"


def test_the_plan_still_counts_where_nothing_has_moved_it() -> None:
    experience = Experience(LADDER)
    assert _start(experience, "haiku") == "haiku"
    assert _start(experience, "opus") == "opus", "a new configuration takes effect"


def test_the_least_recently_seen_workloads_are_forgotten() -> None:
    experience = Experience(LADDER, max_workloads=2)
    for name in ("a", "b"):
        for n in range(30):
            experience.observe(_seen(n, workload=name))
    assert experience.cost_usd("a", "haiku") is not None
    experience.of("c")
    assert experience.cost_usd("b", "haiku") is None


def _stats(**changes: object) -> WorkloadStats:
    values: dict[str, object] = {
        "workload": "triage",
        "requests": 10_000,
        "resolved": {},
        "unaccepted": 0,
        "no_reply": 0,
        "escalated": 0,
        "direct": 0,
        "misroutes": 0,
        "attempts": 0,
        "failures": 0,
        "first_judged": {"sonnet": 10_000, "opus": 0},
        "first_rejected": {"sonnet": 7_000},
        "attempt_cost_usd": {"sonnet": 0.03},
        "cost_usd": 0.0,
        "top_tier_cost_usd": 0.0,
        "feedback_good": 0,
        "feedback_bad": 0,
    } | changes
    return WorkloadStats(**values)  # type: ignore[arg-type]


def test_a_restart_begins_with_what_the_store_remembers() -> None:
    experience = Experience(LADDER)
    experience.seed([_stats()])
    assert experience.cost_usd("triage", "sonnet") == pytest.approx(0.03)
    assert experience.of("triage").rate("", "sonnet").judged == pytest.approx(500), "no more than the horizon"
    assert _start(experience, "sonnet") == "opus"


def test_what_the_store_does_not_know_of_old_replies_is_not_zero() -> None:
    experience = Experience(LADDER)
    experience.seed([_stats(attempt_cost_usd={"haiku": 0.001})])
    assert experience.output_tokens("triage", "haiku") is None
    assert experience.delay("triage", "haiku") is None


# --- tiers after a rejection -----------------------------------------------------------------

THREE = {"haiku": 0.001, "sonnet": 0.02, "opus": 0.04}  # sonnet before opus pays below one rejection in two


def _chain(n: int, *verdicts: bool, tiers: tuple[str, ...] = LADDER) -> Outcome:
    """A chain in which the reply of each of the tiers was rejected or not."""
    attempts = [
        attempt(
            tier,
            purpose=Purpose.ESCALATION if i else Purpose.FIRST,
            verdict=Reject("x") if rejected else Accept(),
            cost_usd=COST[tier],
        )
        for i, (tier, rejected) in enumerate(zip(tiers, verdicts, strict=False))
    ]
    return make.outcome(n, attempts=attempts)


def _chains(fails: int, passes: int) -> Experience:
    """So many chains in which sonnet was rejected after haiku, and in which it was not."""
    experience = Experience(LADDER)
    for n in range(fails + passes):
        experience.observe(_chain(n, True, n < fails))
    return experience


def test_a_tier_that_mostly_fails_after_the_one_below_is_skipped() -> None:
    assert _chains(10, 10).without_skips("triage", LADDER, THREE) == LADDER
    assert _chains(70, 30).without_skips("triage", LADDER, THREE) == ("haiku", "opus")
    assert _chains(70, 30).without_skips("triage", ("sonnet", "opus"), THREE) == ("sonnet", "opus")
    assert _chains(70, 30).without_skips("triage", ("haiku", "sonnet"), THREE) == ("haiku", "sonnet"), "it is the last"
    assert _chains(70, 30).without_skips("triage", ("haiku",), THREE) == ("haiku",)


def test_a_skipped_tier_comes_back_only_when_it_is_clearly_worth_it() -> None:
    experience = _chains(70, 30)
    assert experience.without_skips("triage", LADDER, THREE) == ("haiku", "opus")
    seen: list[tuple[str, ...]] = []
    for n in range(600):
        experience.observe(_chain(n, True, n % 5 == 0))
        seen.append(experience.without_skips("triage", LADDER, THREE))
    assert seen[0] == ("haiku", "opus")
    assert seen[-1] == LADDER
    assert sum(a != b for a, b in pairwise(seen)) == 1, "it does not flap"


def test_the_conditional_rate_is_not_the_tiers_own() -> None:
    experience = Experience(LADDER)
    for n in range(100):
        experience.observe(_chain(n, True, True, False))
        experience.observe(_chain(n, False, tiers=("sonnet",)))
    assert experience.rejection_bounds("triage", "haiku", "sonnet")[0] > 0.9
    assert experience.rejection_bounds("triage", "", "sonnet")[1] < 0.1
    assert experience.rejection_bounds("triage", "sonnet", "opus")[1] < 0.1
    assert experience.rejection_bounds("triage", "haiku", "opus") == (0.0, 1.0)


def test_a_longer_reply_stands_for_the_cut_one() -> None:
    cut = attempt(verdict=Reject("truncated", Remedy.RAISE_LIMIT))
    whole = attempt(purpose=Purpose.LONGER)
    assert passages(make.outcome(attempts=[cut, whole])) == [Passage(1, "haiku", "", rejected=False)]
    alone = make.outcome(attempts=[whole])
    assert passages(alone) == [Passage(0, "haiku", "", rejected=False)]


# --- time ------------------------------------------------------------------------------------


def test_times_are_measured_with_their_spread_and_their_checks() -> None:
    experience = Experience(LADDER)
    took_s = [1.0, 3.0] * 15
    for n, seconds in enumerate(took_s):
        slow = replace(attempt(), duration_s=seconds, checks=(CheckReport("c", "1", Accept(), None, 0.25, 0.0, 1.0),))
        experience.observe(make.outcome(n, attempts=[slow]))
    delay = experience.delay("triage", "haiku")
    assert delay is not None
    assert (delay.mean_s, delay.variance) == (pytest.approx(3.0, abs=0.05), pytest.approx(1.0, abs=0.01))
    means = experience.timed("triage", "haiku")
    assert means is not None
    assert (means.check_usd, means.check_s) == (pytest.approx(0.25), pytest.approx(1.0))
    assert experience.cost_usd("triage", "haiku") == pytest.approx(0.251)


def test_a_restart_goes_on_where_the_process_ended(tmp_path: Path) -> None:
    store, before, after = SqlStore(f"sqlite:///{tmp_path}/o.db"), Experience(LADDER), Experience(LADDER)
    told = [_chain(n, True, n % 10 < 7) for n in range(60)] + [_chain(n, False) for n in range(60, 80)]
    store.write(told)
    for outcome in told:
        before.observe(outcome)
    after.seed(store.stats())
    store.close()
    for experience in (before, after):
        assert experience.without_skips("triage", LADDER, THREE) == ("haiku", "opus")
        assert experience.of("triage").rate("", "haiku").judged == pytest.approx(80, rel=0.1)
    for tier in ("haiku", "sonnet"):
        a, b = before.delay("triage", tier), after.delay("triage", tier)
        assert a is not None
        assert b is not None
        assert (b.mean_s, b.variance) == (pytest.approx(a.mean_s), pytest.approx(a.variance, abs=1e-9))
        assert after.output_tokens("triage", tier) == pytest.approx(before.output_tokens("triage", tier))
        assert after.cost_usd("triage", tier) == pytest.approx(before.cost_usd("triage", tier))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 0, 0, 1), (0, 10, 0, 0.2775), (10, 10, 0.7225, 1), (5, 10, 0.2366, 0.7634), (90, 100, 0.8256, 0.9448)],
)
def test_wilsons_interval(successes: float, trials: float, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.floats(0, 1), st.floats(0.01, 1e6))
def test_the_interval_holds_the_share(share: float, trials: float) -> None:
    low, high = wilson(share * trials, trials)
    assert 0 <= low <= share + 1e-9
    assert share - 1e-9 <= high <= 1
