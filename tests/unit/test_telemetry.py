"""The pure parts of telemetry: sanitising, settings, what an outcome says."""

from __future__ import annotations

import math
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from fallback.errors import Failure, Overloaded
from fallback.types import Accept, CheckReport, Purpose, Reject, Unjudged
from router.telemetry import Settings, Telemetry, TelemetryError, safe, story
from router.telemetry.metrics import Metrics
from router.telemetry.traces import Traces
from tests.telemetry import stories as told

STORIES = told.stories()

# --- what may leave ------------------------------------------------------------------------------------


@pytest.mark.parametrize("good", ["overloaded_error", "labels:not_a_label", "schema:$.items[0]", "529", ""])
def test_codes_pass(good):
    assert safe.code(good) == good


@pytest.mark.parametrize(
    "bad", ["Please summarise", "two words", "a\nb", "\x1b[31m", "x" * 129, "KEY", "ключ", "\ud800"]
)
def test_what_is_no_code_is_withheld(bad):
    assert safe.code(bad) == safe.WITHHELD


@pytest.mark.parametrize("bad", ["a b", "a\r\nb", "é", "x" * 129, "-x", "\ud800"])
def test_what_is_no_name_is_withheld(bad):
    assert safe.name(bad) == safe.WITHHELD


def test_words_are_printable_and_bounded():
    assert safe.words("a\r\n\x1b[31mb" + "x" * 1000) == "a?[31mb" + "x" * (300 - 9)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(1.5, 1_500_000_000), (-1.0, 0), (math.nan, 0), (math.inf, 0), (1e30, 4 * 10**18)]
)
def test_times_are_never_negative_and_fit(seconds, expected):
    assert safe.nanoseconds(seconds) == expected


def test_names_beyond_the_limit_share_one_label():
    bounded = safe.Bounded(2)
    assert [bounded(name) for name in ["a", "b", "c", "a", "two words", "d"]] == [
        "a", "b", safe.OTHER, "a", safe.OTHER, safe.OTHER,
    ]  # fmt: skip


# --- settings ------------------------------------------------------------------------------------------


def test_without_an_endpoint_nothing_is_exported():
    assert Settings().destination("traces", {}) is None
    assert Settings(otlp_endpoint="http://c:4317").destination("traces", {"OTEL_SDK_DISABLED": "true"}) is None
    assert Settings(otlp_endpoint="http://c:4317").destination("metrics", {"OTEL_METRICS_EXPORTER": "none"}) is None


def test_the_setting_is_a_base_url_and_beats_the_environment():
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://env:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    grpc = Settings(otlp_endpoint="http://c:4317", protocol="grpc").destination("traces", environ)
    http = Settings(otlp_endpoint="http://c:4318/").destination("metrics", environ)
    assert grpc is not None
    assert (grpc.protocol, grpc.endpoint) == ("grpc", "http://c:4317")
    assert http is not None
    assert (http.protocol, http.endpoint) == ("http/protobuf", "http://c:4318/v1/metrics")


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_the_standard_variables_are_left_to_the_exporter(variable):
    where = Settings().destination("traces", {variable: "http://env:4317"})
    assert where is not None
    assert (where.protocol, where.endpoint) == ("grpc", None)


@pytest.mark.parametrize("endpoint", ["collector:4317", "ftp://c", ""])
def test_an_endpoint_that_is_no_url_is_refused(endpoint):
    with pytest.raises(TelemetryError, match="otlp_endpoint"):
        Settings(otlp_endpoint=endpoint).destination("traces", {})


def test_an_unknown_protocol_is_refused():
    with pytest.raises(TelemetryError, match="expected one of grpc, http/protobuf"):
        Settings(otlp_endpoint="http://c").destination("traces", {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})


@pytest.mark.parametrize("ratio", [-0.1, 1.1, math.nan])
def test_a_share_outside_0_and_1_is_refused(ratio, monkeypatch):
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with pytest.raises(TelemetryError, match="sample_ratio"):
        Telemetry.start(Settings(otlp_endpoint="http://127.0.0.1:1", sample_ratio=ratio))


# --- what an outcome says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("accepted at once", 0), ("escalated", 1), ("retried", 1), ("longer", 1), ("everything at once", 2),
        ("best of the rejected", 1), ("outage", -1), ("cancelled", -1), ("nothing tried", -1),
    ],
)  # fmt: skip
def test_the_attempt_whose_reply_the_caller_got(name, kept):
    assert story.kept_attempt(STORIES[name][0]) == kept


def test_everything_else_was_wasted_with_its_checks():
    outcome = STORIES["everything at once"][0]
    assert story.wasted_usd(outcome, story.kept_attempt(outcome)) == pytest.approx(0.000_31 + 0.001, abs=1e-15)
    assert story.wasted_usd(outcome, -1) == pytest.approx(outcome.cost_usd, abs=1e-15)


def test_resilience_and_cost_tiering_have_different_triggers():
    assert {purpose: story.TRIGGERS[purpose] for purpose in Purpose} == {
        Purpose.FIRST: "none",
        Purpose.RETRY: "failure",
        Purpose.FAILOVER: "failure",
        Purpose.ESCALATION: "verdict",
        Purpose.LONGER: "verdict",
        Purpose.HEDGE: "latency",
    }


@pytest.mark.parametrize(
    ("name", "left"),
    [("escalated", ["haiku"]), ("everything at once", ["haiku"]), ("retried", []), ("failed over", []), ("longer", [])],
)
def test_the_tier_that_an_escalation_left(name, left):
    assert list(story.escalated_from(STORIES[name][0])) == left


# --- nothing here can fail a request -------------------------------------------------------------------

KEPT = InMemorySpanExporter()
PROVIDER = TracerProvider(shutdown_on_exit=False)
PROVIDER.add_span_processor(SimpleSpanProcessor(KEPT))
TRACES = Traces(PROVIDER, {})
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
VERDICTS = st.one_of(st.just(Accept()), st.builds(Reject, st.text()), st.builds(Unjudged, st.text()))
CHECKS = st.builds(CheckReport, st.text(), st.text(), VERDICTS, st.none() | NUMBERS, NUMBERS, NUMBERS, NUMBERS)


@given(
    texts=st.lists(st.text(alphabet=st.characters()), min_size=8, max_size=8),
    numbers=st.lists(NUMBERS, min_size=6, max_size=6),
    checks=st.lists(CHECKS, max_size=3),
    failed=st.booleans(),
    metadata=st.dictionaries(
        st.sampled_from(["traceparent", "tracestate"]), st.text(max_size=80) | st.binary(max_size=20)
    ),
)
def test_whatever_an_outcome_holds_it_is_recorded(texts, numbers, checks, failed, metadata):
    outcome, rpc = STORIES["escalated"]
    result: Failure | None = Overloaded(texts[0], http_status=529, upstream_request_id=texts[1]) if failed else None
    attempts = (
        replace(told.attempt("haiku", Purpose.FIRST, result), tier=texts[2], model=texts[3], endpoint=texts[4]),
        replace(
            outcome.attempts[1], started_s=numbers[0], duration_s=numbers[1], cost_usd=numbers[2], checks=tuple(checks)
        ),
    )
    decision = replace(outcome.decision, reason=texts[5], tiers=(texts[6],), probabilities={texts[6]: numbers[3]})
    strange = replace(
        outcome,
        attempts=attempts,
        decision=decision,
        workload=texts[7],
        request_id=texts[0],
        resolved_tier=texts[2],
        reasons=tuple(texts),
        duration_s=numbers[4],
        received_at_s=numbers[5],
        cost_usd=numbers[2],
        top_tier_cost_usd=numbers[3],
    )
    call = replace(
        rpc, method=texts[1], status=texts[2], started_wall_s=numbers[0], duration_s=numbers[1], metadata=metadata
    )
    KEPT.clear()
    TRACES.record(call, strange)
    spans = KEPT.get_finished_spans()
    assert len(spans) == (4 + len(checks))
    assert encode_spans(spans).SerializeToString()
    metrics = Metrics(NoOpMeterProvider().get_meter("test"), Settings())
    metrics.record(strange, call)
    metrics.rpc(call)
    metrics.feedback(texts[7], good=True)


def test_off_costs_no_thread(monkeypatch):
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    before = threading.active_count()
    telemetry = Telemetry.start(Settings())
    assert telemetry.prometheus_port is None
    telemetry.record(*STORIES["escalated"])
    telemetry.rpc(STORIES["escalated"][1])
    telemetry.feedback("triage", good=True)
    telemetry.watch_model(lambda: "1", lambda: False, lambda: None)
    telemetry.watch_breakers(dict)
    telemetry.watch_recorder(dict)
    assert threading.active_count() == before
    assert telemetry.flush()
    assert telemetry.shutdown()
    assert telemetry.shutdown()
