"""Budgets and breakers together: who counts, who shares, and that no permit leaks."""

from __future__ import annotations

import pytest

from fallback import errors
from fallback.breaker import BreakerSettings, State
from fallback.guards import Guards, GuardSettings
from fallback.providers import Endpoint
from tests.support.fakes import FakeClock, ScriptedProvider, reply

COUNTED = (
    errors.TimedOut,
    errors.Overloaded,
    errors.RateLimited,
    errors.ConnectionFailed,
    errors.UpstreamError,
    errors.MalformedReply,
    errors.CredentialsRefused,
    errors.TierNotServed,
    errors.SpendLimited,
)
IGNORED = (errors.RequestRefused, errors.NotAttempted, errors.Cancelled)


def _guards(clock: FakeClock, *, provider: int = 1_000, own: int = 1) -> Guards:
    return Guards(
        GuardSettings(
            endpoint=BreakerSettings(own, own, jitter=0.0), provider=BreakerSettings(provider, provider, jitter=0.0)
        ),
        clock,
        lambda: 0.5,
    )


@pytest.fixture
def road(clock: FakeClock) -> Endpoint:
    return Endpoint("main", ScriptedProvider(clock, [reply()]), "acme")


@pytest.mark.parametrize("failure", COUNTED)
def test_what_another_call_could_mend_costs_a_token_and_counts_against_health(
    clock: FakeClock, road: Endpoint, failure: type[errors.Failure]
) -> None:
    guards = _guards(clock)
    guards.permit(road, "haiku").failed(failure())  # type: ignore[union-attr]
    assert guards.budget(road).tokens == 99.0
    assert guards.states() == {("acme", ""): State.CLOSED, ("main", "haiku"): State.OPEN}


@pytest.mark.parametrize("failure", IGNORED)
def test_the_requests_own_fault_and_a_cancel_cost_nothing(
    clock: FakeClock, road: Endpoint, failure: type[errors.Failure]
) -> None:
    guards = _guards(clock)
    for _ in range(50):
        guards.permit(road, "haiku").failed(failure())  # type: ignore[union-attr]
    assert guards.budget(road).tokens == 100.0
    assert set(guards.states().values()) == {State.CLOSED}


def test_a_reply_pays_the_ratio_back_whatever_the_checks_will_say(clock: FakeClock, road: Endpoint) -> None:
    guards = _guards(clock, own=100)
    guards.permit(road, "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    guards.permit(road, "haiku").replied()  # type: ignore[union-attr]
    assert guards.budget(road).tokens == 99.25


def test_breakers_are_apart_by_endpoint_and_tier_and_budgets_by_provider(clock: FakeClock, road: Endpoint) -> None:
    guards = _guards(clock)
    sibling = Endpoint("spare", road.provider, "acme")
    foreign = Endpoint("other", road.provider, "elsewhere")
    guards.permit(road, "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    assert guards.permit(road, "haiku") is None
    assert guards.permit(road, "sonnet") is not None
    assert guards.permit(sibling, "haiku") is not None
    assert guards.budget(sibling).tokens == 99.0
    assert guards.budget(foreign).tokens == 100.0


def test_the_provider_breaker_opens_when_tiers_fail_together_and_closes_all_of_its_roads(
    clock: FakeClock, road: Endpoint
) -> None:
    guards = _guards(clock, provider=4, own=3)
    sibling = Endpoint("spare", road.provider, "acme")
    for endpoint, tier in ((road, "haiku"), (road, "sonnet"), (sibling, "haiku"), (sibling, "sonnet")):
        guards.permit(endpoint, tier).failed(errors.Overloaded())  # type: ignore[union-attr]
    assert guards.permit(road, "opus") is None
    assert guards.retry_after_s([sibling], "opus") == pytest.approx(30.0)
    assert guards.permit(Endpoint("other", road.provider, "elsewhere"), "opus") is not None


def test_a_refusal_by_the_endpoints_breaker_gives_the_providers_probe_back(clock: FakeClock, road: Endpoint) -> None:
    guards = _guards(clock, provider=2, own=2)
    for _ in range(2):
        guards.permit(road, "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    clock.advance(30.0)
    probes = [guards.permit(road, "haiku"), guards.permit(road, "haiku")]
    assert all(probes)
    assert guards.permit(road, "haiku") is None
    for probe in probes:
        probe.failed(errors.Cancelled())  # type: ignore[union-attr]
    probes = [guards.permit(road, "haiku"), guards.permit(road, "haiku")]
    assert all(probes), "both breakers have both places again"
    for probe in probes:
        probe.replied()  # type: ignore[union-attr]
    assert set(guards.states().values()) == {State.CLOSED}


def test_a_hundred_refusals_take_no_place_of_the_provider(clock: FakeClock, road: Endpoint) -> None:
    own, provider = BreakerSettings(1, 1, open_s=60.0, jitter=0.0), BreakerSettings(1, 1, open_s=30.0, jitter=0.0)
    guards = Guards(GuardSettings(endpoint=own, provider=provider), clock, lambda: 0.5)
    guards.permit(road, "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    clock.advance(31.0)  # the provider is half-open, haiku's own breaker still open
    assert [guards.permit(road, "haiku") for _ in range(100)] == [None] * 100
    assert all([guards.permit(road, "sonnet"), guards.permit(road, "sonnet")])


def test_the_wait_is_the_shortest_of_the_endpoints_and_the_longest_of_the_breakers(
    clock: FakeClock, road: Endpoint
) -> None:
    guards = _guards(clock)
    spare = Endpoint("spare", road.provider, "acme")
    guards.permit(road, "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    clock.advance(10.0)
    guards.permit(spare, "haiku").failed(errors.Overloaded())  # type: ignore[union-attr]
    assert guards.retry_after_s([road, spare], "haiku") == pytest.approx(20.0)
    assert guards.retry_after_s([], "haiku") == 0.0
    assert clock.wall_reads == 0
