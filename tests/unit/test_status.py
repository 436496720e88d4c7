"""What a caller is told when there is no reply: code, reason, wait; and nothing of the upstream's words."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2

from fallback import errors
from fallback.errors import Failure
from router.fields import InvalidField
from router.status import DOMAIN, Refusal, invalid, no_reply
from tests.support.outcomes import FAILURES

CODE = grpc.StatusCode


def _detail(refusal: Refusal, kind: Any) -> Any:
    for packed in refusal.status.details:
        assert isinstance(packed, any_pb2.Any)
        if packed.Is(kind.DESCRIPTOR):
            found = kind()
            packed.Unpack(found)
            return found
    return None


def _wait_s(refusal: Refusal) -> float | None:
    retry = _detail(refusal, error_details_pb2.RetryInfo)
    return None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9


@pytest.mark.parametrize(
    ("failure", "code", "reason", "wait_s"),
    [
        (errors.NotAttempted("deadline"), CODE.DEADLINE_EXCEEDED, "DEADLINE", None),
        (errors.NotAttempted("cost_cap"), CODE.FAILED_PRECONDITION, "COST_CAP", None),
        (errors.NotAttempted("breaker_open", retry_after_s=12.5), CODE.UNAVAILABLE, "TIERS_UNAVAILABLE", 12.5),
        (errors.NotAttempted("breaker_open", retry_after_s=0.0), CODE.UNAVAILABLE, "TIERS_UNAVAILABLE", 1.0),
        (errors.Cancelled(), CODE.CANCELLED, "CANCELLED", None),
        (errors.RateLimited(retry_after_s=7.0), CODE.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", 7.0),
        (errors.RateLimited(), CODE.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", 1.0),
        (errors.SpendLimited(), CODE.FAILED_PRECONDITION, "UPSTREAM_SPEND_LIMIT", None),
        (errors.CredentialsRefused(), CODE.FAILED_PRECONDITION, "UPSTREAM_CREDENTIALS", None),
        (errors.TierNotServed(), CODE.FAILED_PRECONDITION, "UPSTREAM_MODEL", None),
        (errors.RequestRefused(), CODE.FAILED_PRECONDITION, "UPSTREAM_REFUSED_REQUEST", None),
        (errors.TimedOut(), CODE.UNAVAILABLE, "UPSTREAM_FAILED", 1.0),
        (errors.Overloaded(retry_after_s=2.0), CODE.UNAVAILABLE, "UPSTREAM_FAILED", 2.0),
        (errors.ConnectionFailed(), CODE.UNAVAILABLE, "UPSTREAM_FAILED", 1.0),
        (errors.UpstreamError(), CODE.UNAVAILABLE, "UPSTREAM_FAILED", 1.0),
        (errors.MalformedReply(), CODE.UNAVAILABLE, "UPSTREAM_FAILED", 1.0),
    ],
)
def test_every_failure_has_its_status(failure: Failure, code: grpc.StatusCode, reason: str, wait_s: float) -> None:
    refusal = no_reply(failure, time_left_s=60.0)
    assert (refusal.code, refusal.reason) == (code, reason)
    assert _wait_s(refusal) == wait_s
    assert refusal.status.code == code.value[0]
    info = _detail(refusal, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, DOMAIN)
    assert _detail(refusal, error_details_pb2.BadRequest) is None


def test_a_timeout_at_the_deadline_is_the_deadlines() -> None:
    refusal = no_reply(errors.TimedOut(), time_left_s=0.04)
    assert (refusal.code, refusal.reason, _wait_s(refusal)) == (CODE.DEADLINE_EXCEEDED, "DEADLINE", None)
    assert no_reply(errors.TimedOut(), time_left_s=0.06).code is CODE.UNAVAILABLE


@pytest.mark.parametrize("wait_s", [1e9, 1e300])
def test_an_upstream_that_says_forever_is_cut_to_a_day(wait_s: float) -> None:
    assert _wait_s(no_reply(errors.Overloaded(retry_after_s=wait_s), time_left_s=1.0)) == 86_400.0


@pytest.mark.parametrize("kind", FAILURES)
def test_no_word_of_the_upstreams_reaches_the_caller(kind: type[Failure]) -> None:
    failure = kind("canary_type", http_status=418, upstream_request_id="canary-id")
    refusal = no_reply(failure, time_left_s=60.0)
    assert "canary" not in str(refusal.status) + str(refusal) + refusal.message


def test_a_wrong_field_is_named_in_the_message_and_in_bad_request() -> None:
    refusal = invalid(InvalidField("prompt.max_tokens", "must be 1 to 128000"))
    assert refusal.code is CODE.INVALID_ARGUMENT
    assert refusal.status.message == "prompt.max_tokens: must be 1 to 128000"
    bad = _detail(refusal, error_details_pb2.BadRequest)
    assert [each.field for each in bad.field_violations] == ["prompt.max_tokens"]
    assert _wait_s(refusal) is None
    assert str(refusal) == "INVALID_ARGUMENT INVALID_FIELD"
