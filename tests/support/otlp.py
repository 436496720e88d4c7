"""An OTLP collector on loopback for tests: real gRPC or HTTP, both signals, keeping what it receives.

with OtlpCollector("grpc") as collector:
    ...                                    # export to collector.endpoint, shut the exporter down
    print(tree(collector.spans))
"""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Literal, Self

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | bool | int | float | bytes | list[Any] | None


def value_of(value: AnyValue) -> Value:
    """An attribute's value as a Python value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    found: Value = getattr(value, kind)
    return found


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    """Attributes as a dict."""
    return {pair.key: value_of(pair.value) for pair in pairs}


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as the collector got it. Ids are hex, times nanoseconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    status: str
    trace_state: str
    resource: Mapping[str, Value]
    flags: int
    links: list[tuple[str, str]]  # (trace id, span id)


def _received(resource: Mapping[str, Value], span: trace_pb2.Span) -> ReceivedSpan:
    return ReceivedSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        attributes=attributes_of(span.attributes),
        status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        trace_state=span.trace_state,
        resource=resource,
        flags=span.flags,
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
    )


class OtlpCollector:
    """Serves the trace and metrics export services; thread-safe; a context manager."""

    def __init__(self, protocol: Literal["grpc", "http/protobuf"] = "grpc") -> None:
        self.protocol = protocol
        self._lock = threading.Lock()
        self._spans: list[ReceivedSpan] = []
        self._metrics: dict[str, Metric] = {}
        self._raw: list[bytes] = []
        self._batches: list[int] = []
        self._stop = self._serve_grpc() if protocol == "grpc" else self._serve_http()

    endpoint: str

    def _serve_grpc(self) -> Any:
        server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), server)  # type: ignore[no-untyped-call]
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), server)  # type: ignore[no-untyped-call]
        self.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        return lambda: server.stop(None).wait()

    def _serve_http(self) -> Any:
        collector = self

        class Handler(_HttpHandler):
            target = collector

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{server.server_port}"

        def stop() -> None:
            server.shutdown()
            server.server_close()

        return stop

    def take_traces(self, request: trace_service_pb2.ExportTraceServiceRequest) -> None:
        """Keep an export request's spans."""
        with self._lock:
            before = len(self._spans)
            self._raw.append(request.SerializeToString())
            for resource_spans in request.resource_spans:
                resource = attributes_of(resource_spans.resource.attributes)
                for scope_spans in resource_spans.scope_spans:
                    self._spans += [_received(resource, span) for span in scope_spans.spans]
            self._batches.append(len(self._spans) - before)

    def take_metrics(self, request: metrics_service_pb2.ExportMetricsServiceRequest) -> None:
        """Keep the newest data of each metric."""
        with self._lock:
            self._raw.append(request.SerializeToString())
            for resource_metrics in request.resource_metrics:
                for scope_metrics in resource_metrics.scope_metrics:
                    self._metrics.update({metric.name: metric for metric in scope_metrics.metrics})

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Every span received so far."""
        with self._lock:
            return list(self._spans)

    @property
    def batches(self) -> list[int]:
        """How many spans came at once, export by export."""
        with self._lock:
            return list(self._batches)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The newest data of each metric, by name."""
        with self._lock:
            return dict(self._metrics)

    @property
    def raw(self) -> bytes:
        """Every byte received, for searching."""
        with self._lock:
            return b"\n".join(self._raw)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._spans.clear()
            self._metrics.clear()
            self._raw.clear()

    def close(self) -> None:
        """Stop serving."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: OtlpCollector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:  # noqa: N802
        self._collector.take_traces(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: OtlpCollector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> metrics_service_pb2.ExportMetricsServiceResponse:  # noqa: N802
        self._collector.take_metrics(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: OtlpCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.target.take_traces(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
        elif self.path == "/v1/metrics":
            self.target.take_metrics(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        pass


@contextmanager
def silent_collector() -> Iterator[str]:
    """The endpoint of a collector that accepts connections and never answers."""
    held: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                held.append(listener.accept()[0])
            except OSError:
                return

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread; close alone does not
        accepting.join()
        listener.close()
        for connection in held:
            connection.close()


@contextmanager
def dead_collector() -> Iterator[str]:
    """An endpoint that refuses connections: a port that is bound, so nobody else takes it, but not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def tree(spans: Iterable[ReceivedSpan], *keys: str) -> str:
    """One trace as indented text: name, kind, status and, where present, the attributes `keys` by their last word."""
    known = list(spans)
    ids = {span.span_id for span in known}
    lines: list[str] = []

    def show(span: ReceivedSpan, depth: int) -> None:
        shown = "".join(
            f"  {key.rpartition('.')[2]}={span.attributes[key]!s}" for key in keys if key in span.attributes
        )
        status = "" if span.status == "UNSET" else f"  [{span.status}]"
        lines.append(f"{'    ' * depth}{span.name}  {span.kind}{status}{shown}")
        for child in known:
            if child.parent_id == span.span_id:
                show(child, depth + 1)

    for span in known:
        if span.parent_id not in ids:
            show(span, 0)
    return "\n".join(lines)
