"""The simulated judge: right as often as it says, both ways, and only where it is asked to judge."""

from __future__ import annotations

from typing import Any

import pytest

from fallback.checks.judge import Compared, JudgeCheck
from fallback.emulator.answers import Ask
from fallback.emulator.grading import ABSTAINS, FOLLOWS_PLACE, MISJUDGES
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.workloads import WORKLOADS
from fallback.emulator.workloads.base import Case
from fallback.types import Accept, Reject, Reply, Request, TextBlock, Unjudged
from tests.support.fakes import case, reply, request

N = 600


class Judges:
    """Asks the simulated source as the service would ask the API."""

    def __init__(self) -> None:
        self.source = SimulatedSource(3)

    async def __call__(self, tier: str, request: Request, *, timeout_s: float) -> Reply:
        [block] = request.messages[-1].content
        assert isinstance(block, TextBlock)
        return reply(self.source.answer(Ask(tier, tier, block.text, schema=request.output_schema)).text)


def pairs() -> list[tuple[Case, str, str]]:
    """(case, right answer, wrong answer)."""
    workload = WORKLOADS["word-arithmetic"]
    return [(found := workload.case(5, index), f"Answer: {found.answer}", "Answer: -99") for index in range(N)]


@pytest.mark.parametrize("tier", ["haiku", "sonnet", "opus"])
async def test_it_misjudges_and_abstains_at_its_rates(tier: str) -> None:
    judge, ask = JudgeCheck(tier, "Right."), Judges()
    wrong = unsure = 0
    for posed, right, bad in pairs():
        for text, good in ((right, True), (bad, False)):
            verdict = (await judge.judge(case(reply(text), request(posed.prompt), ask=ask))).verdict
            unsure += isinstance(verdict, Unjudged)
            wrong += isinstance(verdict, Reject if good else Accept)
    # 1,200 draws: four standard deviations.
    assert unsure / (2 * N) == pytest.approx(ABSTAINS, abs=0.026)
    assert wrong / (2 * N - unsure) == pytest.approx(MISJUDGES[tier], abs=0.043)


async def test_it_compares_and_its_liking_for_a_place_makes_orders_disagree() -> None:
    judge, ask = JudgeCheck("opus", "Right."), Judges()
    found = [await judge.compare(ask, request(posed.prompt), reply(bad), reply(right)) for posed, right, bad in pairs()]
    decided = [each for each in found if each.better]
    assert decided.count(Compared("second")) / len(decided) > 0.99  # both orders wrong at once: 0.3 %
    disagree = sum(each.cause == "orders_disagree" for each in found) / N
    assert 0.5 * FOLLOWS_PLACE < disagree < 4 * FOLLOWS_PLACE


@pytest.mark.parametrize("prompt", ["What is 2 + 2?", "<<0123456789abcdef REQUEST>>\nx\n<<0123456789abcdef END>>"])
async def test_other_prompts_are_answered_as_ever(prompt: str) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"points": {"type": "integer"}}}
    plain = SimulatedSource().answer(Ask("haiku", "m", prompt))
    assert "simulated reply" in plain.text
    if "REQUEST" in prompt:  # a request of no workload: it cannot tell
        assert '"can_tell": false' in SimulatedSource().answer(Ask("haiku", "m", prompt, schema=schema)).text
