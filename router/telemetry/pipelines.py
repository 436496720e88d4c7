"""The two ways out, each with an end that is reached in bounded time: spans by OTLP, metrics by Prometheus and OTLP."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import monotonic, time
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext
from prometheus_client import CollectorRegistry, start_http_server

from router.telemetry import semconv, wire
from router.telemetry.instruments import Key, OtlpReader, PrometheusReader, Spec, observe
from router.telemetry.metrics import Metrics
from router.telemetry.otlp import Delivery, TraceQueue, sender
from router.telemetry.settings import Destination, Settings, TelemetryError
from router.telemetry.traces import TraceBuilder

_SCOPE = "tierwise"
_log = logging.getLogger(__name__)


def within(timeout_s: float, jobs: Sequence[Callable[[], object]]) -> bool:
    """Run blocking jobs side by side on daemon threads; whether all ended well within `timeout_s` seconds.

    Never returns later: a job that hangs is left behind on a thread that cannot hold the process.
    """
    ended: list[bool] = []

    def run(job: Callable[[], object]) -> None:
        try:
            ended.append(job() is not False)
        except Exception as error:  # noqa: BLE001 - the edge of this thread
            _log.error("telemetry did not close cleanly: %s", type(error).__name__)

    deadline = monotonic() + timeout_s
    threads = [threading.Thread(target=run, args=(job,), name="tierwise-telemetry", daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return len(ended) == len(jobs) and all(ended)


class Traces:
    """Spans: built, queued, exported."""

    def __init__(self, settings: Settings, destination: Destination, resource: Resource) -> None:
        self.builder = TraceBuilder(
            _sampler(settings), baggage_keys=settings.baggage_keys, providers=settings.providers
        )
        # The official encoder makes the envelope, once: a request whose only span is thrown away.
        nothing = ReadableSpan(
            "",
            context=SpanContext(1, 1, is_remote=False),
            resource=resource,
            instrumentation_scope=InstrumentationScope(_SCOPE),
        )
        envelope = encode_spans([nothing]).resource_spans[0]
        resource_bytes = envelope.resource.SerializeToString()
        scope_bytes = envelope.scope_spans[0].scope.SerializeToString()
        self.queue = TraceQueue(
            sender(destination),
            partial(wire.request, resource_bytes, scope_bytes),
            max_spans=settings.max_queued_spans,
            delay_s=settings.export_delay_s,
        )

    def closers(self, timeout_s: float) -> list[Callable[[], object]]:
        """What to run to end it."""
        return [partial(self.queue.close, timeout_s)]


def _sampler(settings: Settings) -> Sampler:
    ratio = settings.sample_ratio
    if ratio is None:
        return TracerProvider(shutdown_on_exit=False).sampler  # the SDK's reading of OTEL_TRACES_SAMPLER
    if not 0.0 <= ratio <= 1.0:
        raise TelemetryError(f"sample_ratio {ratio}: expected a number from 0 to 1")
    return ParentBased(TraceIdRatioBased(ratio))


class Meters:
    """Metrics: counted, and read by whoever is configured to."""

    def __init__(self, settings: Settings, destination: Destination | None, resource: Resource) -> None:
        self.metrics = Metrics(settings)
        instruments = self.metrics.instruments
        registry = CollectorRegistry()
        readers: list[MetricReader] = []
        if settings.prometheus_port is not None:
            readers.append(PrometheusReader(instruments, registry))
        if destination is not None:
            readers.append(OtlpReader(instruments, _exporter(destination), settings.metric_interval_s))
        self._provider = MeterProvider(
            readers, resource=resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
        )
        self._meter: Meter = self._provider.get_meter(_SCOPE)
        instruments.attach(self._meter)
        started_s = time()
        # Readers skip a collection in which nothing was observed: this is always there.
        self.gauge(
            Spec("tierwise.start_time", "s", "When this process started, since the epoch"), lambda: {(): started_s}
        )
        self._server = None
        self.port: int | None = None
        if settings.prometheus_port is not None:
            try:
                self._server, _ = start_http_server(
                    settings.prometheus_port, addr=settings.prometheus_host, registry=registry
                )
            except (OSError, OverflowError) as error:
                where = f"{settings.prometheus_host}:{settings.prometheus_port}"
                raise TelemetryError(f"prometheus endpoint {where}: {error}") from error
            self.port = self._server.server_port

    def watch(self, traces: Traces | None) -> None:
        """Watch the span queue, too."""
        if traces is None:
            return
        queue, name = traces.queue, "batching_span_processor"
        self.sum(
            Spec(semconv.SPANS_PROCESSED, "{span}", "Spans lost in the queue", (semconv.COMPONENT, semconv.ERROR_TYPE)),
            lambda: {(name, semconv.QUEUE_FULL): queue.counts.dropped},
        )
        self.sum(
            Spec(semconv.SPANS_EXPORTED, "{span}", "Spans by result of their export", (semconv.ERROR_TYPE,)),
            lambda: {("",): queue.counts.exported, ("export_failed",): queue.counts.failed},
        )
        self.gauge(Spec(semconv.SPAN_QUEUE_SIZE, "{span}", "Spans waiting for their export"), lambda: {(): len(queue)})

    def gauge(self, spec: Spec, read: Callable[[], Mapping[Key, float]]) -> None:
        """Show what `read` says now."""
        observe(self._meter.create_observable_gauge, spec, read)

    def sum(self, spec: Spec, read: Callable[[], Mapping[Key, float]]) -> None:
        """Show what `read` says as a sum that only grows."""
        observe(self._meter.create_observable_counter, spec, read)

    def flush(self, timeout_s: float) -> bool:
        """Push now."""
        return self._provider.force_flush(timeout_s * 1000)

    def closers(self, timeout_s: float) -> list[Callable[[], object]]:
        """What to run to end it."""
        jobs: list[Callable[[], object]] = [partial(self._provider.shutdown, timeout_s * 1000)]
        if self._server is not None:
            jobs.append(self._close_server)
        return jobs

    def _close_server(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _exporter(destination: Destination) -> MetricExporter:
    # Imported here: half a second, for those who export.
    base: type[MetricExporter]
    if destination.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc  # noqa: PLC0415

        base = Grpc
    else:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http  # noqa: PLC0415

        base = Http
    delivery = Delivery("metrics")  # a Jaeger, say, takes spans only

    class Exporter(base):  # type: ignore[misc, valid-type]
        """The official exporter, which tells how it went."""

        def export(self, *args: Any, **kwargs: Any) -> MetricExportResult:
            result: MetricExportResult = super().export(*args, **kwargs)
            delivery.told(taken=result is MetricExportResult.SUCCESS)
            return result

    made: MetricExporter = Exporter(endpoint=destination.endpoint)
    return made


def resource(settings: Settings, attributes: Mapping[str, str]) -> Resource:
    """Who speaks: the service's name, the given attributes, and OTEL_RESOURCE_ATTRIBUTES."""
    return Resource.create({"service.name": settings.resolved_service_name(os.environ), **attributes})
