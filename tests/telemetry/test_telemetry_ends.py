"""A collector that is dead, silent or slow costs spans; never a request, never the process' exit."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from router.telemetry import Settings, Telemetry
from router.telemetry.export import within
from tests.support.otlp import OtlpCollector, dead_collector, silent_collector
from tests.telemetry import stories as told
from tests.telemetry.test_telemetry_metrics import page

OUTCOME, RPC = told.stories()["escalated"]
SPANS = 2 + 2 + 4
SLACK_S = 1.0  # other tests want the processor, too; the SDK's own shutdown takes 30 s


def test_a_job_that_breaks_at_the_end_is_told_by_its_type_only(caplog):
    def breaks() -> None:
        raise RuntimeError("quoted text")

    assert not within(10.0, [breaks, lambda: None])
    assert [record.message for record in caplog.records] == ["telemetry did not close cleanly: RuntimeError"]


@pytest.mark.parametrize("collector", [dead_collector, silent_collector])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_shutdown_returns_in_time_whatever_the_collector_does(collector, protocol, caplog):
    with collector() as endpoint:
        telemetry = Telemetry.start(Settings(otlp_endpoint=endpoint, protocol=protocol, prometheus_port=0))
        for _ in range(100):
            telemetry.record(OUTCOME, RPC)
        before = time.monotonic()
        assert not telemetry.shutdown(0.3)
        assert time.monotonic() - before < 0.3 + SLACK_S
        assert telemetry.shutdown(0.3)  # there is nothing left to end
        telemetry.record(OUTCOME, RPC)  # a straggler after the end fails nothing
    assert "telemetry: not all was exported in the 0.3 s of shutdown" in caplog.messages


def test_a_full_queue_costs_the_requests_nothing(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "512")
    with silent_collector() as endpoint:
        telemetry = Telemetry.start(Settings(otlp_endpoint=endpoint))
        before = time.monotonic()
        for _ in range(200):
            telemetry.record(OUTCOME, RPC)
        assert time.monotonic() - before < 200 * 0.001 + SLACK_S
        telemetry.shutdown(0.1)


def test_the_sdks_own_metrics_show_spans_exported_and_dropped(monkeypatch):
    monkeypatch.setenv("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with OtlpCollector() as collector, silent_collector() as silent:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, prometheus_port=0))
        telemetry.record(OUTCOME, RPC)
        assert telemetry.flush(10.0)
        assert sum(page(telemetry)["otel_sdk_exporter_span_exported_total"].values()) == SPANS
        assert telemetry.shutdown(10.0)
        telemetry = Telemetry.start(Settings(otlp_endpoint=silent, prometheus_port=0))
        for _ in range(20):
            telemetry.record(OUTCOME, RPC)
        processed = page(telemetry)["otel_sdk_processor_span_processed_total"]
        dropped = sum(count for labels, count in processed.items() if ("error_type", "queue_full") in labels)
        assert dropped >= (20 - 2) * SPANS  # one batch under way and one waiting
        telemetry.shutdown(0.1)


def test_flush_sends_at_once_what_would_wait():
    with OtlpCollector() as collector:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, prometheus_port=0))
        telemetry.record(OUTCOME, RPC)
        assert telemetry.flush(10.0)
        assert len(collector.spans) == SPANS
        assert "tierwise.requests" in collector.metrics
        assert telemetry.shutdown(10.0)


SCRIPT = """
import sys
from router.telemetry import Settings, Telemetry
from tests.telemetry import stories as told
outcome, rpc = told.stories()["escalated"]
telemetry = Telemetry.start(Settings(otlp_endpoint=sys.argv[1], protocol=sys.argv[2], prometheus_port=0))
for _ in range(100):
    telemetry.record(outcome, rpc)
telemetry.shutdown(0.2)
print("down", flush=True)
"""


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_process_ends_while_its_collector_is_silent(protocol, request):
    with silent_collector() as endpoint:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, endpoint, protocol],
            cwd=request.config.rootpath,
            capture_output=True,
            text=True,
            timeout=15,
            check=True,
        )
    assert done.stdout == "down\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("variable", "most"), [(None, 64), ("16", 16)])
def test_spans_go_in_small_batches_so_that_encoding_them_does_not_hold_up_requests(monkeypatch, variable, most):
    if variable:
        monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", variable)
    with OtlpCollector() as collector:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint))
        for _ in range(40):
            telemetry.record(OUTCOME, RPC)
        telemetry.shutdown(10.0)
        assert sum(collector.batches) == 40 * SPANS
        assert max(collector.batches) == most
