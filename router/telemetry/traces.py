"""A finished request as spans.

    router.v1.RouterService/Complete   SERVER    the RPC: status, resolving tier, money of the whole request
    └── route                          INTERNAL  the decision and why
        ├── chat <model id>            CLIENT    one attempt: usage, money, or the failure
        │   └── check <name>           INTERNAL  one check: verdict, score, money
        └── chat <model id> ...

Built once, after the request ended, from the Outcome and its own times; so the chain carries no tracer, and
a request that failed or was cancelled is told as fully as one that went well. Without a caller's trace the
trace id is the request id: who has the one finds the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from opentelemetry.baggage import get_baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import SpanContext, SpanKind, TraceState, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fallback.errors import Cancelled, Failure
from fallback.types import Attempt
from router.outcome import Outcome
from router.telemetry import attributes, safe, semconv, story, wire
from router.telemetry.settings import RpcCall

Metadata = Mapping[str, str | bytes]

_HEX = frozenset("0123456789abcdef")
_NO_CONTEXT = Context()
_w3c = TraceContextTextMapPropagator()
_w3c_baggage = W3CBaggagePropagator()


def _headers(metadata: Metadata, *names: str) -> dict[str, str]:
    values = ((name, metadata.get(name)) for name in names)
    return {name: value for name, value in values if isinstance(value, str)}


def caller_context(metadata: Metadata) -> Context:
    """The trace context that the caller sent; empty without one."""
    if "traceparent" not in metadata:
        return _NO_CONTEXT
    return _w3c.extract(_headers(metadata, "traceparent", "tracestate"), _NO_CONTEXT)


def _parent(context: Context) -> SpanContext | None:
    parent = get_current_span(context).get_span_context()
    return parent if parent.is_valid else None


def trace_id(context: Context, request_id: str) -> bytes:
    """The caller's trace id; else the request id; else (no request id either) a random one."""
    parent = _parent(context)
    if parent is not None:
        return parent.trace_id.to_bytes(16, "big")
    if len(request_id) == 32 and _HEX.issuperset(request_id) and request_id.strip("0"):
        return bytes.fromhex(request_id)
    return os.urandom(16)


def _state(state: TraceState | None) -> bytes:
    return ",".join(f"{key}={value}" for key, value in state.items()).encode() if state else b""


class TraceBuilder:
    """Makes the spans of finished requests; holds what is the same for all of them."""

    def __init__(self, sampler: Sampler, *, baggage_keys: tuple[str, ...], providers: Mapping[str, str]) -> None:
        self._sampler = sampler
        self._baggage_keys = baggage_keys
        self._providers = providers

    def build(self, rpc: RpcCall, outcome: Outcome | None) -> list[bytes]:
        """The encoded spans of one RPC; none where the trace is not sampled."""
        context = caller_context(rpc.metadata)
        trace = trace_id(context, outcome.request_id if outcome else "")
        name = attributes.rpc_method(rpc.method)
        sampled = self._sampler.should_sample(context, int.from_bytes(trace, "big"), name, SpanKind.SERVER)
        if sampled.decision is not Decision.RECORD_AND_SAMPLE:
            return []
        parent = _parent(context)
        parent_id = parent.span_id.to_bytes(8, "big") if parent else b""
        place = wire.Place(trace, parent_id, _state(sampled.trace_state), remote=parent is not None)
        ids = _SpanIds(outcome)
        root = ids.next()
        start_ns = safe.nanoseconds(rpc.started_wall_s)
        end_ns = start_ns + safe.nanoseconds(rpc.duration_s)
        about = attributes.of_rpc(rpc) + self._baggage(rpc.metadata)
        below: list[bytes] = []
        if outcome is not None:
            kept = story.kept_attempt(outcome)
            about += attributes.of_outcome(outcome, kept)
            below = self._route(place.under(root), ids, outcome, kept, start_ns + _wait_ns(rpc, outcome))
        error = rpc.status in semconv.SERVER_ERRORS
        return [wire.span(place, root, name, wire.SERVER, start_ns, end_ns, about, error=error), *below]

    def _route(self, place: wire.Place, ids: _SpanIds, outcome: Outcome, kept: int, zero_ns: int) -> list[bytes]:
        own = ids.next()
        about = attributes.of_decision(outcome.decision, outcome.features_version)
        end_ns = zero_ns + safe.nanoseconds(outcome.duration_s)
        spans = [wire.span(place, own, "route", wire.INTERNAL, zero_ns, end_ns, about)]
        below = place.under(own)
        for index, attempt in enumerate(outcome.attempts):
            provider = self._providers.get(attempt.endpoint, semconv.ANTHROPIC)
            about = attributes.of_attempt(attempt, index + 1, wasted=index != kept, provider=provider)
            spans += _attempt(below, ids, attempt, about, zero_ns)
        return spans

    def _baggage(self, metadata: Metadata) -> list[bytes]:
        if not self._baggage_keys or "baggage" not in metadata:
            return []
        context = _w3c_baggage.extract(_headers(metadata, "baggage"), _NO_CONTEXT)
        found = ((key, get_baggage(key, context)) for key in self._baggage_keys)
        return [wire.fresh_text(semconv.BAGGAGE + key, safe.ident(str(value))) for key, value in found if value]


class _SpanIds:
    """The random span ids of one trace, drawn at once."""

    def __init__(self, outcome: Outcome | None) -> None:
        attempts = outcome.attempts if outcome else ()
        self._random = os.urandom(8 * (2 + len(attempts) + sum(len(attempt.checks) for attempt in attempts)))
        self._at = 0

    def next(self) -> bytes:
        """An id not given before."""
        self._at += 8
        return self._random[self._at - 8 : self._at]


def _wait_ns(rpc: RpcCall, outcome: Outcome) -> int:
    """From the start of the RPC to that of the request, so that the route span lies inside its parent."""
    slack_ns = safe.nanoseconds(rpc.duration_s) - safe.nanoseconds(outcome.duration_s)
    return max(0, min(safe.nanoseconds(outcome.received_at_s - rpc.started_wall_s), slack_ns))


def _attempt(place: wire.Place, ids: _SpanIds, attempt: Attempt, about: list[bytes], zero_ns: int) -> list[bytes]:
    own = ids.next()
    start_ns = zero_ns + safe.nanoseconds(attempt.started_s)
    end_ns = start_ns + safe.nanoseconds(attempt.duration_s)
    # A caller who goes away is no error of the upstream's: error.type says so, the status stays unset.
    error = isinstance(attempt.result, Failure) and not isinstance(attempt.result, Cancelled)
    name = f"chat {safe.name(attempt.model)}"
    spans = [wire.span(place, own, name, wire.CLIENT, start_ns, end_ns, about, error=error)]
    below = place.under(own)
    for report in attempt.checks:
        start_ns = zero_ns + safe.nanoseconds(story.check_started_s(attempt, report))
        end_ns = start_ns + safe.nanoseconds(report.duration_s)
        name = f"check {safe.name(report.check)}"
        about = attributes.of_check(report)
        spans.append(wire.span(below, ids.next(), name, wire.INTERNAL, start_ns, end_ns, about))
    return spans
