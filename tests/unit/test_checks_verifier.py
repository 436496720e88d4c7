"""The workload's own verifier and the learned scorer: foreign judgement, kept at arm's length."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from fallback.cascade import Ask, Keep, Step
from fallback.checks.scorer import Assessment, ScorerCheck
from fallback.checks.verifier import VerifierCheck
from fallback.types import Accept, Reject, Remedy, Unjudged, Verdict
from tests.support import verifiers
from tests.support.fakes import case, reply

HERE = "tests.support.verifiers"


@pytest.mark.parametrize(
    ("function", "text", "verdict"),
    [
        ("has_a_digit", "it is 4", Accept()),
        ("has_a_digit", "it is four", Reject("verifier")),
        ("truthy", "x", Accept()),
        ("truthy", "", Reject("verifier")),
        ("raises", "x", Unjudged("verifier_error")),
        ("ambiguous", "x", Unjudged("verifier_error")),
        ("times_out_itself", "x", Unjudged("verifier_timeout")),
    ],
)
async def test_its_answer_is_a_verdict_and_its_trouble_is_none(function: str, text: str, verdict: Verdict) -> None:
    judgement = await VerifierCheck(f"{HERE}:{function}").judge(case(reply(text)))
    assert judgement.verdict == verdict
    assert judgement.cost_usd == 0.0


@pytest.fixture
def hanging() -> Iterator[None]:
    """Verifiers that hang do so until the test ends."""
    verifiers.release.clear()
    yield
    verifiers.release.set()


async def test_a_few_that_hang_hold_up_nobody_else(hanging: None) -> None:
    slow = VerifierCheck(f"{HERE}:hangs", 0.05)
    await asyncio.gather(*(slow.judge(case(reply())) for _ in range(40)))
    assert (await VerifierCheck(f"{HERE}:truthy").judge(case(reply("x")))).verdict == Accept()
    assert await asyncio.to_thread(lambda: 7) == 7, "the loop's own threads are free"


@pytest.mark.parametrize(("timeout_s", "time_left_s"), [(0.05, 10.0), (10.0, 0.05), (10.0, -1.0)])
async def test_one_that_hangs_is_left_at_its_own_or_the_requests_time(
    hanging: None, timeout_s: float, time_left_s: float
) -> None:
    check = VerifierCheck(f"{HERE}:hangs", timeout_s)
    judgement = await check.judge(case(reply(), time_left_s=time_left_s))
    assert judgement.verdict == Unjudged("verifier_timeout")


@pytest.mark.parametrize(
    "entry_point",
    ["", ":", "x", "x:", ":f", "no_such_module:f", f"{HERE}:no_such", f"{HERE}:release", f"{HERE}:coroutine", ".a:b"],
)
def test_what_cannot_be_called_is_refused_at_start(entry_point: str) -> None:
    with pytest.raises(ValueError, match=r"entry_point|module"):
        VerifierCheck(entry_point)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_senseless_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        VerifierCheck(f"{HERE}:has_a_digit", timeout_s)


@pytest.mark.parametrize(
    ("step", "verdict"),
    [
        (Keep("haiku", 0.1), Accept()),
        (Keep("haiku", 0.1, accepted=False), Reject("not_certified", Remedy.HAND_BACK)),
        (Keep("opus", 0.1), Reject("earlier_reply_better", Remedy.HAND_BACK, to="opus")),
        (Ask("opus", 0.1), Reject("low_score", to="opus")),
    ],
)
async def test_the_scorer_says_what_the_model_found_worth_it(step: Step, verdict: Verdict) -> None:
    judgement = await ScorerCheck("v7", lambda _: Assessment(0.25, step)).judge(case(reply()))
    assert (judgement.verdict, judgement.score) == (verdict, 0.25)


async def test_a_tier_that_the_model_does_not_know_is_unjudged() -> None:
    judgement = await ScorerCheck("v7", lambda _: None).judge(case(reply()))
    assert (judgement.verdict, judgement.score) == (Unjudged("tier_not_in_model"), None)
