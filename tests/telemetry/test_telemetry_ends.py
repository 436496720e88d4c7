"""A collector that is dead, silent or slow costs spans, counted; never a request, never the process' exit."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from router.telemetry import Settings, Telemetry
from router.telemetry.otlp import TraceQueue
from router.telemetry.pipelines import within
from tests.support.otlp import OtlpCollector, dead_collector, silent_collector
from tests.telemetry import stories as told
from tests.telemetry.test_telemetry_metrics import value

OUTCOME, RPC = told.stories()["escalated"]
SPANS = 2 + 2 + 4


class Gate:
    """A sender that waits until it is let go."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()
        self.sent: list[bytes] = []
        self.takes = True

    def send(self, request: bytes) -> bool:
        self.entered.set()
        assert self.open.wait(30)
        self.sent.append(request)
        return self.takes

    def shutdown(self) -> None:
        self.open.set()


def queue(gate: Gate, **options) -> TraceQueue:
    return TraceQueue(gate, b"".join, **({"max_spans": 10, "delay_s": 0.001} | options))


def test_a_full_queue_drops_the_oldest_traces_whole():
    gate = Gate()
    spans = queue(gate)
    spans.offer([b"0"])
    assert gate.entered.wait(30)  # the first batch is under way: what follows has to queue
    for number in range(5):
        spans.offer([b"%da" % number, b"%db" % number, b"%dc" % number])
    assert (len(spans), spans.counts.dropped) == (9, 6)
    gate.open.set()
    assert spans.close(30)
    assert gate.sent == [b"0", b"2a2b2c3a3b3c4a4b4c"]
    assert (spans.counts.exported, spans.counts.failed, spans.counts.dropped) == (10, 0, 6)


def test_spans_that_the_collector_refuses_are_counted():
    gate = Gate()
    gate.takes = False
    gate.open.set()
    spans = queue(gate)
    spans.offer([b"a", b"b"])
    assert spans.flush(30)
    assert (spans.counts.exported, spans.counts.failed) == (0, 2)
    assert spans.close(30)


def test_a_collector_that_stops_taking_spans_is_told_once_and_so_is_its_return(caplog):
    gate = Gate()
    gate.open.set()
    spans = queue(gate)
    for takes in (True, False, False, True, True):
        gate.takes = takes
        spans.offer([b"x"])
        assert spans.flush(30)
    assert spans.close(30)
    assert [record.message for record in caplog.records if record.name.startswith("router.")] == [
        "the OTLP collector does not take spans: they are lost until it does",
        "the OTLP collector takes spans again",
    ]


def test_a_collector_without_metrics_gets_its_spans_and_is_told_of_once(caplog):
    with OtlpCollector("http/protobuf", signals=("traces",)) as collector:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, protocol="http/protobuf"))
        for _ in range(3):
            telemetry.record(OUTCOME, RPC)
            telemetry.flush(10.0)
        telemetry.shutdown(10.0)
        assert len(collector.spans) == 3 * SPANS
    told = [record.message for record in caplog.records if record.name.startswith("router.")]
    assert told.count("the OTLP collector does not take metrics: they are lost until it does") == 1


def test_a_job_that_breaks_at_the_end_is_told_by_its_type_only(caplog):
    def breaks() -> None:
        raise RuntimeError("quoted text")

    assert not within(10.0, [breaks, lambda: None])
    assert [record.message for record in caplog.records] == ["telemetry did not close cleanly: RuntimeError"]


def test_a_sender_that_breaks_does_not_end_the_exporting():
    class Breaking(Gate):
        def send(self, request: bytes) -> bool:
            if request == b"bad":
                raise RuntimeError
            return super().send(request)

    gate = Breaking()
    gate.open.set()
    spans = queue(gate)
    spans.offer([b"bad"])
    assert spans.flush(30)
    spans.offer([b"good"])
    assert spans.flush(30)
    assert (gate.sent, spans.counts.failed) == ([b"good"], 1)
    assert spans.close(30)


def test_closing_does_not_wait_for_a_sender_that_hangs():
    gate = Gate()
    spans = queue(gate)
    spans.offer([b"a"])
    assert gate.entered.wait(30)
    spans.offer([b"b", b"c"])
    assert not spans.close(0.01)
    assert spans.counts.dropped == 2
    spans.offer([b"late"])
    assert spans.counts.dropped == 3


def test_a_large_batch_does_not_wait_for_its_delay():
    gate = Gate()
    gate.open.set()
    spans = queue(gate, max_spans=2000, delay_s=3600)
    for _ in range(64):
        spans.offer([b"x"] * 8)
    assert gate.entered.wait(30)
    assert spans.close(30)
    assert spans.counts.exported == 512


@pytest.mark.parametrize("collector", [dead_collector, silent_collector])
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_shutdown_returns_whatever_the_collector_does(collector, protocol, caplog):
    with collector() as endpoint:
        telemetry = Telemetry.start(Settings(otlp_endpoint=endpoint, protocol=protocol, prometheus_port=0))
        for _ in range(100):
            telemetry.record(OUTCOME, RPC)
        done = threading.Event()

        def close() -> None:
            telemetry.shutdown(0.3)
            done.set()

        threading.Thread(target=close, daemon=True).start()
        assert done.wait(8)  # the SDK's own takes 30 s
        telemetry.record(OUTCOME, RPC)  # a straggler after the end fails nothing


def test_spans_lost_to_a_full_queue_show_as_a_metric():
    with silent_collector() as endpoint:
        telemetry = Telemetry.start(
            Settings(otlp_endpoint=endpoint, signals=("traces",), prometheus_port=0, max_queued_spans=2 * SPANS)
        )
        for _ in range(200):
            telemetry.record(OUTCOME, RPC)
        lost = {"error_type": "queue_full", "otel_component_type": "batching_span_processor"}
        # At most one batch under way and two traces waiting; the rest is gone and says so.
        assert value(telemetry, "otel_sdk_processor_span_processed_total", **lost) >= 200 * SPANS - 512 - 2 * SPANS
        assert value(telemetry, "otel_sdk_processor_span_queue_size") <= 2 * SPANS
        telemetry.shutdown(0.1)


def test_exported_spans_show_as_a_metric():
    with OtlpCollector() as collector:
        telemetry = Telemetry.start(Settings(otlp_endpoint=collector.endpoint, prometheus_port=0))
        telemetry.record(OUTCOME, RPC)
        assert telemetry.flush(10.0)
        assert value(telemetry, "otel_sdk_exporter_span_exported_total", error_type="") == SPANS
        assert telemetry.shutdown(10.0)


def test_flush_sends_at_once_what_would_wait():
    with OtlpCollector() as collector:
        settings = Settings(otlp_endpoint=collector.endpoint, export_delay_s=3600, metric_interval_s=3600)
        telemetry = Telemetry.start(settings)
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
            timeout=60,
            check=True,
        )
    assert done.stdout == "down\n"
    assert "Traceback" not in done.stderr
