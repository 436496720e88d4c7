"""Which Failure an error of the anthropic SDK is. Never looks at message texts: they may change, and may hold input."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import anthropic

from fallback.errors import (
    ConnectionFailed,
    CredentialsRefused,
    Failure,
    MalformedReply,
    Overloaded,
    RateLimited,
    RequestRefused,
    SpendLimited,
    TierNotServed,
    TimedOut,
    UpstreamError,
)
from fallback.types import Headroom

_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_BY_STATUS: dict[int, type[Failure]] = {
    400: RequestRefused,
    401: CredentialsRefused,
    402: SpendLimited,
    403: CredentialsRefused,
    404: TierNotServed,
    408: UpstreamError,
    409: UpstreamError,
    429: RateLimited,
    503: Overloaded,
    504: TimedOut,
    529: Overloaded,
}
# An error that arrives inside a 200 has no status of its own.
_BY_TYPE: dict[str, type[Failure]] = {
    "overloaded_error": Overloaded,
    "rate_limit_error": RateLimited,
    "timeout_error": TimedOut,
    "authentication_error": CredentialsRefused,
    "permission_error": CredentialsRefused,
    "billing_error": SpendLimited,
    "not_found_error": TierNotServed,
    "invalid_request_error": RequestRefused,
    "request_too_large": RequestRefused,
}
_TYPE = re.compile(r"[a-z0-9_.-]{1,64}")
# A spend limit may come as 429 without Retry-After, or as 400: waiting helps with neither.
_SPEND_CODES = frozenset(
    {"enforced_spend_limit_reached", "contract_spend_limit_reached", "linked_organization_spend_limit_reached"}
)


def failure_of(error: anthropic.APIError, wall_s: float) -> Failure:
    """The Failure for an SDK error received at wall-clock `wall_s` (for a Retry-After that is a date)."""
    if isinstance(error, anthropic.APITimeoutError):  # a subclass of the connection error: asked first
        return TimedOut("client_timeout_error")
    if isinstance(error, anthropic.APIConnectionError):
        return ConnectionFailed("connection_error")
    if not isinstance(error, anthropic.APIStatusError):
        return MalformedReply("response_validation_error")
    status = error.status_code
    error_type = _code(error.type) if error.type else f"http_{status}"
    if error.error_code in _SPEND_CODES or error_type == "billing_error":
        kind: type[Failure] = SpendLimited
    else:
        kind = _BY_STATUS.get(status, RequestRefused if 400 <= status < 500 else UpstreamError)
    headers = error.response.headers
    wait_s = retry_after_s(headers, wall_s)
    if wait_s is None and kind is RateLimited and (left := headroom(headers, wall_s)) and left.share == 0:
        wait_s = left.resets_in_s
    return kind(
        error_type,
        http_status=status,
        retry_after_s=wait_s,
        upstream_request_id=headers.get("request-id", "")[:128],
    )


def failure_in_body(error_type: object) -> Failure:
    """The Failure for an error object that came with HTTP 200."""
    code = _code(error_type)
    return _BY_TYPE.get(code, UpstreamError)(code, http_status=200)


def _code(error_type: object) -> str:
    """The upstream's error type where it looks like a code; anything else could be text."""
    return error_type if isinstance(error_type, str) and _TYPE.fullmatch(error_type) else "unknown"


def retry_after_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Seconds to wait by `retry-after-ms` or `retry-after` (seconds or a date); None when absent or nonsense."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            seconds = _until_date_s(value, wall_s)
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def headroom(headers: Mapping[str, str], wall_s: float) -> Headroom | None:
    """What the `anthropic-ratelimit-*` headers leave of the scarcest limit; None where they say nothing of use."""
    scarcest, share = "", math.inf
    for name in _LIMITS:
        remaining = headers.get(f"anthropic-ratelimit-{name}-remaining")
        limit = headers.get(f"anthropic-ratelimit-{name}-limit")
        if remaining and limit and remaining.isdecimal() and limit.isdecimal() and int(limit[:18]):
            left = int(remaining[:18]) / int(limit[:18])
            if left < share:
                scarcest, share = name, left
    try:
        reset = datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{scarcest}-reset", ""))
        return Headroom(min(1.0, share), max(0.0, _timestamp(reset) - wall_s))
    except (ValueError, OverflowError):
        return None


def _timestamp(date: datetime) -> float:
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _until_date_s(value: str, wall_s: float) -> float:
    try:
        return max(0.0, _timestamp(parsedate_to_datetime(value)) - wall_s)
    except (ValueError, OverflowError, TypeError):
        return math.nan
