"""The adaptive limit: down when the loop lags, up again when it does not, and never out of its bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.limits import AdaptiveLimit, LimitSettings, Turnover

SETTINGS = LimitSettings(most=512, least=16, lag_s=0.02)


def fed(limit: AdaptiveLimit, lag_s: float, times: int) -> int:
    for _ in range(times):
        limit.sample(lag_s, limit.limit)
    return limit.limit


def test_it_starts_at_the_most_and_stays_there_without_waits() -> None:
    assert fed(AdaptiveLimit(SETTINGS), 0.001, 100) == 512


def test_a_lagging_loop_halves_it_in_half_a_second_and_it_never_falls_below_the_least() -> None:
    limit = AdaptiveLimit(SETTINGS)
    assert fed(limit, 1.0, 20) < 256
    assert fed(limit, 1.0, 1_000) == 16


def test_it_comes_back_within_ten_seconds() -> None:
    limit = AdaptiveLimit(SETTINGS)
    fed(limit, 1.0, 1_000)
    assert fed(limit, 0.0, 400) == 512


def test_what_waits_outside_is_not_in_flight_so_the_limit_comes_down_to_what_is() -> None:
    limit = AdaptiveLimit(SETTINGS)
    for _ in range(100):
        limit.sample(1.0, 60)
    assert limit.limit < 60


def test_one_hiccup_takes_little() -> None:
    limit = AdaptiveLimit(SETTINGS)
    limit.sample(0.2, 3)
    assert limit.limit > 450


def test_what_hiccups_took_from_a_quiet_service_comes_back() -> None:
    limit = AdaptiveLimit(SETTINGS)
    for _ in range(10):
        limit.sample(1.0, 3)
    assert limit.limit < 256
    for _ in range(400):
        limit.sample(0.0, 3)
    assert limit.limit == 512


def test_it_settles_where_the_lag_is_little_above_what_is_aimed_at() -> None:
    """A process whose loop lags by a millisecond for each request in flight above fifty."""
    limit = AdaptiveLimit(SETTINGS)
    for _ in range(2_000):
        limit.sample(max(0, limit.limit - 50) * 1e-3, limit.limit)
    assert 70 <= limit.limit <= 76


@given(st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10_000))), st.integers(1, 100), st.integers(0, 1_000))
def test_it_keeps_to_its_bounds(samples: list[tuple[float, int]], least: int, more: int) -> None:
    limit = AdaptiveLimit(LimitSettings(least + more, least))
    for lag_s, in_flight in samples:
        limit.sample(lag_s, in_flight)
        assert least <= limit.limit <= least + more


@pytest.mark.parametrize("most", [1, 16])
def test_a_fixed_limit(most: int) -> None:
    assert fed(AdaptiveLimit(LimitSettings(most, most)), 1.0, 10) == most


def fed_turnover(turnover: Turnover, per_tick: int, ticks: int, *, full: bool = True) -> Turnover:
    for _ in range(ticks):
        for _ in range(per_tick):
            turnover.given_back()
        turnover.sample(0.025, full=full)
    return turnover


def test_turnover_says_how_many_places_come_free_in_a_time() -> None:
    turnover = fed_turnover(Turnover(0.5), per_tick=3, ticks=40)
    assert turnover.within(1.0) == pytest.approx(120.0)
    assert turnover.within(0.1) == pytest.approx(12.0)


def test_turnover_follows_and_forgets_within_a_few_horizons() -> None:
    turnover = fed_turnover(Turnover(0.5), per_tick=3, ticks=40)
    assert fed_turnover(turnover, per_tick=0, ticks=20).within(1.0) == pytest.approx(120.0 * 0.37, rel=0.2)
    assert fed_turnover(turnover, per_tick=0, ticks=200).within(1.0) < 1.0


def test_turnover_expects_any_number_until_it_has_seen_enough_of_a_full_service() -> None:
    assert fed_turnover(Turnover(0.5), per_tick=0, ticks=9).within(0.1) == float("inf")
    assert fed_turnover(Turnover(0.5), per_tick=9, ticks=999, full=False).within(0.1) == float("inf")
    assert fed_turnover(Turnover(0.5), per_tick=0, ticks=20).within(0.1) == 0.0
