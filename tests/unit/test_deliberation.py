"""What is decided after every verdict: on, straight up, back to an earlier reply, or no further."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pytest

from fallback.cascade import CAUGHT, Ask, Keep, Step
from fallback.plans import Delay
from router.deliberation import NO_TIME, NOT_WORTH_IT, Deliberation, Stakes
from router.features import Features
from router.scoring import RouterModel, Seen, Tied
from tests.support.fakes import LADDER

NOTHING = Features(np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.float32), np.zeros(0, dtype=np.float32))
COST_USD = {"haiku": 0.001, "sonnet": 0.01, "opus": 0.02}


class Believing:
    """A model that believes what it is told, by the tiers that have replied."""

    tiers = LADDER
    sources = LADDER
    caught = CAUGHT
    tied = Tied()

    def __init__(self, first: Sequence[float], **after: Sequence[float]) -> None:
        self._by_state = {(): first} | {tuple(state.split("_")): p for state, p in after.items()}

    def probabilities(self, features: Features, workload: str = "") -> dict[str, float]:
        return self.believe(features, workload, ())

    def believe(self, _features: Features, _workload: str, seen: Sequence[Seen]) -> dict[str, float]:
        state = tuple(each.source for each in seen)
        return dict(zip(LADDER, self._by_state.get(state, self._by_state[()]), strict=True))

    def worth_of(self, *_: Any) -> None:
        return None

    def caught_in(self, _workload: str) -> float:
        return self.caught


def believing(*first: float, caught: float = CAUGHT, tied: Tied | None = None) -> Believing:
    """A model that has measured what the chain rule goes by."""
    model = Believing(first)
    model.caught, model.tied = caught, tied or Tied()
    return model


def test_the_more_bad_replies_are_noticed_the_lower_it_starts() -> None:
    steps = [deliberation(believing(0.75, 0.95, 0.96, caught=caught)).first() for caught in (0.0, 1.0)]
    assert [step.source for step in steps if isinstance(step, Ask)] == ["sonnet", "haiku"]


def test_a_start_with_more_calls_to_come_must_save_the_margin() -> None:
    model = believing(0.45, 0.95, 0.96, caught=1.0)
    steps = [deliberation(model, call_margin=margin).first() for margin in (0.0, 1.0)]
    assert [step.source for step in steps if isinstance(step, Ask)] == ["haiku", "sonnet"]


def test_a_rejection_says_as_much_of_the_next_tier_as_was_measured() -> None:
    hopeful = rejected(deliberation(believing(0.75, 0.5, 0.6, tied=Tied(read=1.0)), mistake_cost_usd=0.05))
    hopeless = rejected(
        deliberation(believing(0.75, 0.5, 0.6, tied=Tied(read=50.0)), mistake_cost_usd=0.05, rejected_cost_usd=0.05)
    )
    assert isinstance(hopeful, Ask)
    assert isinstance(hopeless, Keep)


def deliberation(model: Believing, allowed: Sequence[str] = LADDER, **stakes: Any) -> Deliberation:
    values: dict[str, Any] = {"cost_usd": COST_USD, "mistake_cost_usd": 0.1, "rejected_cost_usd": 0.1} | stakes
    return Deliberation(cast("RouterModel", model), NOTHING, workload="w", allowed=allowed, stakes=Stakes(**values))


def rejected(
    thinking: Deliberation, tier: str = "haiku", above: Sequence[str] = ("sonnet", "opus"), **how: float
) -> Step:
    return thinking.rejected(tier, NOTHING, "a reply", above=above, **how)


def test_after_a_rejection_the_next_tier_is_asked_where_it_would_probably_do() -> None:
    step = rejected(deliberation(Believing([0.5, 0.9, 0.95])))
    assert isinstance(step, Ask)
    assert step.source == "sonnet"


def test_after_a_rejection_a_tier_that_would_probably_fail_too_is_skipped() -> None:
    step = rejected(deliberation(Believing([0.5, 0.2, 0.9])))
    assert isinstance(step, Ask)
    assert step.source == "opus"


def test_a_rejection_that_was_not_expected_makes_the_tiers_above_look_worse() -> None:
    """At these prices sonnet is worth its cost before the rejection, and opus after it."""
    believed = [0.9, 0.62, 0.8]
    surprised, expecting = (deliberation(Believing([p, *believed[1:]])) for p in (0.9, 0.05))
    assert (
        cast("Ask", rejected(surprised, above=("sonnet",))).value_usd
        < cast("Ask", rejected(expecting, above=("sonnet",))).value_usd
    )


def test_where_the_top_would_fail_too_the_reply_is_handed_back_with_the_reason() -> None:
    step = rejected(deliberation(Believing([0.5, 0.05, 0.1])))
    assert step == Keep("haiku", 0.0, accepted=False, why=NOT_WORTH_IT)


def test_a_workload_that_insists_asks_the_best_there_is() -> None:
    step = rejected(deliberation(Believing([0.5, 0.05, 0.1]), insists=True))
    assert isinstance(step, Ask)


def test_a_tuned_mistake_cost_does_not_hand_back_what_a_real_one_would_not() -> None:
    """λ = 0.01 says that sonnet's 0.01 never pays; a useless reply costs more than that."""
    step = rejected(deliberation(Believing([0.5, 0.5, 0.6]), mistake_cost_usd=0.01, rejected_cost_usd=0.4))
    assert isinstance(step, Ask)


def test_nothing_is_left_above_the_last_tier() -> None:
    step = rejected(deliberation(Believing([0.5, 0.6, 0.7])), "opus", ())
    assert step == Keep("opus", 0.0, accepted=False)


def test_an_earlier_reply_that_had_passed_is_good_enough_when_the_next_one_is_rejected() -> None:
    thinking = deliberation(Believing([0.5, 0.9, 0.95], haiku=[0.6, 0.9, 0.95], haiku_sonnet=[0.6, 0.5, 0.61]))
    first = thinking.replied("haiku", NOTHING, "fair")
    assert first is not None
    assert isinstance(first.step, Ask)
    assert rejected(thinking, "sonnet", ("opus",)) == Keep("haiku", pytest.approx(0.06), accepted=True)


def test_a_rejected_reply_is_never_kept_for_a_worse_one_that_passed() -> None:
    thinking = deliberation(Believing([0.5, 0.9, 0.95], haiku_sonnet=[0.9, 0.3, 0.31]))
    rejected(thinking)
    found = thinking.replied("sonnet", NOTHING, "fair")
    assert found is not None
    assert found.step == Keep("sonnet", pytest.approx(0.03), accepted=True)


def test_a_paid_checks_doubt_counts_as_much_as_it_is_sure() -> None:
    assert isinstance(rejected(deliberation(Believing([0.5, 0.4, 0.45]))), Ask)
    step = rejected(deliberation(Believing([0.5, 0.4, 0.45])), p_good=0.4)
    assert step == Keep("haiku", pytest.approx(0.04), accepted=False, why=NOT_WORTH_IT)


def test_a_tier_that_the_model_does_not_know_is_left_the_usual_way() -> None:
    thinking = deliberation(Believing([0.5, 0.9, 0.95]), allowed=("opus",))
    assert isinstance(rejected(thinking, "haiku", ("opus",)), Ask)
    assert rejected(deliberation(Believing([0.5] * 3), allowed=()), "haiku", ("sonnet",)) == Ask("sonnet")
    assert rejected(deliberation(Believing([0.5] * 3), allowed=()), "haiku", ()) == Keep("haiku", accepted=False)


# --- time ------------------------------------------------------------------------------------

SLOW: Mapping[str, Delay] = {"haiku": Delay(1.0, 0.1), "sonnet": Delay(3.0, 1.0), "opus": Delay(20.0, 16.0)}


def test_a_priced_second_makes_the_slow_tier_dear() -> None:
    model = Believing([0.2, 0.6, 0.95])
    assert cast("Ask", deliberation(model, delay=SLOW).first()).source == "opus"
    assert cast("Ask", deliberation(model, delay=SLOW, second_cost_usd=0.01).first()).source != "opus"


def test_a_tier_that_would_not_finish_in_the_time_left_is_worth_nothing() -> None:
    thinking = deliberation(Believing([0.2, 0.3, 0.95]), delay=SLOW)
    assert cast("Ask", rejected(thinking, time_left_s=60.0)).source == "opus"
    assert cast("Ask", rejected(thinking, time_left_s=10.0)).source == "sonnet"
    assert rejected(thinking, time_left_s=0.5) == Keep("haiku", 0.0, accepted=False, why=NO_TIME)


def test_a_duration_keeps_its_moments_and_adds_up() -> None:
    one = Delay(2.0, 1.5)
    assert one.within(one.quantile_s(0.95)) == pytest.approx(0.95)
    assert one + Delay(3.0, 0.5) == Delay(5.0, 2.0)
    rng = np.random.default_rng(1)
    mu, sigma = math.log(2.0), 0.6
    drawn = rng.lognormal(mu, sigma, 200_000)
    fitted = Delay(float(drawn.mean()), float(drawn.var()))
    assert fitted.quantile_s(0.95) == pytest.approx(float(np.quantile(drawn, 0.95)), rel=0.02)
    assert [Delay(2.0).within(t) for t in (1.9, 2.0, 0.0)] == [0.0, 1.0, 0.0]
    assert (Delay().within(1.0), Delay().quantile_s(0.5)) == (1.0, 0.0)
