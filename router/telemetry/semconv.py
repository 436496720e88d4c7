"""OpenTelemetry's own names, as far as we use them, and the buckets that it advises.

The `gen_ai.*` conventions are in development and the `rpc.*` ones a release candidate; the constants of
the installed package are deprecated or still the old names. So the strings are our own: when the
conventions move, this file moves. Names that start with `tierwise.` stand where they are used.
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
GEN_AI_CLIENT_DURATION = "gen_ai.client.operation.duration"
ANTHROPIC_REQUEST_ID = "anthropic.request.id"
CHAT = "chat"
ANTHROPIC = "anthropic"

# --- buckets ------------------------------------------------------------------------------------
GEN_AI_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
RPC_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0)
