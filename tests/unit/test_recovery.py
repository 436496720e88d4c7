"""What follows a Failure, as a pure function of the situation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback import errors
from fallback.recovery import FailOverEndpoint, FailOverTier, GiveUp, RecoverySettings, Retry, Situation, decide
from tests.support.outcomes import FAILURES

SETTINGS = RecoverySettings()


def _now(**changes: object) -> Situation:
    values: dict[str, object] = {
        "attempts_on_tier": 1,
        "time_left_s": 100.0,
        "tier_min_time_s": 0.5,
        "budget_allows": True,
    } | changes
    return Situation(**values)  # type: ignore[arg-type]


def test_the_order_is_endpoint_then_retry_then_tier() -> None:
    failure = errors.Overloaded()
    assert decide(failure, _now(other_endpoint="b", other_tier="t"), SETTINGS, 0.5) == FailOverEndpoint("b")
    assert decide(failure, _now(other_tier="t"), SETTINGS, 0.5) == Retry(0.2)
    assert decide(failure, _now(attempts_on_tier=3, other_endpoint="b", other_tier="t"), SETTINGS, 0.5) == FailOverTier(
        "t"
    )
    assert decide(failure, _now(attempts_on_tier=3), SETTINGS, 0.5) == GiveUp("attempts")


def test_without_budget_for_the_same_endpoint_only_others_are_left() -> None:
    failure = errors.Overloaded(retry_after_s=0.1)
    assert decide(failure, _now(budget_allows=False), SETTINGS, 0.5) == GiveUp("retry_budget")
    assert decide(failure, _now(budget_allows=False, other_endpoint="b"), SETTINGS, 0.5) == FailOverEndpoint("b")
    assert decide(failure, _now(budget_allows=False, other_tier="t"), SETTINGS, 0.5) == FailOverTier("t")


def test_closed_roads_lead_to_a_neighbour_and_only_a_rate_limit_is_waited_for() -> None:
    limited = errors.NotAttempted("rate_limited", retry_after_s=5.0)
    assert decide(limited, _now(other_tier="t"), SETTINGS, 0.0) == FailOverTier("t")
    assert decide(limited, _now(), SETTINGS, 0.0) == Retry(5.0)
    assert decide(limited, _now(), SETTINGS, 0.5) == Retry(5.5), "those who wait are spread"
    assert decide(limited, _now(time_left_s=5.4), SETTINGS, 0.0) == GiveUp("no_alternative")
    opened = errors.NotAttempted("breaker_open", retry_after_s=5.0)
    assert decide(opened, _now(), SETTINGS, 0.0) == GiveUp("no_alternative")
    busy = errors.NotAttempted("rate_limited", retry_after_s=0.0)
    assert decide(busy, _now(), SETTINGS, 0.0) == Retry(0.05), "never at once: it would spin"


@pytest.mark.parametrize("failure", [errors.RequestRefused, errors.Cancelled, errors.Failure])
def test_what_no_call_can_mend_ends_it(failure: type[errors.Failure]) -> None:
    assert decide(failure(), _now(other_endpoint="b", other_tier="t"), SETTINGS, 0.5) == GiveUp("not_recoverable")


@pytest.mark.parametrize("failure", [errors.CredentialsRefused, errors.SpendLimited, errors.NotAttempted])
def test_what_waiting_cannot_mend_is_never_retried(failure: type[errors.Failure]) -> None:
    assert decide(failure(), _now(), SETTINGS, 0.5) == GiveUp("no_alternative")
    assert decide(failure(), _now(other_tier="t"), SETTINGS, 0.5) == FailOverTier("t")
    assert decide(failure(), _now(other_endpoint="b"), SETTINGS, 0.5) == FailOverEndpoint("b")


def test_too_little_time_for_the_tier_leaves_only_another_one() -> None:
    now = _now(time_left_s=0.4, other_endpoint="b")
    assert decide(errors.Overloaded(), now, SETTINGS, 0.5) == GiveUp("deadline")
    assert decide(errors.Overloaded(), _now(time_left_s=0.4, other_tier="t"), SETTINGS, 0.5) == FailOverTier("t")


@pytest.mark.parametrize("wait_s", [0.0, 0.2, 5.0, 99.5])
def test_retry_after_is_waited_exactly_where_it_fits(wait_s: float) -> None:
    for uniform in (0.0, 0.99):
        assert decide(errors.RateLimited(retry_after_s=wait_s), _now(), SETTINGS, uniform) == Retry(wait_s)


@pytest.mark.parametrize("wait_s", [99.6, 120.0, 1e9])
def test_retry_after_that_does_not_fit_is_not_waited(wait_s: float) -> None:
    failure = errors.RateLimited(retry_after_s=wait_s)
    assert decide(failure, _now(), SETTINGS, 0.5) == GiveUp("deadline")
    assert decide(failure, _now(other_tier="t"), SETTINGS, 0.5) == FailOverTier("t")


def test_backoff_doubles_up_to_its_cap_and_is_longer_for_rate_limits() -> None:
    many = RecoverySettings(attempts_per_tier=9)

    def waits(failure: errors.Failure) -> list[float]:
        actions = [decide(failure, _now(attempts_on_tier=n), many, 0.5) for n in range(1, 8)]
        return [action.delay_s for action in actions if isinstance(action, Retry)]

    assert waits(errors.Overloaded()) == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    assert waits(errors.RateLimited()) == pytest.approx([1.0, 2.0, 4.0, 5.0, 5.0, 5.0, 5.0])


@pytest.mark.parametrize(("uniform", "delay_s"), [(0.0, 0.16), (0.5, 0.2), (0.999999, 0.24)])
def test_jitter_spreads_by_a_fifth(uniform: float, delay_s: float) -> None:
    action = decide(errors.Overloaded(), _now(), SETTINGS, uniform)
    assert isinstance(action, Retry)
    assert action.delay_s == pytest.approx(delay_s, abs=1e-6)


@given(
    kind=st.sampled_from(FAILURES),
    retry_after_s=st.none() | st.floats(0, 1e12),
    attempts=st.integers(0, 6),
    time_left_s=st.floats(-10, 1e5),
    least_s=st.floats(0.01, 100),
    allows=st.booleans(),
    endpoint=st.sampled_from(["", "b"]),
    tier=st.sampled_from(["", "t"]),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_it_never_sleeps_past_the_deadline_nor_acts_without_leave(
    *,
    kind: type[errors.Failure],
    retry_after_s: float | None,
    attempts: int,
    time_left_s: float,
    least_s: float,
    allows: bool,
    endpoint: str,
    tier: str,
    uniform: float,
) -> None:
    now = Situation(max(attempts, issubclass(kind, errors.Transient)), time_left_s, least_s, allows, endpoint, tier)
    action = decide(kind(retry_after_s=retry_after_s), now, SETTINGS, uniform)
    if issubclass(kind, errors.RequestRefused | errors.Cancelled):
        assert isinstance(action, GiveUp)
    match action:
        case Retry(delay_s):
            assert allows
            assert issubclass(kind, errors.Transient)
            assert 0 <= delay_s <= time_left_s - least_s
            assert now.attempts_on_tier < SETTINGS.attempts_per_tier
            assert not endpoint
            assert retry_after_s in (None, delay_s)
        case FailOverEndpoint(name):
            assert name == endpoint != ""
            assert time_left_s >= least_s
            assert now.attempts_on_tier < SETTINGS.attempts_per_tier
        case FailOverTier(name):
            assert name == tier != ""
        case GiveUp(why):
            assert why in {"not_recoverable", "retry_budget", "attempts", "deadline", "no_alternative"}
