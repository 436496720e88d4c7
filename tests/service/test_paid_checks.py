"""Checks that ask a tier, in the whole service: the real SDK, the emulator and the store."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.static import StaticSource
from fallback.emulator.workloads import WORKLOADS, recognise
from fallback.types import CheckReport
from router.outcome import Agreement
from router.v1 import router_pb2
from tests.support.emulator import until
from tests.support.service import Running, running, text_prompt, text_request

JUDGE = {"check": "judge", "tier": "sonnet", "rubric": "The answer is right."}
AGREEMENT = {"check": "agreement", "samples": 2}


def reports(service: Running) -> list[CheckReport]:
    return [
        report
        for recorded in service.outcomes()
        for attempt in recorded.outcome.attempts
        for report in attempt.checks
        if report.check in ("judge", "agreement")
    ]


def the_account_is_true(service: Running) -> None:
    """Every upstream request is an attempt or a check's call; the money on both is the money of the request."""
    outcomes = [recorded.outcome for recorded in service.outcomes()]
    attempts = [attempt for outcome in outcomes for attempt in outcome.attempts]
    calls = sum(report.calls for attempt in attempts for report in attempt.checks)
    assert len(attempts) + calls == service.upstream_requests
    for outcome in outcomes:
        spent = [a.cost_usd for a in outcome.attempts] + [r.cost_usd for a in outcome.attempts for r in a.checks]
        assert outcome.cost_usd == pytest.approx(math.fsum(spent))


async def test_the_judge_and_the_samples_catch_wrong_answers_and_the_account_is_true(tmp_path: Any) -> None:
    workloads = {"date-reasoning": {"checks": [AGREEMENT, JUDGE]}}
    async with running(tmp_path, source=SimulatedSource(), workloads=workloads) as service:
        cases = [WORKLOADS["date-reasoning"].case(7, index) for index in range(24)]
        prompts = [text_prompt(case.prompt, max_tokens=4_000) for case in cases]
        responses = await asyncio.gather(
            *(
                service.router.Complete(router_pb2.CompleteRequest(workload="date-reasoning", prompt=prompt))
                for prompt in prompts
            )
        )
        the_account_is_true(service)
        found = reports(service)
        assert {report.check for report in found} == {"agreement", "judge"}
        assert all(report.cost_usd > 0 and report.duration_s > 0 for report in found if report.calls)
        assert {r.version for r in found if r.check == "judge"} >= {found_version(responses, "judge")}
        escalated = [r for r in responses if r.attempts[-1].purpose == "escalation"]
        assert escalated
        for case, response in zip(cases, responses, strict=True):
            verdicts = {v.check: v for v in response.attempts[0].verdicts}
            if "judge" in verdicts and verdicts["judge"].verdict != "unjudged":
                assert verdicts["judge"].calls == 1
                assert 0 <= verdicts["judge"].score <= 1
            assert recognise(case.prompt) is not None


def found_version(responses: Any, check: str) -> str:
    return next(v.version for r in responses for a in r.attempts for v in a.verdicts if v.check == check)


async def test_a_judge_that_fails_lets_the_reply_pass_unjudged_and_is_not_retried(tmp_path: Any) -> None:
    faults = {"rules": [{"model": "sonnet", "action": {"kind": "status", "status": 529}}]}
    workloads = {"default": {"checks": [JUDGE]}}
    async with running(tmp_path, faults=faults, workloads=workloads) as service:
        response = await service.router.Complete(text_request())
        assert (response.tier, response.accepted) == ("haiku", True)
        [verdict] = [v for v in response.attempts[0].verdicts if v.check == "judge"]
        assert (verdict.verdict, verdict.reason, verdict.calls, verdict.cost_usd) == ("unjudged", "overloaded", 1, 0.0)
        assert service.upstream_requests == 2
        the_account_is_true(service)


async def test_a_caller_that_goes_away_stops_the_judge(tmp_path: Any) -> None:
    faults = {"rules": [{"model": "sonnet", "action": {"kind": "hang"}}]}
    async with running(tmp_path, faults=faults, workloads={"default": {"checks": [JUDGE]}}) as service:
        call = service.router.Complete(text_request())
        await until(lambda: service.upstream_requests == 2)
        call.cancel()
        await until(lambda: service.emulator.stats()["cancelled"] == 1)
        await until(lambda: len(service.outcomes()) == 1)
        [report] = reports(service)
        assert report.calls == 1
        the_account_is_true(service)


async def test_a_cost_cap_holds_for_checks_too(tmp_path: Any) -> None:
    workloads = {"default": {"checks": [JUDGE]}}
    async with running(tmp_path, source=StaticSource("four"), workloads=workloads) as service:
        bounds = router_pb2.Bounds(cost_cap_usd=0.01)
        response = await service.router.Complete(text_request(bounds=bounds))
        assert response.accepted
        [verdict] = [v for v in response.attempts[0].verdicts if v.check == "judge"]
        assert (verdict.reason, verdict.calls) == ("cost_cap", 0)
        assert response.cost_usd <= 0.01
        the_account_is_true(service)


async def test_outcomes_say_how_the_replies_agree_and_hold_no_text(tmp_path: Any) -> None:
    workloads = {"default": {"checks": [{"check": "labels", "labels": ["yes"]}]}}
    async with running(tmp_path, source=StaticSource("Answer: 42"), workloads=workloads) as service:
        response = await service.router.Complete(text_request())
        assert [attempt.tier for attempt in response.attempts] == ["haiku", "sonnet", "opus"]
        [recorded] = service.outcomes()
        assert recorded.outcome.agreements == tuple(Agreement(a, b, 1.0, 1.0) for a, b in ((0, 1), (0, 2), (1, 2)))
