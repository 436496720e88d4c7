"""Audits in the running service: real gRPC, the real SDK, the emulator, a store on disk."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.workloads import WORKLOADS, grade
from fallback.emulator.workloads.triage import LABELS
from router.audit import auditor
from router.cli import main
from router.outcome import Audit, AuditMethod, AuditVerdict
from router.rates import false_accept
from router.v1 import feedback_pb2
from tests.service.test_complete import until
from tests.support import fakes
from tests.support.auditing import ByTier, Judging
from tests.support.otlp import OtlpCollector
from tests.support.service import Running, running, text_request
from training.dataset import read_dataset
from training.rows import Source

VERIFIER = {"entry_point": "tests.support.auditing:is_42"}
ALL = {"audit_share": 1.0, "audit_usd_per_day": 100.0}
WRONG = ByTier({}, {"hard": ("haiku",)})  # haiku answers hard prompts wrongly; nothing checks it


def audits(service: Running) -> list[Audit]:
    return [audit for recorded in service.outcomes() for audit in recorded.audits]


async def settled(service: Running, count: int) -> list[Audit]:
    """So many audits, on disk."""
    await until(lambda: len(audits(service)) >= count)
    return audits(service)


def calls_are_accounted_for(service: Running) -> None:
    """Upstream HTTP requests are the attempts in the outcomes and those of audits, exactly."""
    recorded = service.outcomes()
    attempts = [attempt for one in recorded for attempt in one.outcome.attempts]
    asked = sum(report.calls for attempt in attempts for report in attempt.checks)
    audited = sum(audit.attempts for one in recorded for audit in one.audits)
    assert service.upstream_requests == len(attempts) + asked + audited


def workloads(**policy: Any) -> dict[str, Any]:
    return {"workloads": {"w": {**ALL, **policy}}}


# --- what is found ---------------------------------------------------------------------------


async def test_an_audit_verifier_finds_what_the_checks_missed_and_labels_appear(tmp_path: Any) -> None:
    async with running(tmp_path, source=WRONG, **workloads(audit_verifier=VERIFIER)) as service:
        for text in ("easy", "hard", "easy"):
            assert (await service.router.Complete(text_request(text, workload="w"))).tier == "haiku"
        found = await settled(service, 3)
        assert [(a.tier, a.auditor_tier, a.verdict.value, a.auditor_verdict.value) for a in found] == [
            ("haiku", "sonnet", "good", "good"),
            ("haiku", "sonnet", "bad", "good"),
            ("haiku", "sonnet", "good", "good"),
        ]
        assert {(a.method, a.propensity, a.attempts, a.accepted) for a in found} == {
            (AuditMethod.VERIFIER, 1.0, 1, True)
        }
        calls_are_accounted_for(service)
        rows = read_dataset(service.outcomes()).rows
        said = [{tier: (label.good, label.source) for tier, label in row.labels.items()} for row in rows]
        good = (True, Source.AUDIT)
        assert [each["haiku"] for each in said] == [good, (False, Source.AUDIT), good]
        assert [each["sonnet"] for each in said] == [good] * 3
        assert all(set(row.audit_replies) == {"sonnet"} for row in rows)


async def test_without_one_who_knows_the_same_answer_is_good_and_another_is_unknown(tmp_path: Any) -> None:
    async with running(tmp_path, source=WRONG, **workloads()) as service:
        for text in ("easy", "hard"):
            await service.router.Complete(text_request(text, workload="w"))
        found = await settled(service, 2)
        assert [a.verdict for a in found] == [AuditVerdict.GOOD, AuditVerdict.UNKNOWN]
        assert {a.method for a in found} == {AuditMethod.ANSWERS}
        rows = read_dataset(service.outcomes()).rows
        assert all(label.source is Source.VERDICT for row in rows for label in row.labels.values())


JUDGE = {"check": "judge", "tier": "opus", "rubric": "The right number is given."}


async def test_a_judge_says_which_of_two_different_replies_is_better_and_its_calls_are_counted(tmp_path: Any) -> None:
    source = Judging({}, {"hard": ("haiku",), "odd": ("sonnet",)})
    async with running(tmp_path, source=source, **workloads(checks=[JUDGE])) as service:
        for text in ("easy", "hard", "odd"):
            await service.router.Complete(text_request(text, workload="w"))
        found = await settled(service, 3)
        assert [(a.verdict.value, a.attempts) for a in found] == [("good", 1), ("bad", 3), ("good", 3)]
        assert {a.method for a in found} == {AuditMethod.JUDGE}
        calls_are_accounted_for(service)
        labels = [row.labels for row in read_dataset(service.outcomes()).rows]
        assert [(each["haiku"].good, each["haiku"].source) for each in labels] == [
            (True, Source.AUDIT),
            (False, Source.AUDIT),
            (True, Source.AUDIT),
        ]
        assert all(set(each) == {"haiku"} for each in labels)  # what a judge prefers is no truth of the other reply


async def test_a_judge_is_not_asked_where_the_days_money_does_not_reach(tmp_path: Any) -> None:
    asked = fakes.request("hard", workload="w", max_tokens=256, max_tokens_ceiling=256)
    async with running(tmp_path) as service:
        most_usd = service.service.generation.bench.resilience.bound_usd("sonnet", asked, 256)
    policy = workloads(checks=[JUDGE], audit_usd_per_day=most_usd * 1.01)
    async with running(tmp_path, source=Judging({}, {"hard": ("haiku",)}), **policy) as service:
        await service.router.Complete(text_request("hard", workload="w"))
        [audit] = await settled(service, 1)
        assert (audit.verdict, audit.method, audit.attempts) == (AuditVerdict.UNKNOWN, AuditMethod.JUDGE, 1)
        calls_are_accounted_for(service)


async def test_the_highest_tier_is_judged_by_the_verifier_alone_and_not_at_all_without(tmp_path: Any) -> None:
    top = {"start_tier": "opus", **ALL}
    policies = {"known": {**top, "audit_verifier": VERIFIER}, "unknown": top}
    async with running(tmp_path, source=WRONG, workloads=policies) as service:
        for name in policies:
            await service.router.Complete(text_request("easy", workload=name))
        [audit] = await settled(service, 1)
        assert (audit.workload, audit.tier, audit.auditor_tier) == ("known", "opus", "")
        assert (audit.verdict, audit.attempts, audit.cost_usd) == (AuditVerdict.GOOD, 0, 0.0)
        calls_are_accounted_for(service)


async def test_an_escalation_that_changed_nothing_is_noticed_at_no_cost(tmp_path: Any) -> None:
    check = {"check": "verifier", "entry_point": "tests.support.auditing:not_haikus"}
    source = ByTier({"haiku": "It is surely 42", "sonnet": "42", "opus": "42"}, {"hard": ("haiku",)})
    async with running(tmp_path, source=source, **workloads(checks=[check], highest_tier="sonnet")) as service:
        for text in ("easy", "hard"):
            assert (await service.router.Complete(text_request(text, workload="w"))).tier == "sonnet"
        found = await settled(service, 2)
        assert [(a.tier, a.accepted, a.auditor_tier, a.verdict.value) for a in found] == [
            ("haiku", False, "sonnet", "good"),
            ("haiku", False, "sonnet", "unknown"),
        ]
        assert {(a.propensity, a.attempts, a.cost_usd) for a in found} == {(1.0, 0, 0.0)}
        calls_are_accounted_for(service)


# --- who is audited --------------------------------------------------------------------------


async def test_nothing_is_audited_unless_asked_for(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        await service.router.Complete(text_request())
        await service.service.auditor.close(1.0)
        assert audits(service) == []
        assert service.upstream_requests == 1


async def test_what_was_rejected_failed_or_cancelled_is_not_audited(tmp_path: Any) -> None:
    checks = [{"check": "labels", "labels": ["refund"]}]
    faults = {
        "rules": [
            {"model": "haiku", "nth": [2], "action": {"kind": "status", "status": 400}},
            {"model": "haiku", "nth": [3], "action": {"kind": "slow_headers", "delay_s": 30}},
        ]
    }
    async with running(tmp_path, faults=faults, **workloads(checks=checks)) as service:
        rejected = await service.router.Complete(text_request("hello", workload="w"))
        assert not rejected.accepted
        with pytest.raises(grpc.aio.AioRpcError):
            await service.router.Complete(text_request("refuse", workload="w"))
        call = service.router.Complete(text_request("wait", workload="w"))
        await until(lambda: service.emulator.stats()["in_flight"] == 1)
        call.cancel()
        await until(lambda: len(service.outcomes()) == 3)
        await service.service.auditor.close(1.0)
        assert audits(service) == []
        calls_are_accounted_for(service)


async def test_a_replayed_reply_is_audited_once(tmp_path: Any) -> None:
    async with running(tmp_path, **workloads()) as service:
        for _ in range(3):
            await service.router.Complete(text_request(workload="w", idempotency_key="k"))
        assert len(await settled(service, 1)) == 1
        assert service.upstream_requests == 2


# --- never at the cost of a caller -----------------------------------------------------------


async def test_a_reply_does_not_wait_for_its_audit_and_a_stop_keeps_the_account(tmp_path: Any) -> None:
    faults = {"rules": [{"model": "sonnet", "action": {"kind": "slow_headers", "delay_s": 600}}]}
    async with running(tmp_path, faults=faults, **workloads()) as service:
        response = await service.router.Complete(text_request(workload="w"), timeout=20)
        assert response.accepted
        await until(lambda: service.emulator.stats()["in_flight"] == 1)  # the audit, which will not answer
        again = await service.router.Complete(text_request(workload="w"), timeout=20)
        assert response.cost_usd == again.cost_usd == response.attempts[0].cost_usd
        await service.service.auditor.close(0.01)
        found = audits(service)
        assert [(a.verdict, a.method, a.attempts) for a in found] == [
            (AuditVerdict.UNKNOWN, AuditMethod.FAILURE, 1)
        ] * 2
        calls_are_accounted_for(service)


async def test_a_failed_audit_is_tried_once_and_says_nothing(tmp_path: Any) -> None:
    faults = {"rules": [{"model": "sonnet", "action": {"kind": "status", "status": 529}}]}
    async with running(tmp_path, faults=faults, **workloads()) as service:
        await service.router.Complete(text_request(workload="w"))
        [audit] = await settled(service, 1)
        assert (audit.verdict, audit.method, audit.attempts) == (AuditVerdict.UNKNOWN, AuditMethod.FAILURE, 1)
        calls_are_accounted_for(service)


async def test_an_open_breaker_is_left_alone(tmp_path: Any) -> None:
    faults = {"rules": [{"model": "sonnet", "action": {"kind": "status", "status": 529}}]}
    resilience = {"breaker_failures": 1, "backoff_base_s": 0.01}
    async with running(tmp_path, faults=faults, resilience=resilience, **workloads()) as service:
        await service.router.Complete(text_request(workload="w"))
        await settled(service, 1)  # this one opened it
        await service.router.Complete(text_request(workload="w"))
        await service.service.auditor.close(1.0)
        assert len(audits(service)) == 1
        assert service.emulator.stats()["by_model"]["claude-sonnet-5-5"] == 1


async def test_the_days_money_is_never_exceeded_and_a_restart_does_not_forget(tmp_path: Any) -> None:
    asked = fakes.request("easy", workload="w", max_tokens=256, max_tokens_ceiling=256)
    async with running(tmp_path, source=WRONG, **workloads()) as service:
        await service.router.Complete(text_request("easy", workload="w"))
        [first] = await settled(service, 1)
        one_usd, most_usd = first.cost_usd, service.service.generation.bench.resilience.bound_usd("sonnet", asked, 256)
    # Room for the most that one may cost as long as at most three and a half have been paid: four in all.
    policy = workloads(audit_usd_per_day=most_usd + 3.5 * one_usd)
    async with running(tmp_path, source=WRONG, **policy) as service:
        for count in (2, 3, 4):
            await service.router.Complete(text_request("easy", workload="w"))
            await settled(service, count)
        for _ in range(3):
            await service.router.Complete(text_request("easy", workload="w"))
        await service.service.auditor.close(5.0)
        assert [a.cost_usd for a in audits(service)] == [one_usd] * 4
        assert service.service.auditor.budget.spent_usd("w") == pytest.approx(4 * one_usd)


async def test_two_replicas_spend_the_days_money_once(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor, "SPEND_KNOWN_S", 0.0)  # asked before every audit
    asked = fakes.request("easy", workload="w", max_tokens=256, max_tokens_ceiling=256)
    folders = tmp_path / "one", tmp_path / "two"
    for folder in folders:
        folder.mkdir()
    async with running(folders[0], source=WRONG, **workloads()) as service:
        await service.router.Complete(text_request("easy", workload="w"))
        [first] = await settled(service, 1)
        one_usd, most_usd = first.cost_usd, service.service.generation.bench.resilience.bound_usd("sonnet", asked, 256)
    policy = workloads(audit_usd_per_day=most_usd + 3.5 * one_usd)  # four in all, as above
    store = {"url": f"sqlite:///{folders[0]}/outcomes.db", "journal": str(folders[1] / "journal")}
    async with (
        running(folders[0], source=WRONG, **policy) as one,
        running(folders[1], source=WRONG, store=store, **policy) as two,
    ):
        for count, service in ((2, one), (3, two), (4, one)):
            await service.router.Complete(text_request("easy", workload="w"))
            await settled(one, count)
        for service in (one, two, one, two):
            await service.router.Complete(text_request("easy", workload="w"))
        for service in (one, two):
            await service.service.auditor.close(5.0)
        assert [a.cost_usd for a in audits(one)] == [one_usd] * 4


# --- side by side with feedback, statistics and traces ---------------------------------------


async def test_feedback_and_audits_of_the_same_request_stand_side_by_side(tmp_path: Any) -> None:
    async with running(tmp_path, source=WRONG, **workloads(audit_verifier=VERIFIER)) as service:
        response = await service.router.Complete(text_request("hard", workload="w"))
        good = feedback_pb2.ReportOutcomeRequest(request_id=response.request_id, quality=feedback_pb2.QUALITY_GOOD)
        await settled(service, 1)
        for already in (False, True):
            assert (await service.feedback.ReportOutcome(good)).already_reported is already
        [recorded] = service.outcomes()
        assert recorded.feedback is not None
        assert recorded.feedback.good
        assert [a.verdict for a in recorded.audits] == [AuditVerdict.BAD]
        [row] = read_dataset([recorded]).rows
        assert (row.labels["haiku"].good, row.labels["haiku"].source) == (True, Source.FEEDBACK)


async def test_an_audit_has_a_trace_of_its_own_linked_to_the_requests(tmp_path: Any) -> None:
    with OtlpCollector("grpc") as collector:
        telemetry = {"otlp_endpoint": collector.endpoint}
        async with running(tmp_path, source=WRONG, telemetry=telemetry, **workloads()) as service:
            response = await service.router.Complete(text_request("easy", workload="w"))
            [audit] = await settled(service, 1)
            assert await asyncio.to_thread(service.service.telemetry.flush, 10.0)
        [request] = [span for span in collector.spans if span.kind == "SERVER"]
        [root] = [span for span in collector.spans if span.name == "audit"]
        [call] = [span for span in collector.spans if span.name.startswith("chat ") and span.parent_id == root.span_id]
        assert root.links == [(request.trace_id, request.span_id)]
        assert root.trace_id == call.trace_id != request.trace_id
        assert root.attributes["tierwise.audit.cost_usd"] == call.attributes["tierwise.cost_usd"] == audit.cost_usd > 0
        assert request.attributes["tierwise.cost_usd"] == response.cost_usd
        assert root.attributes["tierwise.request_id"] == response.request_id


async def test_the_statistics_say_how_often_an_accepted_reply_was_bad(tmp_path: Any) -> None:
    async with running(tmp_path, source=WRONG, **workloads(audit_verifier=VERIFIER)) as service:
        for text in ("easy", "hard", "easy", "easy"):
            await service.router.Complete(text_request(text, workload="w"))
        found = await settled(service, 4)
        command = ["stats", "--store", service.store_url, "--json"]
        done = await asyncio.to_thread(CliRunner().invoke, main, command)
    [row] = json.loads(done.output)
    rate = row["false_accept"]
    assert (rate["value"], rate["n"], rate["bad"]) == (0.25, 4, 1)
    assert 0 < rate["low"] < 0.25 < rate["high"] < 1
    assert row["audit_cost_usd"] == pytest.approx(sum(audit.cost_usd for audit in found))
    assert row["cost_per_request_usd"] == pytest.approx(sum(one.outcome.cost_usd for one in service.outcomes()) / 4)


async def test_the_rate_is_the_truth_of_simulated_tickets_whose_label_check_misses_wrong_labels(tmp_path: Any) -> None:
    gold = {"entry_point": "fallback.emulator.verifiers:gold"}
    labels = {"check": "labels", "labels": list(LABELS)}
    policies = {"ticket-triage": {**ALL, "checks": [labels], "audit_verifier": gold}}
    cases = [WORKLOADS["ticket-triage"].case(3, index) for index in range(60)]
    async with running(tmp_path, source=SimulatedSource(seed=1), workloads=policies) as service:
        bad = 0
        for case in cases:
            response = await service.router.Complete(text_request(case.prompt, workload=case.workload))
            assert (response.tier, response.accepted) == ("haiku", True)
            bad += not grade(case, response.content[0].text.text)
        await settled(service, 60)
        calls_are_accounted_for(service)
        [stats] = await service.service.recorder.run(lambda store: store.stats())
    rate = false_accept(stats.audits)
    assert (rate.bad, rate.n, rate.undetermined) == (bad, 60, 0)
    assert 0 < bad < 60
    assert rate.low < bad / 60 < rate.high
