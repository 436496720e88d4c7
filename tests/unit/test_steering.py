"""Without a model: on to a tier that has been seen to pass, or back to the caller where none has."""

from __future__ import annotations

from typing import Any

import pytest

from fallback.cascade import Ask, Keep
from fallback.job import Rejected
from fallback.plans import Delay
from fallback.types import Accept, CheckReport, Purpose, Reject
from router.deliberation import NO_TIME, NOT_WORTH_IT, Stakes
from router.experience import Experience
from router.steering import measured_steering
from tests.support import outcomes as make
from tests.support.fakes import LADDER, reply

COST_USD = {"haiku": 0.001, "sonnet": 0.01, "opus": 0.02}


def seen(fails: dict[str, int], passes: dict[str, int]) -> Experience:
    """How often each tier failed and passed after haiku's reply was rejected."""
    experience = Experience(LADDER)
    for counts, verdict in ((fails, Reject("x")), (passes, Accept())):
        for tier, count in counts.items():
            for n in range(count):
                escalated = make.attempt(tier, purpose=Purpose.ESCALATION, verdict=verdict)
                experience.observe(make.outcome(n, attempts=[make.attempt(verdict=Reject("x")), escalated]))
    return experience


def steered(
    experience: Experience, *, time_left_s: float = 100.0, above: tuple[str, ...] = LADDER[1:], **of: Any
) -> Any:
    stakes = Stakes(**{"cost_usd": COST_USD, "mistake_cost_usd": 0.4, "rejected_cost_usd": 0.4, **of})
    rejected = Rejected("haiku", reply("bad"), CheckReport("c", "1", Reject("x")), above, time_left_s)
    return measured_steering(experience, "triage", stakes)(rejected)


def test_where_nothing_is_known_the_next_tier_is_asked() -> None:
    assert steered(Experience(LADDER)) == Ask("sonnet", pytest.approx(0.39))


def test_a_tier_that_never_passes_after_this_one_is_passed_over() -> None:
    assert steered(seen({"sonnet": 300}, {"opus": 5})).source == "opus"


def test_a_reply_is_handed_back_only_when_all_above_have_been_seen_to_fail() -> None:
    assert steered(seen({"sonnet": 300, "opus": 20}, {})).source == "opus", "twenty failures prove too little"
    hopeless = seen({"sonnet": 300, "opus": 300}, {})
    assert steered(hopeless) == Keep("haiku", accepted=False, why=NOT_WORTH_IT)
    assert steered(hopeless, insists=True) == Ask("sonnet")
    assert steered(hopeless, rejected_cost_usd=10.0).source == "sonnet", "dear mistakes are worth slim chances"


def test_no_time_is_said_where_time_is_the_reason() -> None:
    slow = {"sonnet": Delay(30.0, 4.0), "opus": Delay(30.0, 4.0)}
    assert steered(Experience(LADDER), delay=slow, time_left_s=5.0) == Keep("haiku", accepted=False, why=NO_TIME)
    assert steered(Experience(LADDER), delay=slow, time_left_s=60.0).source == "sonnet"


def test_nothing_is_asked_above_the_last_tier() -> None:
    assert steered(Experience(LADDER), above=()) == Keep("haiku", accepted=False)
