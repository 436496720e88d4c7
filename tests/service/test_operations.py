"""Feedback, health, reflection, reload and stop, over the running service."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from fallback.emulator.static import StaticSource
from router.config import Config
from router.v1 import feedback_pb2
from tests.service.test_complete import until
from tests.support.service import details_of, running, text_request

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def report(request_id: str, quality: int = feedback_pb2.QUALITY_GOOD, **more: Any) -> feedback_pb2.ReportOutcomeRequest:
    return feedback_pb2.ReportOutcomeRequest(request_id=request_id, quality=quality, **more)


async def test_feedback_is_idempotent_and_the_last_report_stands(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        response = await service.router.Complete(text_request())
        first = await service.feedback.ReportOutcome(report(response.request_id))
        again = await service.feedback.ReportOutcome(report(response.request_id))
        assert (first.already_reported, again.already_reported) == (False, True)
        await service.feedback.ReportOutcome(
            report(response.request_id, feedback_pb2.QUALITY_BAD, sufficient_tier="opus", score=0.1, reason="wrong")
        )
        [recorded] = service.outcomes()
        assert recorded.feedback is not None
        assert (recorded.feedback.good, recorded.feedback.sufficient_tier, recorded.feedback.reason) == (
            False,
            "opus",
            "wrong",
        )


@pytest.mark.parametrize(
    ("request_", "code", "field"),
    [
        (report("0" * 32), grpc.StatusCode.NOT_FOUND, []),
        (report("not an id"), grpc.StatusCode.INVALID_ARGUMENT, ["request_id"]),
        (report("0" * 32, feedback_pb2.QUALITY_UNSPECIFIED), grpc.StatusCode.INVALID_ARGUMENT, ["quality"]),
        (report("0" * 32, sufficient_tier="fable"), grpc.StatusCode.INVALID_ARGUMENT, ["sufficient_tier"]),
        (report("0" * 32, score=1.5), grpc.StatusCode.INVALID_ARGUMENT, ["score"]),
        (report("0" * 32, reason="a\nb"), grpc.StatusCode.INVALID_ARGUMENT, ["reason"]),
    ],
)
async def test_a_report_that_cannot_stand_gets_a_clear_status(
    tmp_path: Any, request_: Any, code: grpc.StatusCode, field: list[str]
) -> None:
    async with running(tmp_path) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.feedback.ReportOutcome(request_)
        assert caught.value.code() is code
        assert details_of(caught.value)["fields"] == field


async def test_feedback_past_its_window_or_without_a_reply_is_refused(tmp_path: Any) -> None:
    store = {"url": f"sqlite:///{tmp_path}/outcomes.db", "feedback_window_s": 1e-9}
    faults = {"rules": [{"after": 1, "action": {"kind": "status", "status": 400}}]}
    async with running(tmp_path, store=store, faults=faults) as service:
        answered = await service.router.Complete(text_request())
        with pytest.raises(grpc.aio.AioRpcError):
            await service.router.Complete(text_request())
        without_reply = next(one.outcome for one in service.outcomes() if not one.outcome.resolved_tier)
        for request_id in (answered.request_id, without_reply.request_id):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.feedback.ReportOutcome(report(request_id))
            assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_health_tells_the_truth_about_each_part(tmp_path: Any) -> None:
    resilience = {"breaker_failures": 1, "attempts_per_tier": 1}
    faults = {"rules": [{"action": {"kind": "status", "status": 529}}]}
    async with running(tmp_path, resilience=resilience, faults=faults) as service:
        health = health_pb2_grpc.HealthStub(service.channel)

        async def of(name: str) -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest(service=name))).status)

        assert await of("") == SERVING
        assert await of("tierwise.store") == SERVING
        assert await of("tierwise.provider") == SERVING
        assert await of("tierwise.model") == NOT_SERVING  # none was ever published: the static plan serves
        with pytest.raises(grpc.aio.AioRpcError):
            await service.router.Complete(text_request())
        await service.service.health.update()
        assert await of("tierwise.provider") == NOT_SERVING  # every tier's breaker is open
        assert await of("router.v1.RouterService") == NOT_SERVING


async def test_with_all_breakers_open_nothing_is_sent_and_the_caller_knows_when_to_return(tmp_path: Any) -> None:
    resilience = {"breaker_failures": 1, "attempts_per_tier": 1}
    faults = {"rules": [{"action": {"kind": "status", "status": 529}}]}
    async with running(tmp_path, resilience=resilience, faults=faults) as service:
        with pytest.raises(grpc.aio.AioRpcError):
            await service.router.Complete(text_request())
        before = service.upstream_requests
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        details = details_of(caught.value)
        assert details["reason"] == "TIERS_UNAVAILABLE"
        assert 0 < details["retry_s"] <= 36  # 30 s ± 20 %
        assert service.upstream_requests == before
        assert len(service.outcomes()) == 2


async def _services(channel: grpc.aio.Channel) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask() -> Any:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    async for answer in stub.ServerReflectionInfo(ask()):
        return [service.name for service in answer.list_services_response.service]
    return []


async def test_reflection_lists_the_services(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        names = await _services(service.channel)
        assert {"router.v1.RouterService", "router.v1.FeedbackService", "grpc.health.v1.Health"} <= set(names)


async def test_reflection_can_be_switched_off(tmp_path: Any) -> None:
    async with running(tmp_path, server={"listen": "127.0.0.1:0", "reflection": False}) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _services(service.channel)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_reload_changes_policy_without_dropping_the_request_under_way(tmp_path: Any) -> None:
    faults = {"rules": [{"first": 1, "action": {"kind": "slow_headers", "delay_s": 0.3}}]}
    async with running(tmp_path, source=StaticSource("no idea"), faults=faults) as service:
        before = service.service.generation.config
        under_way = service.router.Complete(text_request(workload="triage"))
        await until(lambda: service.emulator.stats()["in_flight"] == 1)
        strict = {"checks": [{"check": "labels", "labels": ["refund"]}], "highest_tier": "sonnet", "explore": 0}
        document = {**before.model_dump(), "workloads": {"triage": strict}}
        service.service.reload(Config.model_validate(document))
        after = await service.router.Complete(text_request(workload="triage"))
        assert [attempt.tier for attempt in after.attempts] == ["haiku", "sonnet"]
        assert not after.accepted
        assert (await under_way).accepted  # finished under the policy that it began with


async def test_a_stop_lets_requests_finish_and_puts_their_outcomes_on_disk(tmp_path: Any) -> None:
    faults = {"rules": [{"action": {"kind": "slow_headers", "delay_s": 0.3}}]}
    async with running(tmp_path, faults=faults) as service:
        under_way = asyncio.ensure_future(service.router.Complete(text_request()))
        await until(lambda: service.emulator.stats()["in_flight"] == 1)
        stopping = asyncio.ensure_future(service.service.stop())
        response = await under_way
        await stopping
        assert [one.outcome.request_id for one in service.outcomes()] == [response.request_id]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request(), timeout=2)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_while_draining_health_says_no_and_requests_are_still_answered(tmp_path: Any) -> None:
    async with running(tmp_path, server={"listen": "127.0.0.1:0", "grace_s": 5, "drain_s": 1.0}) as service:
        health = health_pb2_grpc.HealthStub(service.channel)
        asked = health_pb2.HealthCheckRequest(service="router.v1.RouterService")
        stopping = asyncio.ensure_future(service.service.stop())
        while (await health.Check(asked)).status != health_pb2.HealthCheckResponse.NOT_SERVING:
            pass
        assert (await service.router.Complete(text_request())).accepted
        await stopping
        assert len(service.outcomes()) == 1


async def test_what_comes_in_at_the_very_end_is_refused_in_words(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        service.service.admission.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.router.Complete(text_request())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert details_of(caught.value) == {"reason": "STOPPING", "domain": "tierwise", "retry_s": 0.5, "fields": []}


async def test_retention_is_opt_in_and_enforced(tmp_path: Any) -> None:
    workloads = {"kept": {"retention_days": 1}}
    async with running(tmp_path, source=StaticSource("canary reply"), workloads=workloads) as service:
        await service.router.Complete(text_request("canary prompt", workload="kept"))
        await service.router.Complete(text_request("canary prompt", workload="not-kept"))
        kept, not_kept = sorted(service.outcomes(), key=lambda one: one.outcome.workload)
        assert kept.outcome.retained is not None
        assert "canary prompt" in kept.outcome.retained.prompt_json
        assert "canary reply" in kept.outcome.retained.reply_json
        assert not_kept.outcome.retained is None
        later = kept.outcome.received_at_s + 2 * 86_400
        await service.service.recorder.run(
            lambda store: store.enforce_retention(now_s=later, max_age_s={"kept": 86_400.0})
        )
        assert all(one.outcome.retained is None for one in service.outcomes())
