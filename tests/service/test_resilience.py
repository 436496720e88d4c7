"""Failover, refused access, rate limits and hedging over the running service, the real SDK and the emulator."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fallback.emulator.static import StaticSource
from router.v1 import router_pb2
from tests.service.test_complete import attempts_are_requests, until
from tests.support.service import details_of, running, text_request

TWO_ROADS = {
    "endpoints": {"main": {}, "spare": {"budget": "other"}},
    "tiers": [
        {"name": "haiku", "model": "claude-haiku-5-5", "endpoints": ["main", "spare"]},
        {"name": "sonnet", "model": "claude-sonnet-5-5", "endpoints": ["main"]},
    ],
}


def told(response: Any) -> list[tuple[str, str, str, str]]:
    return [(a.tier, a.endpoint, a.purpose, a.result) for a in response.attempts]


def rule(action: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"rules": [{"action": action, **more}]}


async def test_an_endpoint_that_refuses_the_key_is_left_at_once_and_hardly_called_again(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    faults = rule({"kind": "status", "status": 401}, endpoint="/main")
    with caplog.at_level(logging.WARNING, "router.serve"):
        async with running(tmp_path, faults=faults, **TWO_ROADS) as service:
            first = await service.router.Complete(text_request())
            assert told(first) == [
                ("haiku", "main", "first", "credentials_refused"),
                ("haiku", "spare", "failover", "reply"),
            ]
            for _ in range(10):
                response = await service.router.Complete(text_request())
                assert told(response) == [("haiku", "spare", "first", "reply")]
            [alarm] = service.service.guards.access.alarms()
            assert (alarm.kind, alarm.endpoint, alarm.tier) == ("credentials_refused", "main", "")
            attempts_are_requests(service)
    assert [r.message.split(",")[0] for r in caplog.records] == ["alarm: credentials_refused"], "once an episode"


@pytest.mark.parametrize(
    ("action", "reason", "wait"),
    [
        ({"status": 401}, "UPSTREAM_CREDENTIALS", False),
        ({"status": 429, "error_code": "enforced_spend_limit_reached"}, "UPSTREAM_SPEND_LIMIT", False),
        ({"status": 429, "retry_after": {"seconds": 120.0}}, "UPSTREAM_RATE_LIMITED", True),
    ],
)
async def test_while_the_only_endpoint_is_closed_the_same_answer_comes_without_a_call(
    tmp_path: Any, action: dict[str, Any], reason: str, wait: bool
) -> None:
    async with running(tmp_path, faults=rule({"kind": "status", **action})) as service:
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.router.Complete(text_request(), timeout=10)
            details = details_of(caught.value)
            assert details["reason"] == reason
            assert (details["retry_s"] is not None and 100 < details["retry_s"] <= 120) is wait
        assert service.upstream_requests <= 3, "each tier once at most"
        attempts_are_requests(service)


async def test_a_tier_near_its_rate_limit_is_avoided_before_it_answers_429(tmp_path: Any) -> None:
    limits = {"requests": 10, "input-tokens": 2_000_000, "output-tokens": 400_000}
    resilience = {"near_limit": 0.25}
    now_s = time.time()  # stands still, so that no minute begins in between
    upstream = {"limits": limits, "wall": lambda: now_s}
    async with running(tmp_path, upstream=upstream, resilience=resilience, **TWO_ROADS) as service:
        roads = []
        for _ in range(20):
            [attempt] = (await service.router.Complete(text_request())).attempts
            roads.append((attempt.tier, attempt.endpoint, attempt.purpose))
    # Eight of ten are used: the next reply said that a fifth is left. Then the other endpoint, then the next tier.
    assert roads[:16] == [("haiku", "main", "first")] * 8 + [("haiku", "spare", "first")] * 8
    assert roads[16:] == [("sonnet", "main", "first")] * 4


async def test_a_hung_attempt_gets_a_hedge_and_its_connection_is_closed(tmp_path: Any) -> None:
    faults = rule({"kind": "hang"}, endpoint="/main")
    workloads = {"default": {"hedge_after": 0.05}}
    async with running(tmp_path, faults=faults, workloads=workloads, **TWO_ROADS) as service:
        response = await service.router.Complete(text_request(), timeout=30)
        assert told(response) == [
            ("haiku", "spare", "hedge", "reply"),
            ("haiku", "main", "first", "cancelled"),
        ]
        await until(lambda: service.emulator.stats()["cancelled"] == 1)
        assert service.emulator.stats()["in_flight"] == 0
        [recorded] = service.outcomes()
        assert [a.purpose.value for a in recorded.outcome.attempts] == ["hedge", "first"]
        assert not recorded.outcome.escalated
        attempts_are_requests(service)


@pytest.mark.parametrize("raw", ["-5", "nan", "inf", "soon", ""])
async def test_a_senseless_retry_after_is_as_good_as_none(tmp_path: Any, raw: str) -> None:
    action = {"kind": "status", "status": 529, "retry_after": {"raw": raw}}
    async with running(tmp_path, faults=rule(action, first=1), source=StaticSource("fine")) as service:
        response = await service.router.Complete(text_request(), timeout=10)
        assert [a.purpose for a in response.attempts] == ["first", "retry"]


async def test_overload_is_refused_at_once_lowest_priority_first_and_health_still_answers(tmp_path: Any) -> None:
    sections = {
        "server": {"listen": "127.0.0.1:0", "grace_s": 5, "max_in_flight": 1},
        "admission": {"max_queued": 1, "queue_wait_s": 60},
        "workloads": {"batch": {"priority": "low"}},
    }
    async with running(tmp_path, faults=rule({"kind": "hang"}, first=1), **sections) as service:
        admission = service.service.admission
        hung = service.router.Complete(text_request())
        await until(lambda: admission.in_flight == 1)
        low = service.router.Complete(text_request(workload="batch"))
        await until(lambda: admission.queued == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(priority=router_pb2.PRIORITY_LOW))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = details_of(caught.value)
        assert (details["reason"], details["retry_s"]) == ("TOO_MANY_REQUESTS", 0.5)
        high = service.router.Complete(text_request(workload="batch", priority=router_pb2.PRIORITY_HIGH))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await low
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        health = health_pb2_grpc.HealthStub(service.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        hung.cancel()
        assert (await high).accepted
        assert {each.name: n for each, n in admission.refused.items()} == {"LOW": 2, "NORMAL": 0, "HIGH": 0}


async def test_as_many_callers_as_the_limits_least_ask_without_a_pause_and_none_is_refused(tmp_path: Any) -> None:
    async with running(tmp_path, admission={"min_in_flight": 24, "max_lag_s": 0.000_001}) as service:
        admission = service.service.admission

        async def caller() -> int:
            return sum([(await service.router.Complete(text_request())).accepted for _ in range(20)])

        assert await asyncio.gather(*(caller() for _ in range(24))) == [20] * 24
        assert not any(admission.refused.values())


async def test_an_unknown_priority_is_a_wrong_field(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(priority=9))
        assert details_of(caught.value)["fields"] == ["priority"]
