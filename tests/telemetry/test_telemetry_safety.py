"""Canaries in every place that content or secrets could come from; none may reach a span, a metric or a log line."""

from __future__ import annotations

import logging
import urllib.request
from dataclasses import replace

import pytest

from fallback import errors
from fallback.types import Accept, CheckReport, Purpose, Reject, Reply, TextBlock, ToolUseBlock, Unjudged
from router import logs
from router.alarms import Alarm, Stream
from router.outcome import Outcome, RetainedText
from router.telemetry import RpcCall, Settings, Telemetry
from tests.support.otlp import OtlpCollector, dead_collector
from tests.telemetry import stories as told

KEY = "sk-ant-api03-CANARYKEY-0000"
PROMPT = "CANARYPROMPT please summarise"
REPLY = "CANARYREPLY is what it said"
PERSON = "CANARYPERSON@example.org"
FORGED = "CANARYFORGED\r\n\x1b[31m2026-11-23 ERROR forged line"
CANARY = "CANARY"

KINDS = [
    errors.TimedOut, errors.Overloaded, errors.RateLimited, errors.ConnectionFailed, errors.UpstreamError,
    errors.MalformedReply, errors.CredentialsRefused, errors.TierNotServed, errors.SpendLimited,
    errors.RequestRefused, errors.NotAttempted, errors.Cancelled,
]  # fmt: skip


def failing(kind: type[errors.Failure]) -> errors.Failure:
    """A failure as a careless provider could make it: upstream text where a code belongs, and in its cause."""
    failure = kind(f"{PROMPT} {FORGED}", http_status=500, upstream_request_id=f"{REPLY} {KEY}")
    failure.__cause__ = ValueError(f"{PROMPT} {KEY} {FORGED}")
    return failure


def poisoned() -> tuple[Outcome, RpcCall]:
    """An outcome with a canary in everything that a caller, an upstream or a verifier shapes."""
    reply = replace(
        told.reply("haiku"),
        content=(TextBlock(REPLY), ToolUseBlock("id", "tool", {"to": PERSON})),
        model=f"claude {REPLY}",
        upstream_id=f"msg {REPLY}",
    )
    checks = [
        CheckReport(f"check {PROMPT}", f"v {PROMPT}", Accept()),
        CheckReport("labels", "1", Reject(f"not a label: {REPLY}")),
        CheckReport("judge", "1", Unjudged(f"said {REPLY} {FORGED}")),
    ]
    attempts = [told.attempt("haiku", Purpose.FIRST, reply, checks=checks)]
    attempts += [told.attempt("haiku", Purpose.RETRY, failing(kind), at_s=1.0) for kind in KINDS]
    outcome = replace(
        told.outcome(attempts, resolved="haiku", accepted=False),
        workload=f"workload {PROMPT}",
        request_id=f"id {FORGED}",
        reasons=(f"because {REPLY}", FORGED),
        labels={"customer": PERSON},
        retained=RetainedText(PROMPT, REPLY),
        request_features=PROMPT.encode(),
        reply_features=(REPLY.encode(),),
    )
    metadata = {
        "authorization": f"Bearer {KEY}",
        "x-person": PERSON,
        "baggage": f"person={PERSON},note={PROMPT.replace(' ', '%20')}",
        "tracestate": f"{PROMPT};{FORGED}",
        "traceparent": f"00-{PROMPT}",
    }
    return outcome, RpcCall(f"router.v1/{PROMPT}", f"OK {PROMPT}", told.WALL_S, 3.01, metadata)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_no_canary_reaches_a_span_or_a_metric(protocol, captured_logs):
    outcome, rpc = poisoned()
    assert isinstance(outcome.attempts[0].result, Reply)
    with OtlpCollector(protocol) as collector:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, protocol=protocol, prometheus_port=0))
        telemetry.record(outcome, rpc)
        telemetry.rpc(rpc)
        telemetry.feedback(outcome.workload, good=False)
        telemetry.alarm(Alarm(PROMPT, REPLY, Stream.CHECKS, 0.0, PERSON, PROMPT))
        telemetry.watch_queues(lambda: {PROMPT: 1.0})
        telemetry.watch_model(lambda: PROMPT, lambda: False, lambda: None)
        telemetry.watch_breakers(lambda: {(PROMPT, REPLY): PERSON})
        telemetry.watch_recorder(lambda: {PROMPT: 1})
        telemetry.watch_health(lambda: {PERSON: True})

        def broken() -> dict[tuple[str, str, str], float]:
            raise RuntimeError(PROMPT)

        telemetry.watch_drift(broken)
        url = f"http://127.0.0.1:{telemetry.prometheus_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            page = answer.read()
        assert telemetry.shutdown(10.0)
        assert len(collector.spans) == 2 + 1 + 3 + len(KINDS) + 1
        for received in (collector.raw, page, captured_logs.getvalue().encode()):
            assert CANARY.encode() not in received
            assert b"\x1b[" not in received
    assert b"_withheld_" in page


def test_no_canary_reaches_a_log_line_whatever_the_level(captured_logs):
    ours, theirs = logging.getLogger("router.somewhere"), logging.getLogger("anthropic._base_client")
    theirs.setLevel(logging.DEBUG)  # what ANTHROPIC_LOG=debug does on import
    theirs.debug("Request options: %s", {"messages": [{"content": PROMPT}]})
    logging.getLogger("httpx2").info("HTTP Request: POST %s", PROMPT)
    logging.getLogger("aiohttp.client").debug(PROMPT)
    logging.getLogger("sqlalchemy.engine").info("INSERT ... %s", (PROMPT,))
    logging.getLogger("opentelemetry.baggage.propagation").warning("Baggage list-member `%s`", PROMPT)
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task exception=%r>", PROMPT)
    for kind in KINDS:
        try:
            raise failing(kind)
        except errors.Failure:
            ours.exception("attempt failed")
            ours.debug("attempt failed", exc_info=True)
    ours.warning("key %s header %s", KEY, f"Authorization: Bearer {KEY}")
    ours.error("no such tier: %s", "x\r\n\x1b[31mforged")
    lines = captured_logs.getvalue().splitlines()
    assert len(lines) == 1 + 2 * len(KINDS) + 2
    assert not [line for line in lines if CANARY in line or "\x1b" in line]
    assert "[redacted]" in lines[-2]


def test_a_failed_export_says_so_without_saying_what(captured_logs, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    outcome, rpc = poisoned()
    with dead_collector() as endpoint:
        telemetry = Telemetry.start(Settings(otlp_endpoint=endpoint))
        telemetry.record(outcome, rpc)
        telemetry.shutdown(10.0)
    said = captured_logs.getvalue()
    assert "ailed to export" in said
    assert CANARY not in said


@pytest.fixture
def captured_logs(log_stream):
    logs.setup("DEBUG", style="text", stream=log_stream)
    logging.getLogger("opentelemetry").setLevel(logging.DEBUG)  # as if somebody had undone our levels
    return log_stream
