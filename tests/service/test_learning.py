"""A model reaches the running service: picked up, used, refused when broken, rolled back; traces tell."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fallback.emulator.static import StaticSource
from router.scoring import RouterModel, Stack
from router.v1 import router_pb2
from tests.service.test_complete import until
from tests.support.otlp import OtlpCollector, tree
from tests.support.service import running, text_prompt, text_request
from tests.support.small_models import small_model, write_model


def publish(models: Path, version: str, model: RouterModel | None = None) -> None:
    """Point `current` at a complete version, as the registry does."""
    directory = models / "versions" / version
    directory.mkdir(parents=True)
    write_model(model or small_model(version), directory)
    pointer = models / "current.new"
    pointer.write_text(version + "\n", encoding="utf-8")
    pointer.replace(models / "current")


async def version_in_use(service: Any) -> str:
    decided = await service.router.Route(router_pb2.RouteRequest(prompt=text_prompt()))
    return str(decided.decision.model_version)


async def test_a_published_model_is_used_within_the_poll_and_no_request_fails(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        models = Path(tmp_path) / "models"
        assert await version_in_use(service) == ""
        stop = asyncio.Event()
        replies: list[Any] = []

        async def caller() -> None:
            while not stop.is_set():
                replies.append(await service.router.Complete(text_request()))

        callers = [asyncio.create_task(caller()) for _ in range(4)]
        for version in ("v1", "v2", "v3"):
            publish(models, version)
            await until(lambda version=version: service.service.models.version == version)
            seen = len(replies)
            await until(lambda seen=seen: len(replies) > seen + 8)
        stop.set()
        await asyncio.gather(*callers)
        assert {reply.decision.model_version for reply in replies} >= {"v1", "v2", "v3"}
        assert all(reply.recorded for reply in replies)
        scored = [v for reply in replies for a in reply.attempts for v in a.verdicts if v.check == "scorer"]
        assert scored
        for reply in replies:  # one version throughout a request
            versions = {v.version for a in reply.attempts for v in a.verdicts if v.check == "scorer"}
            assert versions <= {reply.decision.model_version}


@pytest.mark.parametrize(("margin", "start"), [(0.0, "haiku"), (1.0, "sonnet")])
async def test_a_further_call_has_to_save_what_the_workload_says(tmp_path: Any, margin: float, start: str) -> None:
    small = small_model("v1")
    p_good = np.array([0.3, 0.95, 0.96])  # of haiku, sonnet, opus, whatever is asked
    weights = np.zeros_like(small.stacks[()].weights)
    model = replace(
        small, stacks={(): Stack(weights, np.log(p_good / (1 - p_good)))}, worth={}, caught={"default": 1.0}
    )
    publish(Path(tmp_path) / "models", "v1", model)
    policy = {"explore": 0.0, "mistake_cost_usd": 0.05, "call_margin": margin}
    async with running(tmp_path, workloads={"default": policy}) as service:
        asked = router_pb2.RouteRequest(prompt=text_prompt(), what_if=router_pb2.WhatIf(mistake_cost_usd=0.05))
        response = await service.router.Route(asked)
    assert response.decision.tiers[0] == start
    words = [plan.why_not for plan in response.plans if list(plan.tiers) == ["haiku", "sonnet"]]
    assert any(word.startswith("saves too little for 0.70 calls more") for word in words) == (margin > 0)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "not_there"])
async def test_a_broken_model_is_refused_and_the_one_before_serves_on(tmp_path: Any, damage: str) -> None:
    models = Path(tmp_path) / "models"
    publish(models, "good")
    async with running(tmp_path) as service:
        assert await version_in_use(service) == "good"
        shutil.copytree(models / "versions" / "good", models / "versions" / "bad")
        weights = models / "versions" / "bad" / "weights.npz"
        content = weights.read_bytes()
        if damage == "truncated":
            weights.write_bytes(content[: len(content) // 2])
        elif damage == "flipped":
            weights.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
        elif damage == "missing":
            weights.unlink()
        else:
            shutil.rmtree(models / "versions" / "bad")
        (models / "current").write_text("bad\n", encoding="utf-8")
        await until(lambda: service.service.models.problem != "")
        assert await version_in_use(service) == "good"
        assert (await service.router.Complete(text_request())).decision.model_version == "good"
        (models / "current").write_text("good\n", encoding="utf-8")
        await until(lambda: service.service.models.problem == "")


async def test_the_decision_says_why_and_its_probabilities_add_meaning(tmp_path: Any) -> None:
    publish(Path(tmp_path) / "models", "v1")
    async with running(tmp_path) as service:
        decision = (await service.router.Route(router_pb2.RouteRequest(prompt=text_prompt()))).decision
        assert set(decision.probabilities) == {"haiku", "sonnet", "opus"}
        assert all(0 <= p <= 1 for p in decision.probabilities.values())
        assert f"P({decision.tiers[0]} is good)" in decision.reason or "P(" in decision.reason
        assert np.isclose(decision.propensity, 1.0)


async def test_one_request_is_one_trace_whose_money_adds_up(tmp_path: Any) -> None:
    labels = {"workloads": {"triage": {"checks": [{"check": "labels", "labels": ["refund"]}]}}}
    with OtlpCollector("grpc") as collector:
        telemetry = {"otlp_endpoint": collector.endpoint}
        async with running(tmp_path, source=StaticSource("no idea"), telemetry=telemetry, **labels) as service:
            trace_id = "0af7651916cd43dd8448eb211c80319c"
            metadata = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-01"),)
            response = await service.router.Complete(text_request(workload="triage"), metadata=metadata)
            assert await asyncio.to_thread(service.service.telemetry.flush, 10.0)
        spans = collector.spans
        shape = tree(spans, "tierwise.attempt.purpose")
        assert shape.count("chat claude-") == len(response.attempts) == 3
        assert "route" in shape
        assert shape.count("check labels") == 3
        assert {span.trace_id for span in spans} == {trace_id}
        [root] = [span for span in spans if span.kind == "SERVER"]
        parts = [span.attributes["tierwise.cost_usd"] for span in spans if span.name.startswith(("chat ", "check "))]
        assert root.attributes["tierwise.cost_usd"] == pytest.approx(sum(parts), abs=1e-12)
        assert root.attributes["tierwise.cost_usd"] == pytest.approx(response.cost_usd, abs=1e-12)
