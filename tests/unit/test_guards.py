"""Budgets and breakers together: who counts, who shares, and that no permit leaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fallback import errors
from fallback.access import Alarm
from fallback.breaker import BreakerSettings, State
from fallback.guards import Guards, GuardSettings, Hold
from fallback.providers import Endpoint
from fallback.types import Headroom
from tests.support.fakes import FakeClock, ScriptedProvider, reply

HEALTH = (errors.TimedOut, errors.Overloaded, errors.ConnectionFailed, errors.UpstreamError, errors.MalformedReply)
UNUSABLE = (errors.CredentialsRefused, errors.TierNotServed, errors.SpendLimited)
IGNORED = (errors.RequestRefused, errors.NotAttempted, errors.Cancelled)


def _guards(
    clock: FakeClock, *, provider: int = 1_000, own: int = 1, alarm: Callable[[Alarm], None] = lambda _: None
) -> Guards:
    return Guards(
        GuardSettings(
            endpoint=BreakerSettings(own, own, first_open_s=30.0, jitter=0.0),
            provider=BreakerSettings(provider, provider, first_open_s=30.0, jitter=0.0),
        ),
        clock,
        lambda: 0.5,
        alarm,
    )


@pytest.fixture
def road(clock: FakeClock) -> Endpoint:
    return Endpoint("main", ScriptedProvider(clock, [reply()]), "acme")


@pytest.mark.parametrize("failure", HEALTH)
def test_an_ill_endpoint_costs_a_token_and_counts(
    clock: FakeClock, road: Endpoint, failure: type[errors.Failure]
) -> None:
    guards = _guards(clock)
    guards.permit(road, "haiku").failed(failure())  # type: ignore[union-attr]
    assert guards.budget(road).tokens == 99.0
    assert guards.states() == {("acme", ""): State.CLOSED, ("main", "haiku"): State.OPEN}
    assert guards.hold(road, "haiku") == Hold("breaker_open", 30.0)


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 429, 499])
def test_a_4xx_never_counts(clock: FakeClock, road: Endpoint, status: int) -> None:
    kinds = {401: errors.CredentialsRefused, 403: errors.CredentialsRefused, 404: errors.TierNotServed}
    kind = kinds.get(status, errors.RateLimited if status == 429 else errors.UpstreamError)
    guards = _guards(clock)
    for _ in range(20):
        call = guards.permit(road, "haiku")
        if call is not None:
            call.failed(kind(http_status=status))
    assert set(guards.states().values()) == {State.CLOSED}


# --- refused access --------------------------------------------------------------------------


@pytest.mark.parametrize("failure", UNUSABLE)
def test_an_endpoint_that_refuses_us_is_asked_once_in_each_open_period(
    clock: FakeClock, road: Endpoint, failure: type[errors.Failure]
) -> None:
    alarms: list[Alarm] = []
    guards = _guards(clock, alarm=alarms.append)
    calls = 0
    for _ in range(900):  # 90 s
        call = guards.permit(road, "haiku")
        if call is not None:
            calls += 1
            call.failed(failure())
        clock.advance(0.1)
    assert calls == 3, "the first, and one probe in each 30 s"
    assert [(alarm.kind, alarm.over) for alarm in alarms] == [(failure.kind, False)], "once an episode"
    assert guards.access.alarms() == (alarms[0],)
    assert guards.hold(road, "haiku").cause == failure.kind  # type: ignore[union-attr]
    clock.advance(30.0)
    guards.permit(road, "haiku").replied(reply())  # type: ignore[union-attr]
    assert alarms[-1].over
    assert guards.access.alarms() == ()
    assert guards.hold(road, "haiku") is None


@pytest.mark.parametrize(
    ("failure", "closed"),
    [
        (errors.CredentialsRefused(http_status=401), {"haiku", "opus"}),
        (errors.CredentialsRefused(http_status=403), {"haiku"}),
        (errors.TierNotServed(http_status=404), {"haiku"}),
        (errors.SpendLimited(http_status=429), {"haiku", "opus"}),
    ],
)
def test_a_key_and_a_spend_limit_concern_every_tier_a_permission_and_a_model_the_one(
    clock: FakeClock, road: Endpoint, failure: errors.Failure, closed: set[str]
) -> None:
    guards = _guards(clock)
    guards.permit(road, "haiku").failed(failure)  # type: ignore[union-attr]
    assert {tier for tier in ("haiku", "opus") if guards.permit(road, tier) is None} == closed
    sibling = Endpoint("spare", road.provider, "acme")
    assert guards.permit(sibling, "haiku") is not None, "another account may work"


def test_a_probe_of_access_that_says_nothing_gives_its_place_back(clock: FakeClock, road: Endpoint) -> None:
    guards = _guards(clock, own=100)
    guards.permit(road, "haiku").failed(errors.CredentialsRefused(http_status=403))  # type: ignore[union-attr]
    clock.advance(30.0)
    for nothing in (errors.Cancelled(), errors.Overloaded()):
        probe = guards.permit(road, "haiku")
        assert probe is not None
        assert guards.permit(road, "haiku") is None
        probe.failed(nothing)
    assert len(guards.access.alarms()) == 1


def test_another_reason_ends_one_alarm_and_begins_another(clock: FakeClock, road: Endpoint) -> None:
    alarms: list[Alarm] = []
    guards = _guards(clock, alarm=alarms.append)
    guards.permit(road, "haiku").failed(errors.CredentialsRefused(http_status=401))  # type: ignore[union-attr]
    clock.advance(30.0)
    guards.permit(road, "haiku").failed(errors.SpendLimited(http_status=402))  # type: ignore[union-attr]
    assert [(alarm.kind, alarm.over) for alarm in alarms] == [
        ("credentials_refused", False),
        ("credentials_refused", True),
        ("spend_limited", False),
    ]
    assert guards.permit(road, "haiku") is None


# --- rate limits -----------------------------------------------------------------------------


def test_a_429_closes_the_road_for_as_long_as_it_says(clock: FakeClock, road: Endpoint) -> None:
    guards = _guards(clock)
    guards.permit(road, "haiku").failed(errors.RateLimited(http_status=429, retry_after_s=5.0))  # type: ignore[union-attr]
    assert guards.hold(road, "haiku") == Hold("rate_limited", 5.0)
    assert guards.permit(road, "haiku") is None
    assert guards.permit(road, "sonnet") is not None, "the tiers' limits are apart"
    assert guards.budget(road).tokens == 99.0
    clock.advance(5.0)
    assert guards.permit(road, "haiku") is not None


def test_no_word_of_a_provider_closes_a_road_for_ever(clock: FakeClock, road: Endpoint) -> None:
    guards = _guards(clock)
    guards.permit(road, "haiku").failed(errors.RateLimited(retry_after_s=1e9))  # type: ignore[union-attr]
    assert guards.hold(road, "haiku") == Hold("rate_limited", 300.0)


@pytest.mark.parametrize(("share", "near"), [(0.5, False), (0.021, False), (0.02, True), (0.0, True)])
def test_a_road_near_its_limit_is_known_until_the_limit_is_whole_again(
    clock: FakeClock, road: Endpoint, share: float, *, near: bool
) -> None:
    guards = _guards(clock)
    guards.permit(road, "haiku").replied(replace(reply(), headroom=Headroom(share, 20.0)))  # type: ignore[union-attr]
    assert guards.avoided(road, "haiku") is near
    assert guards.hold(road, "haiku") is None
    clock.advance(20.0)
    assert not guards.avoided(road, "haiku")


# --- what costs nothing ----------------------------------------------------------------------


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
    guards.permit(road, "haiku").replied(reply())  # type: ignore[union-attr]
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
    assert guards.hold(sibling, "opus") == Hold("breaker_open", 30.0)
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
        probe.replied(reply())  # type: ignore[union-attr]
    assert set(guards.states().values()) == {State.CLOSED}


def test_a_hundred_refusals_take_no_place_of_the_provider(clock: FakeClock, road: Endpoint) -> None:
    own = BreakerSettings(1, 1, open_s=60.0, first_open_s=60.0, jitter=0.0)
    provider = BreakerSettings(1, 1, first_open_s=30.0, jitter=0.0)
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
    first, hold = guards.first_open([spare, road], "haiku")
    assert (first.name, hold.cause, hold.wait_s) == ("main", "breaker_open", pytest.approx(20.0))
    assert clock.wall_reads == 0
