"""A tier becomes worse under the running service: alarm, suspension, word to operators; and it lasts over a restart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fallback.emulator.static import StaticSource
from router import watch
from router.cli import main
from router.model import MANIFEST
from router.v1 import router_pb2
from tests.service.test_complete import until
from tests.support.certificates import certificate, certified
from tests.support.service import Running, running, text_prompt, text_request
from tests.support.small_models import small_model, write_model
from training.artifacts import write_certificates

LABELS = {"check": "labels", "labels": ["refund"]}
POLICY = {"checks": [LABELS], "false_accept_max": 0.05, "highest_tier": "sonnet", "mistake_cost_usd": 0.001}
SECTIONS = {"workloads": {"triage": POLICY}, "drift": {"false_alarm_every": 100}}
NOT_SERVING, SERVING = 2, 1


def publish(models: Path, version: str, *, since_s: float = 1_000.0) -> None:
    """A model that thinks well of haiku, with a certificate."""
    directory = models / "versions" / version
    directory.mkdir(parents=True)
    write_model(small_model(version, seed=3), directory)
    haiku = certified(0.0)
    tier = type(haiku)(0.05, haiku.accept, haiku.direct, since_s, since_s + 1.0)
    write_certificates(directory, {"triage": certificate(haiku=tier)}, version=version)
    assert json.loads((directory / MANIFEST).read_text())["certificates"]
    pointer = models / "current.new"
    pointer.write_text(version + "\n", encoding="utf-8")
    pointer.replace(models / "current")


async def explained(service: Running) -> router_pb2.Decision:
    request = router_pb2.RouteRequest(workload="triage", prompt=text_prompt())
    return (await service.router.Route(request)).decision


async def health_of(service: Running, name: str) -> int:
    await service.service.health.update()
    stub = health_pb2_grpc.HealthStub(service.channel)
    return int((await stub.Check(health_pb2.HealthCheckRequest(service=name))).status)


async def worsened(service: Running) -> None:
    """Replies that the workload's check rejects, until haiku is suspended."""
    for _ in range(200):
        await service.router.Complete(text_request(workload="triage"))
        if service.service.watch.drift.suspended("triage", promised=True):
            return
    pytest.fail("no alarm")


async def test_a_tier_that_became_worse_is_suspended_and_everybody_is_told(tmp_path: Any) -> None:
    publish(Path(tmp_path) / "models", "v1")
    async with running(tmp_path, source=StaticSource("no idea"), **SECTIONS) as service:
        before = await explained(service)
        assert before.tiers[0] == "haiku"
        assert "haiku certified from P(good) 0.00" in before.reason
        assert await health_of(service, "tierwise.drift") == SERVING
        await worsened(service)
        after = await explained(service)
        assert list(after.tiers) == ["sonnet"]
        assert "haiku suspended: checks reject replies more often than the model believes" in after.reason
        assert await health_of(service, "tierwise.drift") == NOT_SERVING
        assert await health_of(service, "router.v1.RouterService") == SERVING
        await until(lambda: bool(service.service.store.alarms()))
        listed = CliRunner().invoke(main, ["stats", "--store", service.store_url])
        assert listed.exit_code == 0
        assert "alarm: haiku in triage since" in listed.output
        found = json.loads(CliRunner().invoke(main, ["stats", "--store", service.store_url, "--json"]).output)
        [row] = [row for row in found if row["workload"] == "triage"]
        assert [(alarm["tier"], alarm["stream"]) for alarm in row["alarms"]] == [("haiku", "checks")]


async def test_a_suspension_reaches_the_other_replicas_and_so_does_its_end(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FOLLOW_S", 0.05)
    folders = Path(tmp_path) / "one", Path(tmp_path) / "two"
    for folder in folders:
        publish(folder / "models", "v1")
    store = {"url": f"sqlite:///{folders[0]}/outcomes.db", "journal": str(folders[1] / "journal")}
    async with (
        running(folders[0], source=StaticSource("no idea"), **SECTIONS) as one,
        running(folders[1], source=StaticSource("refund"), store=store, **SECTIONS) as two,
    ):
        assert (await explained(two)).tiers[0] == "haiku"
        await worsened(one)
        await until(lambda: bool(two.service.watch.drift.alarms()))
        assert list((await explained(two)).tiers) == ["sonnet"]
        assert await health_of(two, "tierwise.drift") == NOT_SERVING
        [alarm] = one.service.watch.drift.alarms()
        publish(folders[0] / "models", "v2", since_s=alarm.at_s + 1.0)  # answers it where the first one looks
        await until(lambda: one.service.models.version == "v2")
        await explained(one)
        await until(lambda: two.service.watch.calm)
        assert (await explained(two)).tiers[0] == "haiku"
        assert {each.cleared for each in one.service.store.alarms()} == {False, True}
        assert len(one.service.store.alarms()) == 2  # nobody says twice what another said


async def test_a_suspension_outlasts_a_restart_and_ends_with_a_certificate_made_of_newer_outcomes(
    tmp_path: Any,
) -> None:
    models = Path(tmp_path) / "models"
    publish(models, "v1")
    async with running(tmp_path, source=StaticSource("no idea"), **SECTIONS) as service:
        await worsened(service)
        await until(lambda: bool(service.service.store.alarms()))
    async with running(tmp_path, source=StaticSource("refund"), **SECTIONS) as service:
        assert list((await explained(service)).tiers) == ["sonnet"]
        [alarm] = service.service.watch.drift.alarms()
        publish(models, "v2", since_s=alarm.at_s - 1.0)
        await until(lambda: service.service.models.version == "v2")
        assert list((await explained(service)).tiers) == ["sonnet"]  # its evidence is from before
        publish(models, "v3", since_s=alarm.at_s + 1.0)
        await until(lambda: service.service.models.version == "v3")
        assert (await explained(service)).tiers[0] == "haiku"
        await until(lambda: len(service.service.store.alarms()) == 2)
        listed = CliRunner().invoke(main, ["stats", "--store", service.store_url])
        assert "alarm:" not in listed.output


async def test_bad_feedback_on_accepted_replies_suspends_too(tmp_path: Any) -> None:
    from router.v1 import feedback_pb2

    publish(Path(tmp_path) / "models", "v1")
    async with running(tmp_path, source=StaticSource("refund"), **SECTIONS) as service:
        for _ in range(400):
            reply = await service.router.Complete(text_request(workload="triage"))
            if reply.tier != "haiku" or service.service.watch.drift.suspended("triage", promised=True):
                break
            await service.feedback.ReportOutcome(
                feedback_pb2.ReportOutcomeRequest(request_id=reply.request_id, quality=feedback_pb2.QUALITY_BAD)
            )
        [alarm] = service.service.watch.drift.alarms()
        assert (alarm.workload, alarm.tier) == ("triage", "haiku")
        assert alarm.stream in ("truth", "doubt")
