"""The attribute and metric names that we emit, in one place.

The `gen_ai.*` conventions are in development and the `rpc.*` ones a release candidate; the constants of
the installed package are deprecated or still the old names. So the strings are our own: when the
conventions move, this file moves.
"""

from __future__ import annotations

# --- rpc.*: the caller's side of us -------------------------------------------------------------
RPC_SYSTEM = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_STATUS = "rpc.response.status_code"
RPC_SERVER_DURATION = "rpc.server.call.duration"
ERROR_TYPE = "error.type"
HTTP_STATUS = "http.response.status_code"

# On a SERVER span only these are errors: with the others the server did its part and the caller did not.
SERVER_ERRORS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
STATUSES = SERVER_ERRORS | {
    "OK",
    "CANCELLED",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNAUTHENTICATED",
}

# --- gen_ai.*: our calls upstream ---------------------------------------------------------------
GEN_AI_OPERATION = "gen_ai.operation.name"
GEN_AI_PROVIDER = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL = "gen_ai.response.model"
GEN_AI_RESPONSE_ID = "gen_ai.response.id"
GEN_AI_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_INPUT_TOKENS = "gen_ai.usage.input_tokens"  # cached tokens included
GEN_AI_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
GEN_AI_CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - a label, not a secret
GEN_AI_CLIENT_DURATION = "gen_ai.client.operation.duration"
GEN_AI_CLIENT_TOKENS = "gen_ai.client.token.usage"
ANTHROPIC_REQUEST_ID = "anthropic.request.id"
CHAT = "chat"
ANTHROPIC = "anthropic"

# --- tierwise.*: what only we know --------------------------------------------------------------
REQUEST_ID = "tierwise.request_id"
WORKLOAD = "tierwise.workload"
TIER = "tierwise.tier"
MODE = "tierwise.mode"
START_TIER = "tierwise.start_tier"
TIERS = "tierwise.tiers"
REASON = "tierwise.reason"
REASONS = "tierwise.reasons"
PROBABILITY = "tierwise.probability."  # + tier
PROPENSITY = "tierwise.propensity"
EXPLORED = "tierwise.explored"
MODEL_VERSION = "tierwise.model_version"
FEATURES_VERSION = "tierwise.features_version"
ACCEPTED = "tierwise.accepted"
ESCALATED = "tierwise.escalated"
MISROUTED = "tierwise.misrouted"
ATTEMPTS = "tierwise.attempts"
COST = "tierwise.cost_usd"
TOP_TIER_COST = "tierwise.top_tier_cost_usd"
WASTED_COST = "tierwise.wasted_usd"
ATTEMPT_NUMBER = "tierwise.attempt.number"
ATTEMPT_PURPOSE = "tierwise.attempt.purpose"
ATTEMPT_TIER = "tierwise.attempt.tier"
ATTEMPT_ENDPOINT = "tierwise.attempt.endpoint"
TRIGGER = "tierwise.trigger"  # none, failure (resilience) or verdict (cost tiering)
RESULT = "tierwise.result"  # reply, or the failure's kind
WASTED = "tierwise.wasted"
CHECK = "tierwise.check.name"
CHECK_VERSION = "tierwise.check.version"
SCORE = "tierwise.check.score"
VERDICT = "tierwise.verdict"
VERDICT_REASON = "tierwise.verdict.reason"
BAGGAGE = "baggage."  # + key, for the keys that the settings name

# --- the telemetry about the telemetry (OpenTelemetry's own names) ------------------------------
SPANS_PROCESSED = "otel.sdk.processor.span.processed"
SPANS_EXPORTED = "otel.sdk.exporter.span.exported"
SPAN_QUEUE_SIZE = "otel.sdk.processor.span.queue.size"
COMPONENT = "otel.component.type"
QUEUE_FULL = "queue_full"

# Bucket bounds, as the conventions advise them.
GEN_AI_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
GEN_AI_TOKENS = tuple(float(4**power) for power in range(14))
RPC_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
# Ours: a free check takes microseconds, a judge takes seconds.
CHECK_SECONDS = (0.00001, 0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0)
