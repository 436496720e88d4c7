"""Which Failure an error of the anthropic SDK is. Never looks at message texts: they may change, and may hold input."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

_BY_STATUS: dict[int, type[Failure]] = {
    400: RequestRefused,
    401: CredentialsRefused,
    402: SpendLimited,
    403: CredentialsRefused,
    404: TierNotServed,
    405: RequestRefused,
    413: RequestRefused,
    422: RequestRefused,
    429: RateLimited,
    431: RequestRefused,
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
    error_type = error.type or f"http_{status}"
    if error.error_code in _SPEND_CODES:
        kind: type[Failure] = SpendLimited
    elif status == 200:
        kind = _BY_TYPE.get(error_type, UpstreamError)
    else:
        kind = _BY_STATUS.get(status, UpstreamError)
    headers = error.response.headers
    return kind(
        error_type,
        http_status=status,
        retry_after_s=retry_after_s(headers, wall_s),
        upstream_request_id=headers.get("request-id", "")[:128],
    )


def failure_in_body(error_type: str) -> Failure:
    """The Failure for an error object that came with HTTP 200."""
    return _BY_TYPE.get(error_type, UpstreamError)(error_type[:64] or "unknown", http_status=200)


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


def _until_date_s(value: str, wall_s: float) -> float:
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - wall_s)
    except (ValueError, OverflowError, TypeError):
        return math.nan
