"""Counters, histograms and gauges that cost little to write to, exported through OpenTelemetry's readers.

A synchronous counter or histogram of the SDK costs 6 to 8 µs a call, and a request makes thirty. Ours are
plain cells: counters and gauges are read by the SDK through observable instruments when somebody looks, and
histograms, which the SDK has no observable form of, join the readers' data as a second producer (what the
specification calls a MetricProducer).
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import time_ns
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    CardinalityLimits,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from prometheus_client import CollectorRegistry

Key = tuple[str, ...]
Read = Callable[[], Mapping[Key, float]]

# Our own bound (workloads folded into `_other_`) is below this; the SDK's default of 2,000 is not.
_LIMITS: CardinalityLimits = {ObservableCounter: 20_000, ObservableGauge: 20_000}


@dataclass(frozen=True, slots=True)
class Spec:
    """An instrument's name, UCUM unit, description and label names."""

    name: str
    unit: str
    description: str
    labels: Key = ()

    def attributes(self, key: Key) -> dict[str, str]:
        """A key's labels; an empty value is an absent label."""
        return {label: value for label, value in zip(self.labels, key, strict=True) if value}


class Counter:
    """A sum that only grows, by label values."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._cells: dict[Key, float] = {}

    def add(self, key: Key, value: float = 1) -> None:
        """Add to one cell."""
        self._cells[key] = self._cells.get(key, 0) + value

    def read(self) -> Mapping[Key, float]:
        """A copy of all cells."""
        return dict(self._cells)


class Histogram:
    """Values sorted into buckets (upper bounds inclusive), by label values."""

    def __init__(self, spec: Spec, bounds: Sequence[float]) -> None:
        self.spec = spec
        self._bounds = bounds
        self._cells: dict[Key, _Cell] = {}

    def record(self, key: Key, value: float) -> None:
        """Sort one value in."""
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = _Cell([0] * (len(self._bounds) + 1))
        cell.counts[bisect_left(self._bounds, value)] += 1
        cell.sum += value
        cell.low = min(cell.low, value)
        cell.high = max(cell.high, value)

    def metric(self, since_ns: int, now_ns: int) -> Metric | None:
        """Everything recorded so far."""
        if not self._cells:
            return None
        points = [
            HistogramDataPoint(
                attributes=self.spec.attributes(key),
                start_time_unix_nano=since_ns,
                time_unix_nano=now_ns,
                count=sum(cell.counts),
                sum=cell.sum,
                bucket_counts=tuple(cell.counts),
                explicit_bounds=tuple(self._bounds),
                min=cell.low,
                max=cell.high,
            )
            for key, cell in self._cells.items()
        ]
        data = HistogramData(data_points=points, aggregation_temporality=AggregationTemporality.CUMULATIVE)
        return Metric(name=self.spec.name, description=self.spec.description, unit=self.spec.unit, data=data)


class _Cell:
    __slots__ = ("counts", "high", "low", "sum")

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.sum = 0.0
        self.low = float("inf")
        self.high = float("-inf")


class Instruments:
    """All instruments of a process, under one lock: held by who writes and by who looks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._counters: list[Counter] = []
        self._histograms: list[Histogram] = []
        self._since_ns = time_ns()

    def counter(self, name: str, unit: str, description: str, labels: Key = ()) -> Counter:
        """A new counter."""
        self._counters.append(made := Counter(Spec(name, unit, description, labels)))
        return made

    def histogram(self, name: str, unit: str, description: str, labels: Key, bounds: Sequence[float]) -> Histogram:
        """A new histogram."""
        self._histograms.append(made := Histogram(Spec(name, unit, description, labels), bounds))
        return made

    def attach(self, meter: Meter) -> None:
        """Let the meter's readers see the counters."""
        for counter in self._counters:
            observe(meter.create_observable_counter, counter.spec, self._locked(counter.read))

    def _locked(self, read: Read) -> Read:
        def reading() -> Mapping[Key, float]:
            with self.lock:
                return read()

        return reading

    def join(self, data: MetricsData) -> MetricsData:
        """What a reader collected, with the histograms."""
        now_ns = time_ns()
        with self.lock:
            metrics = [histogram.metric(self._since_ns, now_ns) for histogram in self._histograms]
        ours = [metric for metric in metrics if metric is not None]
        return MetricsData(resource_metrics=[_with(resource, ours) for resource in data.resource_metrics])


def _with(resource: ResourceMetrics, metrics: list[Metric]) -> ResourceMetrics:
    # Into the scope that is there: of two scopes alike, the exporters keep one.
    first, *others = resource.scope_metrics
    joined = ScopeMetrics(scope=first.scope, metrics=[*first.metrics, *metrics], schema_url=first.schema_url)
    return ResourceMetrics(resource=resource.resource, scope_metrics=[joined, *others], schema_url=resource.schema_url)


def observe(create: Callable[..., object], spec: Spec, read: Read) -> None:
    """Make an observable instrument that is read when somebody looks. `read` runs on the reader's thread."""

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, spec.attributes(key)) for key, value in read().items()]

    create(spec.name, callbacks=[callback], unit=spec.unit, description=spec.description)


class PrometheusReader(PrometheusMetricReader):
    """The Prometheus side, on a registry of its own."""

    def __init__(self, instruments: Instruments, registry: CollectorRegistry) -> None:
        self._instruments = instruments
        super().__init__(scope_info_enabled=False, registry=registry, cardinality_limits=_LIMITS)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._instruments.join(metrics_data), timeout_millis, **kwargs)


class OtlpReader(PeriodicExportingMetricReader):
    """The OTLP side: pushes every `interval_s` seconds."""

    def __init__(self, instruments: Instruments, exporter: MetricExporter, interval_s: float) -> None:
        self._instruments = instruments
        super().__init__(exporter, export_interval_millis=interval_s * 1000, cardinality_limits=_LIMITS)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        super()._receive_metrics(self._instruments.join(metrics_data), timeout_millis, **kwargs)
