"""Finished requests as a collector sees them, over both protocols."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest

from router.telemetry import RpcCall, Settings, Telemetry
from tests.support.otlp import OtlpCollector, ReceivedSpan, tree
from tests.telemetry import stories as told

STORIES = told.stories()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"


@pytest.fixture(params=["grpc", "http/protobuf"], scope="module")
def collector(request) -> Iterator[OtlpCollector]:
    with OtlpCollector(request.param) as serving:
        yield serving


@pytest.fixture(autouse=True)
def no_metrics(monkeypatch):
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")


@pytest.fixture
def exported(collector):
    """A function that records and gives what the collector got of it, as a list of spans."""

    def record(outcome, rpc, **settings) -> list[ReceivedSpan]:
        collector.clear()
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, protocol=collector.protocol, **settings))
        if outcome is None:
            telemetry.rpc(rpc)
        else:
            telemetry.record(outcome, rpc)
        assert telemetry.shutdown(10.0)
        return collector.spans

    return record


def named(spans, name) -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name]
    return found


# --- the tree ------------------------------------------------------------------------------------------


def test_the_tree_of_a_request_with_everything_in_it(exported):
    spans = exported(*STORIES["everything at once"])
    # Purpose and trigger tell escalation (for a verdict) from failover (for a failure); only the failure is red.
    assert tree(spans, "tierwise.attempt.purpose", "tierwise.trigger", "tierwise.verdict") == (
        """\
router.v1.RouterService/Complete  SERVER
    route  INTERNAL
        chat claude-haiku-5-5  CLIENT  purpose=first  trigger=none  verdict=reject
            check stop_reason  INTERNAL  verdict=accept
            check labels  INTERNAL  verdict=reject
        chat claude-sonnet-5-5  CLIENT  [ERROR]  purpose=escalation  trigger=verdict
        chat claude-opus-5-5  CLIENT  purpose=failover  trigger=failure  verdict=accept
            check stop_reason  INTERNAL  verdict=accept
            check agreement  INTERNAL  verdict=accept"""
    )


@pytest.mark.parametrize("name", STORIES)
def test_every_request_is_one_whole_tree(exported, name):
    outcome, rpc = STORIES[name]
    spans = exported(outcome, rpc)
    assert len(spans) == 2 + len(outcome.attempts) + sum(len(attempt.checks) for attempt in outcome.attempts)
    assert {span.trace_id for span in spans} == {outcome.request_id}
    assert len({span.span_id for span in spans}) == len(spans)
    (root,) = [span for span in spans if not span.parent_id]
    by_id = {span.span_id: span for span in spans}
    depth = {"SERVER": "", "route": "router.v1.RouterService/Complete", "chat": "route", "check": "chat"}
    for span in spans:
        if span is not root:
            assert by_id[span.parent_id].name.startswith(depth[span.name.split()[0]])
            assert by_id[span.parent_id].start_ns <= span.start_ns
        assert root.start_ns <= span.start_ns <= span.end_ns <= root.end_ns


@pytest.mark.parametrize("name", STORIES)
def test_the_money_of_attempts_and_checks_is_the_money_of_the_root(exported, name):
    outcome, rpc = STORIES[name]
    spans = exported(outcome, rpc)
    root = named(spans, rpc.method)
    parts = [s.attributes["tierwise.cost_usd"] for s in spans if s.name.startswith(("chat ", "check "))]
    assert math.fsum(parts) == pytest.approx(root.attributes["tierwise.cost_usd"], abs=1e-12, rel=0)
    assert root.attributes["tierwise.cost_usd"] == outcome.cost_usd
    attempts = {s.span_id: s for s in spans if s.kind == "CLIENT"}
    wasted_ids = {span_id for span_id, s in attempts.items() if s.attributes["tierwise.wasted"]}
    wasted = [
        s.attributes["tierwise.cost_usd"]
        for s in spans
        if s.span_id in wasted_ids or (s.parent_id in wasted_ids and s.name.startswith("check "))
    ]
    assert math.fsum(wasted) == pytest.approx(root.attributes["tierwise.wasted_usd"], abs=1e-12, rel=0)


# --- attributes, to the letter -------------------------------------------------------------------------


def test_the_attributes_of_each_span(exported):
    spans = exported(*STORIES["misroute"])
    assert named(spans, "router.v1.RouterService/Complete").attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "router.v1.RouterService/Complete",
        "rpc.response.status_code": "OK",
        "tierwise.request_id": told.REQUEST_ID,
        "tierwise.workload": "triage",
        "tierwise.tier": "sonnet",
        "tierwise.accepted": True,
        "tierwise.reasons": [],
        "tierwise.attempts": 2,
        "tierwise.escalated": True,
        "tierwise.misrouted": True,
        "tierwise.cost_usd": 0.000_31 + 0.006_2,
        "tierwise.top_tier_cost_usd": 0.012_4,
        "tierwise.wasted_usd": 0.000_31,
    }
    assert named(spans, "route").attributes == {
        "tierwise.mode": "direct",
        "tierwise.start_tier": "haiku",
        "tierwise.tiers": ["haiku", "sonnet", "opus"],
        "tierwise.reason": "chain from haiku: P(good) 0.71 is below 0.90",
        "tierwise.propensity": 0.95,
        "tierwise.explored": False,
        "tierwise.model_version": "20261123-7f3a",
        "tierwise.features_version": "1",
        "tierwise.probability.haiku": 0.71,
        "tierwise.probability.sonnet": 0.93,
        "tierwise.probability.opus": 0.97,
    }
    assert named(spans, "chat claude-sonnet-5-5").attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-5-5",
        "gen_ai.response.model": "claude-sonnet-5-5",
        "gen_ai.response.id": "msg_sonnet",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 10 + 1 + 2 + 5,
        "gen_ai.usage.output_tokens": 20,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_write.input_tokens": 1 + 2,
        "tierwise.attempt.number": 2,
        "tierwise.attempt.tier": "sonnet",
        "tierwise.attempt.endpoint": "first-party",
        "tierwise.attempt.purpose": "escalation",
        "tierwise.trigger": "verdict",
        "tierwise.result": "reply",
        "tierwise.verdict": "accept",
        "tierwise.cost_usd": 0.006_2,
        "tierwise.wasted": False,
    }
    assert named(spans, "check labels").attributes == {
        "tierwise.check.name": "labels",
        "tierwise.check.version": "1",
        "tierwise.verdict": "reject",
        "tierwise.verdict.reason": "labels:not_a_label",
        "tierwise.cost_usd": 0.0,
    }


def test_a_paid_check_says_its_score_and_its_price(exported):
    judge = named(exported(*STORIES["accepted at once"]), "check judge")
    assert judge.attributes == {
        "tierwise.check.name": "judge",
        "tierwise.check.version": "1",
        "tierwise.verdict": "accept",
        "tierwise.check.score": 0.87,
        "tierwise.check.calls": 1,
        "tierwise.cost_usd": 0.000_9,
    }


def test_what_a_paid_check_overruled_says_so_and_does_not_colour_the_attempt(exported):
    spans = exported(*STORIES["overruled"])
    assert named(spans, "check scorer").attributes["tierwise.check.overruled"] is True
    [attempt] = [span for span in spans if span.name.startswith("chat ")]
    assert attempt.attributes["tierwise.verdict"] == "accept"


def test_a_failure_is_an_error_with_its_type(exported):
    first, second = [span for span in exported(*STORIES["retried"]) if span.kind == "CLIENT"]
    assert first.status == "ERROR"
    assert {
        key: first.attributes.get(key) for key in ("error.type", "http.response.status_code", "anthropic.request.id")
    } == {
        "error.type": "overloaded_error",
        "http.response.status_code": 529,
        "anthropic.request.id": "req_1",
    }
    assert first.attributes["tierwise.result"] == "overloaded"
    assert "gen_ai.usage.input_tokens" not in first.attributes
    assert (second.status, second.attributes["tierwise.trigger"]) == ("UNSET", "failure")
    assert "error.type" not in second.attributes


def test_a_rejected_reply_is_no_error(exported):
    spans = exported(*STORIES["best of the rejected"])
    assert {span.status for span in spans} == {"UNSET"}
    assert named(spans, "router.v1.RouterService/Complete").attributes["tierwise.reasons"] == ["labels:not_a_label"]


@pytest.mark.parametrize(
    ("name", "status", "error"),
    [("outage", "UNAVAILABLE", True), ("nothing tried", "DEADLINE_EXCEEDED", True), ("cancelled", "CANCELLED", False)],
)
def test_a_request_that_failed_is_told_too(exported, name, status, error):
    outcome, rpc = STORIES[name]
    spans = exported(outcome, rpc)
    root = named(spans, rpc.method)
    assert root.attributes["rpc.response.status_code"] == status
    assert (root.status, root.attributes.get("error.type")) == (("ERROR", status) if error else ("UNSET", None))
    assert len([span for span in spans if span.kind == "CLIENT"]) == len(outcome.attempts)


def test_a_caller_who_went_away_is_not_the_upstreams_error(exported):
    (attempt,) = [span for span in exported(*STORIES["cancelled"]) if span.kind == "CLIENT"]
    assert (attempt.status, attempt.attributes["error.type"]) == ("UNSET", "cancelled")


@pytest.mark.parametrize("status", ["INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"])
def test_a_callers_mistake_is_no_error_of_the_servers(exported, status):
    (span,) = exported(None, told.rpc(status))
    assert (span.status, span.attributes["rpc.response.status_code"]) == ("UNSET", status)
    assert "error.type" not in span.attributes


def test_an_rpc_without_an_outcome_is_one_span(exported):
    (span,) = exported(None, told.rpc("INTERNAL", "router.v1.FeedbackService/ReportOutcome"))
    assert (span.name, span.kind, span.status) == ("router.v1.FeedbackService/ReportOutcome", "SERVER", "ERROR")
    assert span.start_ns == int(told.WALL_S * 1e9)
    assert span.end_ns - span.start_ns == 3_010_000_000


def test_another_road_upstream_is_named(exported):
    spans = exported(*STORIES["failed over"], providers={"bedrock-eu": "aws.bedrock"})
    providers = [span.attributes["gen_ai.provider.name"] for span in spans if span.kind == "CLIENT"]
    assert providers == ["anthropic", "aws.bedrock"]


def test_who_speaks(collector, monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=0.1.0")
    telemetry = Telemetry.start(
        Settings(otlp_endpoint=collector.endpoint, protocol=collector.protocol, service_name="eu")
    )
    collector.clear()
    telemetry.rpc(told.rpc())
    assert telemetry.shutdown(10.0)
    (span,) = collector.spans
    assert (span.resource["service.name"], span.resource["service.version"]) == ("eu", "0.1.0")


# --- the caller's context ------------------------------------------------------------------------------


def test_the_trace_goes_on_from_the_callers(exported):
    outcome, _ = STORIES["escalated"]
    # Flags 03 as well as 01: recent callers set the random-id bit, too.
    spans = exported(outcome, told.rpc(traceparent=PARENT + "03", tracestate="vendor=x,other=y"))
    root = named(spans, "router.v1.RouterService/Complete")
    assert {span.trace_id for span in spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert root.parent_id == "b7ad6b7169203331"
    assert {span.trace_state for span in spans} == {"vendor=x,other=y"}
    assert [span.flags & 0x200 != 0 for span in spans] == [True] + [False] * (len(spans) - 1)  # whose parent is remote


def test_a_caller_who_does_not_sample_is_heeded(exported):
    outcome, _ = STORIES["escalated"]
    assert exported(outcome, told.rpc(traceparent=PARENT + "00")) == []


def test_the_callers_sampling_beats_our_share(exported):
    outcome, rpc = STORIES["escalated"]
    assert exported(outcome, rpc, sample_ratio=0.0) == []
    assert len(exported(outcome, told.rpc(traceparent=PARENT + "01"), sample_ratio=0.0)) > 0


def test_our_share_of_traces_is_kept(collector, exported):
    collector.clear()
    telemetry = Telemetry.start(
        Settings(otlp_endpoint=collector.endpoint, protocol=collector.protocol, sample_ratio=0.25)
    )
    for _ in range(800):
        telemetry.rpc(told.rpc())
    assert telemetry.shutdown(10.0)
    assert 100 < len(collector.spans) < 320  # 200 expected; 8 standard deviations each way


def test_the_standard_variables_name_collector_and_sampler(collector, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", collector.protocol)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-env")
    collector.clear()
    telemetry = Telemetry.start(Settings())
    telemetry.rpc(told.rpc())
    assert telemetry.shutdown(10.0)
    assert [span.resource["service.name"] for span in collector.spans] == ["from-env"]
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    telemetry = Telemetry.start(Settings())
    telemetry.rpc(told.rpc())
    assert telemetry.shutdown(10.0)
    assert len(collector.spans) == 1


@pytest.mark.parametrize("bad", ["", "garbage", PARENT + "zz", "00-" + "0" * 32 + "-b7ad6b7169203331-01", b"\x00"])
def test_a_broken_context_starts_a_trace_of_our_own(exported, bad):
    outcome, rpc = STORIES["direct"]
    spans = exported(outcome, RpcCall(rpc.method, "OK", rpc.started_wall_s, 3.1, {"traceparent": bad}))
    assert {span.trace_id for span in spans} == {told.REQUEST_ID}


def test_a_request_without_a_proper_id_has_a_random_trace_id(exported):
    outcome, rpc = STORIES["direct"]
    for odd in ("", "0" * 32, "not hexadecimal", "0192F0C4D1A7000089ABCDEF01234567"):
        (trace,) = {span.trace_id for span in exported(replace(outcome, request_id=odd), rpc)}
        assert len(trace) == 32
        assert trace.strip("0")
        assert trace != odd.lower()


def test_log_lines_can_name_the_trace():
    assert Telemetry.trace_id({"traceparent": PARENT + "01"}, told.REQUEST_ID) == "0af7651916cd43dd8448eb211c80319c"
    assert Telemetry.trace_id({}, told.REQUEST_ID) == told.REQUEST_ID
