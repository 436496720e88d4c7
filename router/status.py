"""What a caller is told when there is no reply: gRPC status, ErrorInfo, and RetryInfo where waiting can help."""

from __future__ import annotations

from functools import cached_property

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from fallback.errors import (
    Cancelled,
    CredentialsRefused,
    Failure,
    NotAttempted,
    RateLimited,
    RequestRefused,
    SpendLimited,
    TierNotServed,
    TimedOut,
)
from router.fields import InvalidField

DOMAIN = "tierwise"
_DETAILS_KEY = "grpc-status-details-bin"
# Where nothing says how long to wait, or says at once: long enough not to add to an outage.
_DEFAULT_RETRY_S = 1.0
_MAX_RETRY_S = 86_400.0  # an upstream may say anything


class Refusal(Exception):
    """An answer without a reply. `reason` is ErrorInfo's UPPER_SNAKE code, `retry_s` RetryInfo's delay."""

    def __init__(
        self, code: grpc.StatusCode, reason: str, message: str, retry_s: float | None = None, *, field: str = ""
    ) -> None:
        super().__init__(f"{code.name} {reason}")
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_s = retry_s
        self.field = field

    @cached_property
    def trailers(self) -> tuple[tuple[str, bytes], ...]:
        """The status as gRPC carries it beside code and message."""
        return ((_DETAILS_KEY, self.status.SerializeToString()),)

    @property
    def status(self) -> status_pb2.Status:
        """As google.rpc.Status with its details."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN)
        details: list[any_pb2.Any] = [_packed(info)]
        if self.retry_s is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(min(max(0.0, self.retry_s), _MAX_RETRY_S) * 1e9))
            details.append(_packed(retry))
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
        return status_pb2.Status(code=code_pb2.Code.Value(self.code.name), message=self.message, details=details)


def invalid(error: InvalidField) -> Refusal:
    """INVALID_ARGUMENT naming the field."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", str(error), field=error.field)


def no_reply(failure: Failure, *, time_left_s: float) -> Refusal:
    """What a Failure that ended the chain means to the caller."""
    code = grpc.StatusCode
    wait_s = failure.retry_after_s or _DEFAULT_RETRY_S
    match failure:
        case NotAttempted(error_type="deadline"):
            return Refusal(code.DEADLINE_EXCEEDED, "DEADLINE", "no time left for any tier")
        case NotAttempted(error_type="cost_cap"):
            return Refusal(code.FAILED_PRECONDITION, "COST_CAP", "the cost cap leaves no tier")
        case NotAttempted(error_type=RateLimited.kind) | RateLimited():
            return Refusal(
                code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", "every usable tier is rate limited", wait_s
            )
        case NotAttempted(error_type=SpendLimited.kind) | SpendLimited():
            return Refusal(code.FAILED_PRECONDITION, "UPSTREAM_SPEND_LIMIT", "a spend limit of the account is reached")
        case NotAttempted(error_type=CredentialsRefused.kind) | CredentialsRefused():
            return Refusal(code.FAILED_PRECONDITION, "UPSTREAM_CREDENTIALS", "the service's credentials were refused")
        case NotAttempted(error_type=TierNotServed.kind) | TierNotServed():
            return Refusal(code.FAILED_PRECONDITION, "UPSTREAM_MODEL", "the endpoint does not serve the tier's model")
        case NotAttempted():
            return Refusal(code.UNAVAILABLE, "TIERS_UNAVAILABLE", "every usable tier is failing; not tried", wait_s)
        case Cancelled():
            return Refusal(code.CANCELLED, "CANCELLED", "cancelled by the caller")
        case RequestRefused():
            return Refusal(code.FAILED_PRECONDITION, "UPSTREAM_REFUSED_REQUEST", "the provider refused the request")
        case TimedOut() if time_left_s <= 0.05:
            return Refusal(code.DEADLINE_EXCEEDED, "DEADLINE", "time ran out before any tier replied")
        case _:
            return Refusal(code.UNAVAILABLE, "UPSTREAM_FAILED", f"no tier replied: {failure.kind}", wait_s)


def _packed(
    message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
