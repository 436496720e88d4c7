"""The decision: where it starts, within which time, and why."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fallback.plans import Delay
from fallback.types import Accept, Purpose, Reject
from router.experience import Experience
from router.outcome import Decision, Mode
from router.planning import plans_of, weighed
from router.policy import Policy, Question, stakes_of
from router.scoring import RouterModel
from tests.support import outcomes as make
from tests.support.fakes import LADDER
from tests.unit.test_deliberation import COST_USD, NOTHING, Believing

DELAY = {"haiku": Delay(1.0, 0.2), "sonnet": Delay(3.0, 1.0), "opus": Delay(6.0, 4.0)}


class Model(Believing):
    version = "m1"
    quality_costs_usd: dict[str, float] = {}  # noqa: RUF012 - a stand-in


def question(**changes: Any) -> Question:
    values: dict[str, Any] = {"workload": "triage", "allowed": LADDER, "features": NOTHING, "cost_usd": COST_USD}
    return Question(**(values | {"delay": DELAY, "mistake_cost_usd": 0.1} | changes))


def decide(
    p: list[float] | None = None, *, drawn: float = 1.0, experience: Experience | None = None, **of: Any
) -> Decision:
    model = None if p is None else cast("RouterModel", Model(p))
    return Policy(experience or Experience(LADDER), lambda: drawn).decide(question(**of), model)[0]


def rejections(*, sonnet_too: float, n: int = 200) -> Experience:
    """A workload whose haiku replies are rejected half of the time, and sonnet's then so often."""
    experience = Experience(LADDER)
    for i in range(n):
        attempts = [make.attempt(verdict=Reject("x") if i % 2 else Accept())]
        if i % 2:
            bad = (i // 2) % 100 < 100 * sonnet_too
            attempts.append(
                make.attempt("sonnet", purpose=Purpose.ESCALATION, verdict=Reject("x") if bad else Accept())
            )
        experience.observe(make.outcome(i, attempts=attempts))
    return experience


# --- time ------------------------------------------------------------------------------------


def test_without_a_bound_time_changes_nothing() -> None:
    assert decide([0.5, 0.6, 0.7]) == decide([0.5, 0.6, 0.7], latency_p95_s=1_000.0)


def test_a_start_that_would_break_the_bound_is_not_taken_while_another_fits() -> None:
    free, bound = decide([0.2, 0.3, 0.95]), decide([0.2, 0.3, 0.95], latency_p95_s=6.0)
    assert free.start_tier == "opus"
    assert bound.start_tier != "opus"
    assert "keeps the p95 within 6 s" in bound.reason
    assert "opus" not in bound.propensities, "nothing that breaks the bound is explored either"


def test_the_chain_ends_where_going_on_would_break_the_bound() -> None:
    decision = decide([0.6, 0.7, 0.75], latency_p95_s=6.0)
    assert decision.tiers in (("haiku",), ("haiku", "sonnet"))


def test_seldom_escalating_chains_fit_a_bound_that_their_last_tier_alone_does_not() -> None:
    """One request in a hundred goes on: the 95th percentile does not see it."""
    decision = decide([0.99, 0.995, 0.996], latency_p95_s=3.0, direct_threshold=1.0)
    assert decision.tiers == LADDER


def test_where_nothing_fits_the_quickest_is_taken_and_said() -> None:
    decision = decide([0.2, 0.3, 0.95], latency_p95_s=0.1)
    assert decision.tiers == ("haiku",)
    assert "no plan keeps its p95 within 0.1 s" in decision.reason


def test_a_priced_second_moves_the_start_down_where_waiting_is_dear() -> None:
    assert decide([0.2, 0.3, 0.95]).start_tier == "opus"
    assert decide([0.2, 0.3, 0.95], second_cost_usd=0.02).start_tier == "haiku"


def test_the_static_plan_heeds_the_bound_and_the_price_of_time_too() -> None:
    assert decide(start_tier="opus").tiers == ("opus",)
    assert decide(start_tier="opus", latency_p95_s=6.0).start_tier == "sonnet"
    slow_haiku = DELAY | {"haiku": Delay(10.0, 1.0)}
    fast = rejections(sonnet_too=0.0)
    assert decide(experience=fast).start_tier == "haiku"
    fast = rejections(sonnet_too=0.0)
    assert decide(experience=fast, delay=slow_haiku, second_cost_usd=0.01).start_tier == "sonnet"


# --- skips -----------------------------------------------------------------------------------


def test_the_static_plan_skips_a_tier_that_fails_after_the_one_below() -> None:
    decision = decide(experience=rejections(sonnet_too=0.9))
    assert decision.tiers == ("haiku", "opus")
    assert "skipping sonnet" in decision.reason
    assert decide(experience=rejections(sonnet_too=0.1)).tiers == LADDER


def test_a_fixed_plan_moves_and_skips_nothing_whatever_was_rejected() -> None:
    never = rejections(sonnet_too=0.9)
    for _ in range(2):
        never.observe(make.outcome(0, attempts=[make.attempt(verdict=Reject("x"))] * 200))
    assert decide(experience=never, static_plan="fixed").tiers == LADDER
    assert decide(experience=never).tiers != LADDER
    assert decide([0.2, 0.3, 0.95], static_plan="fixed").start_tier == "opus", "a model moves it"


def test_a_request_drawn_to_explore_skips_nothing() -> None:
    decision = decide(experience=rejections(sonnet_too=0.9), drawn=0.0, explore=0.1)
    assert (decision.tiers, decision.explored) == (LADDER, False)
    assert decision.propensities["haiku"] == pytest.approx(0.9 + 0.1 / 3)


# --- what there was to choose from -----------------------------------------------------------


def test_the_plan_taken_is_marked_and_every_other_says_why_not() -> None:
    asked = question(latency_p95_s=7.0)
    model = cast("RouterModel", Model([0.5, 0.6, 0.7]))
    experience = Experience(LADDER)
    decision, _ = Policy(experience, lambda: 1.0).decide(asked, model)
    shown = weighed(
        plans_of(asked, decision.probabilities, experience, model), decision, asked, stakes_of(asked, model)
    )
    assert [one.plan.tiers for one in shown if one.taken] == [decision.tiers]
    assert all(one.why_not for one in shown if not one.taken)
    slow = [one for one in shown if not one.plan.fits(7.0)]
    assert slow
    assert all("p95 is over 7 s" in one.why_not for one in slow)


def test_a_plan_whose_further_calls_save_too_little_says_so() -> None:
    model = Model([0.45, 0.95, 0.96])
    model.caught = 1.0
    for margin, start in ((0.0, "haiku"), (1.0, "sonnet")):
        asked, experience = question(call_margin=margin), Experience(LADDER)
        decision, _ = Policy(experience, lambda: 1.0).decide(asked, cast("RouterModel", model))
        assert decision.start_tier == start
    plans = plans_of(asked, decision.probabilities, experience, cast("RouterModel", model))
    shown = weighed(plans, decision, asked, stakes_of(asked, None))
    [passed_over] = [one for one in shown if one.plan.tiers == ("haiku", "sonnet")]
    assert passed_over.why_not == "saves too little for 0.55 calls more"


def test_a_forced_start_is_taken_and_the_others_say_so() -> None:
    asked = question(forced_start="opus")
    experience = Experience(LADDER)
    model = cast("RouterModel", Model([0.95, 0.96, 0.97]))
    decision, _ = Policy(experience, lambda: 1.0).decide(asked, model)
    assert (decision.start_tier, decision.mode) == ("opus", Mode.DIRECT)
    shown = weighed(plans_of(asked, decision.probabilities, experience, model), decision, asked, stakes_of(asked, None))
    assert {one.why_not for one in shown if not one.taken} == {"the start was set to opus"}
    assert decide(forced_start="sonnet").start_tier == "sonnet"


def test_measured_rates_make_the_plans_without_a_model() -> None:
    plans = {plan.tiers: plan for plan in plans_of(question(), {}, rejections(sonnet_too=0.9), None)}
    assert plans["haiku",].quality == pytest.approx(0.5, abs=0.02)
    assert plans["haiku", "sonnet"].quality == pytest.approx(0.5 + 0.5 * 0.1, abs=0.03)
    assert plans["sonnet",].quality == pytest.approx(0.8), "the prior, as a start"
