"""Sending encoded spans: a bounded queue of whole traces, drained by one daemon thread.

The SDK's batch processor drops single spans, which leaves trees with holes, and its shutdown waits 30 s for a
collector that does not answer. Here a trace is queued and dropped whole, every loss is counted by cause, and
closing is bounded. Retries, TLS, headers and compression stay those of the official exporters.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SpanExportResult

from router.telemetry.settings import Destination

_MAX_BATCH = 512
_log = logging.getLogger(__name__)


class Sender(Protocol):
    """Delivers an encoded ExportTraceServiceRequest; blocks, retries, gives up in its own time."""

    def send(self, request: bytes) -> bool:
        """Whether the collector took it."""

    def shutdown(self) -> None:
        """Abort what is under way and close."""


def sender(destination: Destination) -> Sender:
    """The sender for a destination. The exporters are imported here: half a second, for those who export."""
    return _grpc_sender(destination) if destination.protocol == "grpc" else _http_sender(destination)


def _grpc_sender(destination: Destination) -> Sender:
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    class GrpcSender(OTLPSpanExporter):
        """The official exporter, handed requests that are encoded already."""

        def _translate_data(self, data: Any) -> ExportTraceServiceRequest:
            return ExportTraceServiceRequest.FromString(data)

        def _count_data(self, data: Any) -> int:  # noqa: ARG002
            return 1

        def send(self, request: bytes) -> bool:
            """Whether the collector took it."""
            result: SpanExportResult = self._export(request)  # type: ignore[arg-type]
            return result is SpanExportResult.SUCCESS

    return GrpcSender(endpoint=destination.endpoint)


def _http_sender(destination: Destination) -> Sender:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    class HttpSender(OTLPSpanExporter):
        """The official exporter, handed requests that are encoded already."""

        def send(self, request: bytes) -> bool:
            """Whether the collector took it."""
            return self._client.export(request).success

    return HttpSender(endpoint=destination.endpoint)


class Delivery:
    """Says once when a collector stops taking a signal, and once when it takes it again.

    The exporters say it at every try; the log setup keeps them quiet.
    """

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self._well = True

    def told(self, *, taken: bool) -> None:
        """One export ended."""
        if taken != self._well:
            self._well = taken
            said = "takes %s again" if taken else "does not take %s: they are lost until it does"
            _log.warning("the OTLP collector " + said, self._signal)


@dataclass
class SpanCounts:
    """Spans by what became of them. Written under the queue's lock."""

    exported: int = 0
    failed: int = 0  # the collector did not take them
    dropped: int = 0  # the queue was full, or time was up at shutdown


class TraceQueue:
    """Bounded, never blocks who offers, drops the oldest trace when full."""

    def __init__(
        self, out: Sender, envelope: Callable[[list[bytes]], bytes], *, max_spans: int, delay_s: float
    ) -> None:
        self._out = out
        self._envelope = envelope
        self._max_spans = max_spans
        self._delay_s = delay_s
        self._traces: deque[list[bytes]] = deque()
        self._queued = 0
        self._sending = False
        self._due = False
        self._closing = False
        self._lock = threading.Condition()
        self._delivery = Delivery("spans")
        self.counts = SpanCounts()
        self._worker = threading.Thread(target=self._run, name="tierwise-spans", daemon=True)
        self._worker.start()

    def __len__(self) -> int:
        """Spans waiting."""
        return self._queued

    def offer(self, trace: list[bytes]) -> None:
        """Queue the spans of one trace."""
        with self._lock:
            if self._closing:
                self.counts.dropped += len(trace)
                return
            self._traces.append(trace)
            self._queued += len(trace)
            while self._queued > self._max_spans:
                oldest = self._traces.popleft()
                self._queued -= len(oldest)
                self.counts.dropped += len(oldest)
            # The worker sleeps until a batch is full or due: one wake-up a batch, not one a request.
            if self._queued >= _MAX_BATCH and not self._sending:
                self._lock.notify_all()

    def close(self, timeout_s: float) -> bool:
        """Send what is queued, for at most `timeout_s` seconds; whether all of it went out."""
        with self._lock:
            self._closing = True
            self._lock.notify_all()
        self._worker.join(timeout_s)
        with self._lock:
            unsent = self._queued
            self._traces.clear()
            self._queued = 0
            self.counts.dropped += unsent
        done = not unsent and not self._worker.is_alive()
        self._out.shutdown()
        return done

    def flush(self, timeout_s: float) -> bool:
        """Send what is queued now; whether it went out within `timeout_s` seconds."""
        with self._lock:
            self._due = True
            self._lock.notify_all()
            return self._lock.wait_for(lambda: not self._queued and not self._sending, timeout_s)

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait_for(lambda: self._closing or self._due or self._queued >= _MAX_BATCH, self._delay_s)
                batch = self._take()
                self._due = self._due and bool(self._queued)  # a flush wants every batch now
                self._sending = bool(batch)
                if not batch:
                    self._lock.notify_all()
                    if self._closing:
                        return
            if batch:
                self._send(batch)

    def _take(self) -> list[bytes]:
        batch: list[bytes] = []
        while self._traces and len(batch) < _MAX_BATCH:
            batch += self._traces.popleft()
        self._queued -= len(batch)
        return batch

    def _send(self, batch: list[bytes]) -> None:
        taken = False
        try:
            taken = self._out.send(self._envelope(batch))
        # The edge of this thread: an exporter's fault must not end the exporting.
        except Exception as error:  # noqa: BLE001
            _log.error("spans were not exported: %s", type(error).__name__)
        self._delivery.told(taken=taken)
        with self._lock:
            self._sending = False
            if taken:
                self.counts.exported += len(batch)
            else:
                self.counts.failed += len(batch)
            self._lock.notify_all()
