"""Complete over real gRPC, the real SDK and the emulator; outcomes read back from the store."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from fallback.emulator.static import StaticSource
from fallback.errors import Failure
from router.outcome import Mode
from router.v1 import router_pb2
from tests.support.service import Running, details_of, running, text_prompt, text_request

LABELS = {"workloads": {"triage": {"checks": [{"check": "labels", "labels": ["refund", "billing"]}], "explore": 0}}}


def status(code: int, *, times: int | None = None, tier: str = "haiku", **more: Any) -> dict[str, Any]:
    """A fault rule that answers a tier with a status."""
    rule: dict[str, Any] = {"model": tier, "action": {"kind": "status", "status": code, **more}}
    return rule if times is None else {**rule, "first": times}


def attempts_are_requests(service: Running) -> None:
    """Upstream HTTP requests, counted by the emulator, are the attempts and check calls in the outcomes, exactly."""
    attempts = [attempt for one in service.outcomes() for attempt in one.outcome.attempts]
    calls = sum(report.calls for attempt in attempts for report in attempt.checks)
    assert len(attempts) + calls == service.upstream_requests


async def test_a_good_reply_comes_back_with_its_whole_story(tmp_path: Any) -> None:
    async with running(tmp_path, source=StaticSource("four")) as service:
        response = await service.router.Complete(text_request(labels={"team": "a"}))
        assert response.content[0].text.text == "four"
        assert (response.tier, response.accepted, list(response.reasons)) == ("haiku", True, [])
        assert response.stop_reason == "end_turn"
        assert response.recorded
        assert not response.replayed
        assert [(a.tier, a.purpose, a.result) for a in response.attempts] == [("haiku", "first", "reply")]
        assert response.cost_usd == response.attempts[0].cost_usd > 0
        assert response.top_tier_cost_usd > response.cost_usd
        assert response.decision.mode == router_pb2.MODE_CHAIN
        assert "no model" in response.decision.reason
        [recorded] = service.outcomes()
        outcome = recorded.outcome
        assert outcome.request_id == response.request_id
        assert (outcome.status, outcome.resolved_tier, outcome.accepted) == ("OK", "haiku", True)
        assert outcome.labels == {"team": "a"}
        assert outcome.cost_usd == pytest.approx(response.cost_usd)
        assert outcome.retained is None
        attempts_are_requests(service)


async def test_rejected_replies_escalate_to_the_top_and_the_best_comes_back_marked(tmp_path: Any) -> None:
    async with running(tmp_path, source=StaticSource("no idea"), **LABELS) as service:
        response = await service.router.Complete(text_request(workload="triage"))
        assert not response.accepted
        assert [(a.tier, a.purpose) for a in response.attempts] == [
            ("haiku", "first"),
            ("sonnet", "escalation"),
            ("opus", "escalation"),
        ]
        assert list(response.reasons) == [f"{tier}:labels:not_a_label" for tier in ("haiku", "sonnet", "opus")]
        assert response.tier == "opus"
        assert response.cost_usd == pytest.approx(sum(a.cost_usd for a in response.attempts))
        attempts_are_requests(service)


async def test_an_accepted_label_does_not_escalate(tmp_path: Any) -> None:
    async with running(tmp_path, source=StaticSource("Refund."), **LABELS) as service:
        response = await service.router.Complete(text_request(workload="triage"))
        assert (response.tier, response.accepted, len(response.attempts)) == ("haiku", True, 1)


async def test_failures_are_retried_on_the_same_tier_and_are_no_escalation(tmp_path: Any) -> None:
    async with running(tmp_path, faults={"rules": [status(529, times=2)]}) as service:
        response = await service.router.Complete(text_request())
        assert [(a.tier, a.purpose, a.result) for a in response.attempts] == [
            ("haiku", "first", "overloaded"),
            ("haiku", "retry", "overloaded"),
            ("haiku", "retry", "reply"),
        ]
        [recorded] = service.outcomes()
        assert not recorded.outcome.escalated
        assert all(not a.checks for a in recorded.outcome.attempts if isinstance(a.result, Failure))
        attempts_are_requests(service)


async def test_a_tier_that_stays_down_is_failed_over_upwards(tmp_path: Any) -> None:
    async with running(tmp_path, faults={"rules": [status(529)]}) as service:
        response = await service.router.Complete(text_request())
        assert [(a.tier, a.purpose) for a in response.attempts] == [
            ("haiku", "first"),
            ("haiku", "retry"),
            ("haiku", "retry"),
            ("sonnet", "failover"),
        ]
        assert response.tier == "sonnet"
        assert not service.outcomes()[0].outcome.escalated
        attempts_are_requests(service)


@pytest.mark.parametrize(
    ("action", "code", "reason", "retries"),
    [
        ({"status": 529}, grpc.StatusCode.UNAVAILABLE, "UPSTREAM_FAILED", True),
        ({"status": 500}, grpc.StatusCode.UNAVAILABLE, "UPSTREAM_FAILED", True),
        ({"status": 429}, grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", True),
        ({"status": 401}, grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_CREDENTIALS", False),
        ({"status": 404}, grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_MODEL", False),
        ({"status": 400}, grpc.StatusCode.FAILED_PRECONDITION, "UPSTREAM_REFUSED_REQUEST", False),
        (
            {"status": 429, "error_code": "enforced_spend_limit_reached"},
            grpc.StatusCode.FAILED_PRECONDITION,
            "UPSTREAM_SPEND_LIMIT",
            False,
        ),
    ],
)
async def test_no_reply_is_a_typed_status_with_its_outcome(
    tmp_path: Any, action: dict[str, Any], code: grpc.StatusCode, reason: str, *, retries: bool
) -> None:
    rules = [{"action": {"kind": "status", **action}}]
    async with running(
        tmp_path, faults={"rules": rules}, resilience={"backoff_base_s": 0.01, "backoff_cap_s": 0.02}
    ) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(), timeout=20)
        assert caught.value.code() is code
        details = details_of(caught.value)
        assert (details["reason"], details["domain"]) == (reason, "tierwise")
        assert (details["retry_s"] is not None) is retries
        [recorded] = service.outcomes()
        assert recorded.outcome.status == code.name
        assert recorded.outcome.resolved_tier == ""
        assert recorded.outcome.cost_usd == 0
        attempts_are_requests(service)


async def test_a_hang_ends_with_the_callers_deadline_and_is_recorded(tmp_path: Any) -> None:
    async with running(tmp_path, faults={"rules": [{"action": {"kind": "hang"}}]}) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(), timeout=1.0)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: service.emulator.stats()["in_flight"] == 0)
        await until(lambda: len(service.outcomes()) == 1)
        attempts_are_requests(service)


async def test_a_caller_that_goes_away_cancels_the_upstream_call(tmp_path: Any) -> None:
    async with running(tmp_path, faults={"rules": [{"action": {"kind": "hang"}}]}) as service:
        call = service.router.Complete(text_request())
        await until(lambda: service.emulator.stats()["in_flight"] == 1)
        call.cancel()
        await until(lambda: service.emulator.stats()["cancelled"] == 1)
        await until(lambda: len(service.outcomes()) == 1)
        [recorded] = service.outcomes()
        assert recorded.outcome.status == "CANCELLED"
        [attempt] = recorded.outcome.attempts
        assert isinstance(attempt.result, Failure)
        assert attempt.result.kind == "cancelled"
        attempts_are_requests(service)


async def test_a_truncated_reply_gets_a_longer_limit_before_a_dearer_tier(tmp_path: Any) -> None:
    source = StaticSource(" ".join(f"point {number};" for number in range(60)), output_tokens=300)
    async with running(tmp_path, source=source, workloads={"default": {"explore": 0}}) as service:
        request = router_pb2.CompleteRequest(prompt=text_prompt(max_tokens=100, max_tokens_ceiling=1_000))
        response = await service.router.Complete(request)
        assert [(a.tier, a.purpose) for a in response.attempts] == [("haiku", "first"), ("haiku", "longer")]
        assert response.accepted
        attempts_are_requests(service)


@pytest.mark.parametrize(("refused", "tiers"), [("hand_back", ["haiku"]), ("escalate", ["haiku", "sonnet"])])
async def test_a_refusal_is_a_reply_and_the_workload_says_what_then(
    tmp_path: Any, refused: str, tiers: list[str]
) -> None:
    faults = {"rules": [{"model": "haiku", "action": {"kind": "refusal"}}]}
    async with running(tmp_path, faults=faults, workloads={"default": {"refused": refused, "explore": 0}}) as service:
        response = await service.router.Complete(text_request())
        assert [a.tier for a in response.attempts] == tiers
        assert response.accepted is (refused == "escalate")
        attempts_are_requests(service)


async def test_bounds_keep_the_request_between_two_tiers(tmp_path: Any) -> None:
    async with running(tmp_path, source=StaticSource("no idea"), **LABELS) as service:
        bounds = router_pb2.Bounds(lowest_tier="sonnet", highest_tier="sonnet")
        response = await service.router.Complete(text_request(workload="triage", bounds=bounds))
        assert [a.tier for a in response.attempts] == ["sonnet"]


async def test_a_cost_cap_stops_the_escalation_and_marks_the_reply(tmp_path: Any) -> None:
    async with running(tmp_path, source=StaticSource("no idea"), **LABELS) as service:
        bounds = router_pb2.Bounds(cost_cap_usd=0.001)
        response = await service.router.Complete(text_request(workload="triage", bounds=bounds))
        assert [a.tier for a in response.attempts] == ["haiku"]
        assert not response.accepted
        assert response.cost_usd <= 0.001


async def test_a_cap_that_nothing_fits_is_invalid(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(bounds=router_pb2.Bounds(cost_cap_usd=1e-9)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details_of(caught.value)["fields"] == ["bounds.cost_cap_usd"]
        assert service.upstream_requests == 0


INVALID = [
    ("workload", router_pb2.CompleteRequest(workload="a\nb", prompt=text_prompt())),
    ("prompt.messages", router_pb2.CompleteRequest(prompt=router_pb2.Prompt(max_tokens=10))),
    ("prompt.max_tokens", router_pb2.CompleteRequest(prompt=text_prompt(max_tokens=0))),
    (
        "prompt.output_schema_json",
        router_pb2.CompleteRequest(prompt=text_prompt(output_schema_json='{"type": "object", "required": 3}')),
    ),
    ("bounds.highest_tier", text_request(bounds=router_pb2.Bounds(highest_tier="fable"))),
    ("bounds.lowest_tier", text_request(bounds=router_pb2.Bounds(lowest_tier="opus", highest_tier="haiku"))),
    ("labels", text_request(labels={"k": "x" * 300})),
    ("idempotency_key", text_request(idempotency_key="\x00")),
]


@pytest.mark.parametrize(("field", "request_"), INVALID, ids=[field for field, _ in INVALID])
async def test_bad_input_names_its_field_and_costs_nothing(tmp_path: Any, field: str, request_: Any) -> None:
    async with running(tmp_path) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(request_)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details_of(caught.value)["fields"] == [field]
        assert service.upstream_requests == 0
        assert service.outcomes() == []


async def test_a_repeated_key_gets_the_first_reply_and_spends_nothing(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        first = await service.router.Complete(text_request(idempotency_key="order-1"))
        again = await service.router.Complete(text_request(idempotency_key="order-1"))
        assert again.request_id == first.request_id
        assert (first.replayed, again.replayed) == (False, True)
        assert service.upstream_requests == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request("another prompt", idempotency_key="order-1"))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_calls_with_one_key_at_once_share_one_upstream_request(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        replies = await asyncio.gather(*(service.router.Complete(text_request(idempotency_key="k")) for _ in range(8)))
        assert len({reply.request_id for reply in replies}) == 1
        assert sum(not reply.replayed for reply in replies) == 1
        assert service.upstream_requests == 1


async def test_an_unknown_workload_is_served_under_default_with_its_own_statistics(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        await service.router.Complete(text_request(workload="never-heard-of"))
        assert service.outcomes()[0].outcome.workload == "never-heard-of"


async def test_an_unknown_workload_is_not_found_where_the_service_refuses_them(tmp_path: Any) -> None:
    server = {"listen": "127.0.0.1:0", "unknown_workloads": "refuse"}
    async with running(tmp_path, server=server) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(workload="never-heard-of"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert service.upstream_requests == 0


async def test_route_decides_and_spends_nothing(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        response = await service.router.Route(router_pb2.RouteRequest(prompt=text_prompt()))
        assert list(response.decision.tiers) == ["haiku", "sonnet", "opus"]
        assert response.decision.expected_cost_usd["haiku"] < response.decision.expected_cost_usd["opus"]
        assert service.upstream_requests == 0
        assert service.outcomes() == []


async def test_route_lists_the_plans_where_asked_what_if(tmp_path: Any) -> None:
    async with running(tmp_path, workloads={"default": {"explore": 1.0}}) as service:
        what_if = router_pb2.WhatIf(second_cost_usd=0.01, start_tier="sonnet")
        response = await service.router.Route(router_pb2.RouteRequest(prompt=text_prompt(), what_if=what_if))
        assert [list(plan.tiers) for plan in response.plans if plan.taken] == [["sonnet", "opus"]]
        assert len(response.plans) == 7
        assert all(plan.why_not for plan in response.plans if not plan.taken)
        assert all(0 < plan.expected_time_s < plan.p95_s for plan in response.plans)
        assert response.mistake_cost_usd > 0
        assert not response.decision.explored
        quick = router_pb2.WhatIf(latency_p95_s=13.0)
        response = await service.router.Route(router_pb2.RouteRequest(prompt=text_prompt(), what_if=quick))
        [taken] = [plan for plan in response.plans if plan.taken]
        assert taken.p95_s <= 13.02
        assert any("p95 is over 13 s" in plan.why_not for plan in response.plans)
        assert service.upstream_requests == 0


@pytest.mark.parametrize(
    ("field", "what_if"),
    [
        ("what_if.mistake_cost_usd", {"mistake_cost_usd": 0.0}),
        ("what_if.second_cost_usd", {"second_cost_usd": -1.0}),
        ("what_if.quality_target", {"quality_target": 0.2}),
        ("what_if.latency_p95_s", {"latency_p95_s": float("nan")}),
        ("what_if.start_tier", {"start_tier": "fable"}),
    ],
)
async def test_a_senseless_what_if_names_its_field(tmp_path: Any, field: str, what_if: dict[str, Any]) -> None:
    async with running(tmp_path) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Route(
                router_pb2.RouteRequest(prompt=text_prompt(), what_if=router_pb2.WhatIf(**what_if))
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert details_of(caught.value)["fields"] == [field]


async def test_a_reply_that_no_tier_would_better_is_handed_back_early(tmp_path: Any) -> None:
    """At a mistake cost below the next tier's price no escalation can pay; a workload that insists goes on."""
    policy = {"checks": [{"check": "labels", "labels": ["a"]}], "mistake_cost_usd": 1e-9}
    workloads = {"cheap": policy, "insists": {**policy, "hopeless": "escalate"}}
    async with running(tmp_path, source=StaticSource("no label"), workloads=workloads) as service:
        response = await service.router.Complete(text_request(workload="cheap"))
        assert (response.tier, response.accepted) == ("haiku", False)
        assert list(response.reasons) == ["haiku:labels:not_a_label", "not_worth_going_on"]
        assert service.upstream_requests == 1
        response = await service.router.Complete(text_request(workload="insists"))
        assert (response.tier, response.accepted, len(response.attempts)) == ("opus", False, 3)


async def test_a_static_plan_skips_by_itself_what_fails_unless_it_is_fixed(tmp_path: Any) -> None:
    """No reply is ever a label: `measured` learns that sonnet fails after haiku, `fixed` asks it every time."""
    policy = {"checks": [{"check": "labels", "labels": ["a"]}], "explore": 0}
    workloads = {"measured": policy, "fixed": {**policy, "static_plan": "fixed"}}
    async with running(tmp_path, source=StaticSource("no label"), workloads=workloads) as service:
        seen: dict[str, list[list[str]]] = {name: [] for name in workloads}
        for name in workloads:
            for _ in range(60):
                response = await service.router.Complete(text_request(workload=name))
                seen[name].append([attempt.tier for attempt in response.attempts])
        assert seen["measured"][0] == ["haiku", "sonnet", "opus"]
        assert seen["measured"][-1] == ["haiku", "opus"]
        assert seen["fixed"] == [["haiku", "sonnet", "opus"]] * 60
        attempts_are_requests(service)


async def test_beyond_the_bound_requests_are_refused_at_once(tmp_path: Any) -> None:
    server = {"listen": "127.0.0.1:0", "max_in_flight": 1, "grace_s": 1}
    faults = {"rules": [{"first": 1, "action": {"kind": "hang"}}]}
    async with running(tmp_path, server=server, faults=faults) as service:
        held = service.router.Complete(text_request())
        await until(lambda: service.emulator.stats()["in_flight"] == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request())
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert details_of(caught.value)["retry_s"] is not None
        held.cancel()
        await until(lambda: service.service.admission.in_flight == 0)
        assert (await service.router.Complete(text_request())).accepted


async def test_exploration_is_logged_with_its_propensities(tmp_path: Any) -> None:
    async with running(tmp_path, workloads={"default": {"explore": 1.0}}) as service:
        for _ in range(20):
            await service.router.Complete(text_request())
        decisions = [one.outcome.decision for one in service.outcomes()]
        assert all(
            decision.propensities == pytest.approx(dict.fromkeys(("haiku", "sonnet", "opus"), 1 / 3))
            for decision in decisions
        )
        assert all(decision.mode is Mode.CHAIN for decision in decisions)
        assert all(decision.explored is (decision.start_tier != "haiku") for decision in decisions)
        attempts_are_requests(service)


async def until(true: Any) -> None:
    """Wait for a condition, by yielding to the loop; pytest's own timeout ends a test that waits in vain."""
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - other processes' state has no event to wait for
            await asyncio.sleep(0.01)
