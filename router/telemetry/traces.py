"""A finished request as spans.

    router.v1.RouterService/Complete   SERVER    the RPC: status, resolving tier, money of the whole request
    └── route                          INTERNAL  the decision and why
        ├── chat <model id>            CLIENT    one attempt: usage, money, or the failure
        │   └── check <name>           INTERNAL  one check: verdict, score, money
        └── chat <model id> ...

    audit                                        INTERNAL  in a trace of its own, linked to the request's root
    └── chat <model id>                          CLIENT    the next tier's reply to the same request

Made once, after the request ended, from the Outcome and its own times; so the chain carries no tracer, and
a request that failed or was cancelled is told as fully as one that went well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TracerProvider,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from fallback.errors import Cancelled, Failure
from fallback.types import Attempt
from router.outcome import Audit, Outcome
from router.telemetry import attributes, safe, semconv, story
from router.telemetry.settings import AuditRun, RpcCall

_REQUEST_ID = re.compile(r"(?!0+\Z)[0-9a-f]{32}\Z")
_NO_CONTEXT = Context()
_w3c = TraceContextTextMapPropagator()
_request_id: ContextVar[str] = ContextVar("tierwise_trace_request_id", default="")


class TraceIds(RandomIdGenerator):
    """Random ids; but a trace that begins here has its request's id: who has the one finds the other."""

    def generate_trace_id(self) -> int:
        """The request id; a random one for an RPC without."""
        request_id = _request_id.get()
        return int(request_id, 16) if _REQUEST_ID.match(request_id) else super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The request id's random half for a request's root, so that an audit can be linked to it; else random."""
        return _root_id(_request_id.get()) or super().generate_span_id()


def _root_id(request_id: str) -> int:
    """The span id of a request's root; 0 where the id is none of ours."""
    return int(request_id[16:], 16) if _REQUEST_ID.match(request_id) else 0


def caller_context(metadata: Mapping[str, str | bytes]) -> Context:
    """The trace context that the caller sent; empty without one."""
    return _w3c.extract({key: value for key, value in metadata.items() if isinstance(value, str)}, _NO_CONTEXT)


def trace_id(metadata: Mapping[str, str | bytes], request_id: str) -> str:
    """The trace id that this request's spans have or would have."""
    parent = get_current_span(caller_context(metadata)).get_span_context()
    return f"{parent.trace_id:032x}" if parent.is_valid else request_id


class Traces:
    """Makes the spans of finished requests."""

    def __init__(self, provider: TracerProvider, providers: Mapping[str, str]) -> None:
        self._tracer = provider.get_tracer("tierwise")
        self._providers = providers

    def record(self, rpc: RpcCall, outcome: Outcome | None) -> None:
        """The spans of one RPC; none where the trace is not sampled."""
        start_ns = safe.nanoseconds(rpc.started_wall_s)
        token = _request_id.set(outcome.request_id if outcome else "")
        root = self._tracer.start_span(
            attributes.rpc_method(rpc.method),
            caller_context(rpc.metadata),
            SpanKind.SERVER,
            attributes.of_rpc(rpc),
            start_time=start_ns,
        )
        _request_id.reset(token)
        if not root.is_recording():
            return
        if outcome is not None:
            kept = story.kept_attempt(outcome)
            root.set_attributes(attributes.of_outcome(outcome, kept))
        below = _end(root, start_ns, rpc.duration_s, error=rpc.status in semconv.SERVER_ERRORS)
        if outcome is not None:
            self._route(below, outcome, kept, start_ns + _wait_ns(rpc, outcome))

    def audit(self, audit: Audit, run: AuditRun) -> None:
        """The spans of one audit, in a trace of its own with a link to the request's: nobody waited for it."""
        start_ns = safe.nanoseconds(run.started_wall_s)
        root = self._tracer.start_span(
            "audit",
            _NO_CONTEXT,
            SpanKind.INTERNAL,
            attributes.of_audit(audit),
            links=_links(run.trace_id, audit.request_id),
            start_time=start_ns,
        )
        if root.is_recording():
            below = _end(root, start_ns, run.duration_s)
            for index, attempt in enumerate(run.attempts):
                self._attempt(below, attempt, index + 1, wasted=False, zero_ns=start_ns)

    def _route(self, above: Context, outcome: Outcome, kept: int, zero_ns: int) -> None:
        about = attributes.of_decision(outcome.decision, outcome.features_version)
        span = self._tracer.start_span("route", above, SpanKind.INTERNAL, about, start_time=zero_ns)
        below = _end(span, zero_ns, outcome.duration_s)
        for index, attempt in enumerate(outcome.attempts):
            self._attempt(below, attempt, index + 1, wasted=index != kept, zero_ns=zero_ns)

    def _attempt(self, above: Context, attempt: Attempt, number: int, *, wasted: bool, zero_ns: int) -> None:
        provider = self._providers.get(attempt.endpoint, semconv.ANTHROPIC)
        about = attributes.of_attempt(attempt, number, wasted=wasted, provider=provider)
        name = f"{semconv.CHAT} {safe.name(attempt.model)}"
        start_ns = zero_ns + safe.nanoseconds(attempt.started_s)
        span = self._tracer.start_span(name, above, SpanKind.CLIENT, about, start_time=start_ns)
        # A caller who goes away is no error of the upstream's: error.type says so, the status stays unset.
        error = isinstance(attempt.result, Failure) and not isinstance(attempt.result, Cancelled)
        below = _end(span, start_ns, attempt.duration_s, error=error)
        for report in attempt.checks:
            about = attributes.of_check(report)
            name = f"check {safe.name(report.check)}"
            start_ns = zero_ns + safe.nanoseconds(max(report.started_s, attempt.started_s))
            span = self._tracer.start_span(name, below, SpanKind.INTERNAL, about, start_time=start_ns)
            _end(span, start_ns, report.duration_s)


def _end(span: Span, start_ns: int, duration_s: float, *, error: bool = False) -> Context:
    """End a span; the context for those below it."""
    if error:
        span.set_status(StatusCode.ERROR)
    span.end(start_ns + safe.nanoseconds(duration_s))
    return set_span_in_context(span, _NO_CONTEXT)


def _links(trace_id: str, request_id: str) -> list[Link]:
    """To the root span of a request; none where that cannot be named."""
    span_id = _root_id(request_id)
    if not span_id or not _REQUEST_ID.match(trace_id):
        return []
    return [Link(SpanContext(int(trace_id, 16), span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)))]


def _wait_ns(rpc: RpcCall, outcome: Outcome) -> int:
    """From the start of the RPC to that of the request, so that the route span lies inside its parent."""
    slack_ns = safe.nanoseconds(rpc.duration_s) - safe.nanoseconds(outcome.duration_s)
    return max(0, min(safe.nanoseconds(outcome.received_at_s - rpc.started_wall_s), slack_ns))
