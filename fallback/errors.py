"""The Failure tree: everything operational that can end an attempt.

    Failure
    ├── Transient                 the same call may work in a moment: retry, then fail over
    │   ├── TimedOut              no answer inside the attempt's time; 504
    │   ├── Overloaded            503, 529: the provider sheds load
    │   ├── RateLimited           429: this endpoint's quota for the tier
    │   ├── ConnectionFailed      refused, reset, cut mid-body, DNS
    │   ├── UpstreamError         408, 409, 500, 501 and unknown statuses outside 400–499
    │   └── MalformedReply        200 whose body is no message
    ├── EndpointUnusable          another endpoint may work, this one will not: fail over, raise an alarm
    │   ├── CredentialsRefused    401, 403
    │   ├── TierNotServed         404: this endpoint does not know the tier's model
    │   └── SpendLimited          a spend or contract limit (402, or 429/400 by error code)
    ├── RequestRefused            400, 413, 422, 431, other 4xx: the request itself; no endpoint will take it
    ├── NotAttempted              nothing was sent: breaker open, budget or time gone
    └── Cancelled                 the caller went away

A Failure never carries upstream text, a prompt or a key: only codes, so that it can be logged.
"""

from __future__ import annotations

from typing import Self

HEDGE_LOST = "hedge_lost"  # Cancelled because the other of two attempts replied first


class Failure(Exception):
    """An operational end of an attempt. Never a verdict, never a label."""

    kind = "failure"

    def __init__(
        self,
        error_type: str = "",
        *,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        upstream_request_id: str = "",
    ) -> None:
        super().__init__(f"{self.kind} ({error_type or self.kind})")
        self.error_type = error_type or self.kind
        self.http_status = http_status
        self.retry_after_s = retry_after_s
        self.upstream_request_id = upstream_request_id

    def bare(self) -> Self:
        """The same Failure without traceback and context, for keeping: those hold the request and the key."""
        return type(self)(
            self.error_type,
            http_status=self.http_status,
            retry_after_s=self.retry_after_s,
            upstream_request_id=self.upstream_request_id,
        )


class Transient(Failure):
    """May work in a moment."""


class TimedOut(Transient):
    """No answer inside the attempt's time."""

    kind = "timeout"


class Overloaded(Transient):
    """The provider sheds load."""

    kind = "overloaded"


class RateLimited(Transient):
    """This endpoint's quota for the tier is used up until it is whole again."""

    kind = "rate_limited"


class ConnectionFailed(Transient):
    """The connection was refused, reset or cut."""

    kind = "connection"


class UpstreamError(Transient):
    """The provider failed on its side."""

    kind = "upstream_error"


class MalformedReply(Transient):
    """A 200 whose body is no message."""

    kind = "malformed_reply"


class EndpointUnusable(Failure):
    """This endpoint will not work until somebody acts; another one may."""


class CredentialsRefused(EndpointUnusable):
    """The key or its permissions were refused."""

    kind = "credentials_refused"


class TierNotServed(EndpointUnusable):
    """The endpoint does not serve the tier's model."""

    kind = "tier_not_served"


class SpendLimited(EndpointUnusable):
    """A spend limit was reached; waiting does not help."""

    kind = "spend_limited"


class RequestRefused(Failure):
    """The provider refused the request itself."""

    kind = "request_refused"


class NotAttempted(Failure):
    """Nothing was sent."""

    kind = "not_attempted"


class Cancelled(Failure):
    """The caller went away while the attempt was under way."""

    kind = "cancelled"
