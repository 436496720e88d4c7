"""What certified thresholds do to the steps of one request, and to the decision before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from fallback.cascade import Ask, Keep
from fallback.types import Message, Reply, Request, StopReason, TextBlock, Usage
from router.certificate import NEVER, Standing
from router.deliberation import NOT_CERTIFIED, Deliberation, Stakes
from router.experience import Experience
from router.features import Features, request_features
from router.outcome import Decision, Mode
from router.policy import Policy, Question
from router.reply_features import reply_features
from router.scoring import RouterModel, Seen
from tests.support.small_models import TIERS, plain_model

REQUEST = Request("maths", (Message("user", (TextBlock("What is 3 + 4?"),)),), 100, 100)
FEATURES = request_features(REQUEST)
REPLY = reply_features(REQUEST, Reply((TextBlock("7"),), StopReason.END_TURN, Usage(output_tokens=5), "m"))
COST_USD = {"haiku": 0.001, "sonnet": 0.003, "opus": 0.005}


class Believes(RouterModel):
    """Believes what it is told: `before` any reply, and of each reply its own `after`."""

    def believe(self, features: Features, workload: str, seen: Sequence[Seen]) -> dict[str, float]:
        return BEFORE | {each.source: AFTER[each.source] for each in seen}

    def worth_of(self, *_: object) -> float | None:
        return None


BEFORE = {"haiku": 0.9, "sonnet": 0.92, "opus": 0.95}
AFTER = {"haiku": 0.85, "sonnet": 0.90, "opus": 0.95}
FIELDS = {name: getattr(plain_model(), name) for name in RouterModel.__slots__}
MODEL = Believes(**FIELDS)


def deliberation(accept: Mapping[str, float]) -> Deliberation:
    return Deliberation(
        MODEL,
        FEATURES,
        workload="maths",
        allowed=TIERS,
        stakes=Stakes(COST_USD, mistake_cost_usd=0.01, rejected_cost_usd=0.01, standing=Standing(accept=accept)),
    )


@pytest.mark.parametrize(("accept", "kept"), [({}, True), ({"haiku": 0.85}, True), ({"haiku": 0.86}, False)])
def test_a_reply_is_kept_only_from_what_is_certified(accept: Mapping[str, float], *, kept: bool) -> None:
    found = deliberation(accept).replied("haiku", REPLY, "7")
    assert found is not None
    assert isinstance(found.step, Keep) is kept
    assert found.barred is not kept
    assert found.score == 0.85


def test_a_barred_tier_is_neither_asked_first_nor_after_a_reply() -> None:
    barred = deliberation({"haiku": NEVER, "sonnet": NEVER})
    assert barred.first() == Ask("opus", pytest.approx(0.01 * 0.95 - 0.005))
    found = barred.replied("haiku", REPLY, "7")  # by failover
    assert found is not None
    assert isinstance(found.step, Ask)
    assert found.step.source == "opus"


def test_the_best_reply_is_kept_where_no_higher_tier_may_be_asked() -> None:
    barred = deliberation({"haiku": NEVER, "sonnet": 0.99})
    for tier in ("haiku", "sonnet"):
        barred.replied(tier, REPLY, "7")
    last = barred.replied("opus", REPLY, "7")
    assert last is not None
    assert isinstance(last.step, Keep)
    assert not last.barred


def test_an_earlier_reply_below_its_threshold_is_handed_back_marked_when_the_top_is_rejected() -> None:
    for accept, accepted in (({"haiku": 0.85}, True), ({"haiku": 0.86}, False)):
        thinking = deliberation(accept)
        thinking.replied("haiku", REPLY, "7")
        step = thinking.rejected("opus", REPLY, "8", above=())
        assert isinstance(step, Keep)
        assert (step.tier, step.accepted) == ("haiku", accepted)
        assert step.why == ("" if accepted else NOT_CERTIFIED)


def test_a_plan_that_ends_below_the_top_hands_an_uncertified_reply_back_marked() -> None:
    for accept, accepted in (({"haiku": 0.85}, True), ({"haiku": 0.86}, False)):
        thinking = deliberation(accept)
        thinking.keep_to(["haiku"])  # nothing else answers in time
        found = thinking.replied("haiku", REPLY, "7")
        assert found is not None
        assert isinstance(found.step, Keep)
        assert (found.step.tier, found.step.accepted) == ("haiku", accepted)


def test_a_rejection_leads_past_a_barred_tier() -> None:
    step = deliberation({"sonnet": NEVER}).rejected("haiku", REPLY, "7", above=("sonnet", "opus"))
    assert isinstance(step, Ask)
    assert step.source == "opus"


def test_an_explored_reply_is_kept_as_if_nothing_were_certified() -> None:
    exploring = deliberation({"haiku": NEVER})
    exploring.explore("haiku")
    found = exploring.replied("haiku", REPLY, "7")
    assert found is not None
    assert isinstance(found.step, Keep)


# --- the decision ----------------------------------------------------------------------------


def decide(standing: Standing, *, explore: float = 0.0, drawn: float = 0.99) -> Decision:
    question = Question("maths", TIERS, FEATURES, COST_USD, explore=explore, mistake_cost_usd=0.01, standing=standing)
    decision, _ = Policy(Experience(TIERS), lambda: drawn).decide(question, MODEL)
    return decision


def test_direct_needs_the_certified_probability() -> None:
    assert decide(Standing()).mode is Mode.DIRECT  # 0.9 reaches the configured 0.9
    assert decide(Standing(direct={"haiku": 0.91})).mode is Mode.CHAIN
    assert decide(Standing(direct={"haiku": 0.6})).mode is Mode.DIRECT
    never = decide(Standing(direct={"haiku": NEVER}))
    assert never.mode is Mode.CHAIN
    assert never.reason.endswith("nothing is certified for DIRECT")


def test_infeasible_starts_higher_and_says_so() -> None:
    words = {"haiku": "haiku infeasible, start higher"}
    decision = decide(Standing({"haiku": NEVER}, {"haiku": NEVER}, words))
    assert decision.tiers == ("sonnet", "opus")
    assert decision.reason.endswith("; haiku infeasible, start higher")
    assert decision.propensities == {"haiku": 0.0, "sonnet": 1.0, "opus": 0.0}


def test_exploration_goes_on_trying_a_barred_tier() -> None:
    decision = decide(Standing({"haiku": NEVER}), explore=0.3, drawn=0.05)
    assert (decision.start_tier, decision.explored, decision.mode) == ("haiku", True, Mode.CHAIN)
    assert decision.propensities["haiku"] == pytest.approx(0.1)


def test_the_stand_in_is_a_model_otherwise() -> None:
    assert MODEL.tiers == TIERS
    assert np.isfinite(replace(plain_model(), version="other").scale).all()
