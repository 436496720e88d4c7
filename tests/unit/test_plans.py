"""Plans against a simulation of themselves: cost, quality, time and its 95th percentile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.cascade import after_a_bad_reply
from fallback.plans import Delay, Plan, Rung, all_plans, plan_of

HAIKU = Rung("haiku", 0.6, 0.001, Delay(1.0, 0.5), check_usd=0.0005, caught=0.8)
SONNET = Rung("sonnet", 0.8, 0.01, Delay(3.0, 2.0), check_usd=0.0005, caught=0.8)
OPUS = Rung("opus", 0.9, 0.02, Delay(6.0, 4.0))
LADDER = (HAIKU, SONNET, OPUS)


def simulated(rungs: tuple[Rung, ...], after: dict[tuple[str, str], float], n: int = 200_000) -> tuple[float, ...]:
    """(cost, quality, mean time, p95) of a chain whose tiers are tied only by `after`."""
    rng = np.random.default_rng(7)
    waiting, cost, quality, time_s = np.ones(n, dtype=bool), np.zeros(n), np.zeros(n), np.zeros(n)
    before = ""
    for i, rung in enumerate(rungs):
        p = after.get((before, rung.tier), rung.p_good)
        squared = math.log1p(rung.delay.variance / rung.delay.mean_s**2)
        took_s = rng.lognormal(math.log(rung.delay.mean_s) - squared / 2, math.sqrt(squared), n)
        good = rng.random(n) < p
        cost += waiting * (rung.cost_usd + rung.check_usd)
        time_s += waiting * took_s
        quality += waiting * good
        last = i + 1 == len(rungs)
        waiting = waiting & ~good & (rng.random(n) < rung.caught) & (not last)
        before = rung.tier
    return float(cost.mean()), float(quality.mean()), float(time_s.mean()), float(np.quantile(time_s, 0.95))


@pytest.mark.parametrize("rungs", [(HAIKU, SONNET), (HAIKU, OPUS), (HAIKU, SONNET, OPUS)])
def test_a_plan_comes_to_what_a_simulation_of_it_comes_to(rungs: tuple[Rung, ...]) -> None:
    after = {("haiku", "sonnet"): 0.5, ("haiku", "opus"): 0.7, ("sonnet", "opus"): 0.6}
    plan = plan_of(rungs, after)
    cost, quality, time_s, p95_s = simulated(rungs, after)
    assert plan.cost_usd == pytest.approx(cost, rel=0.01)
    assert plan.quality == pytest.approx(quality, abs=0.005)
    assert plan.time_s == pytest.approx(time_s, rel=0.01)
    assert plan_of(rungs[:2], after).calls == pytest.approx(1.0 + 0.4 * 0.8)
    assert plan.p95_s == pytest.approx(p95_s, rel=0.05), "sums of log-normals are taken to be log-normal"
    assert plan.within(plan.p95_s) == pytest.approx(0.95, abs=0.002)


def test_one_tier_alone_pays_for_no_check() -> None:
    plan = plan_of([HAIKU], {})
    assert (plan.cost_usd, plan.quality, plan.time_s) == (0.001, 0.6, 1.0)
    assert plan.p95_s == pytest.approx(HAIKU.delay.quantile_s(0.95), rel=2e-3)


def test_every_plan_is_there_once() -> None:
    assert [plan.tiers for plan in all_plans(LADDER)] == [
        ("haiku",),
        ("haiku", "sonnet"),
        ("haiku", "opus"),
        ("haiku", "sonnet", "opus"),
        ("sonnet",),
        ("sonnet", "opus"),
        ("opus",),
    ]
    many = [Rung(str(i), 0.5, 0.1, Delay(1.0)) for i in range(8)]
    assert len(all_plans(many)) < 120, "bounded on a long ladder"


def test_where_nothing_was_measured_a_bad_reply_makes_the_next_less_likely() -> None:
    plan = plan_of((HAIKU, OPUS), {})
    after = after_a_bad_reply(0.9, 0.6)
    assert plan.quality == pytest.approx(0.6 + 0.4 * 0.8 * after)
    assert plan.quality < 0.6 + 0.4 * 0.8 * 0.9


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_no_plan_is_better_than_certain_or_ends_less_than_once(a: float, b: float, caught: float) -> None:
    rungs = [Rung("a", a, 0.1, Delay(1.0, 1.0), caught=caught), Rung("b", b, 0.2, Delay(2.0, 1.0))]
    for plan in all_plans(rungs):
        assert 0.0 <= plan.quality <= 1.0 + 1e-9
        assert sum(p for p, _ in plan.endings) == pytest.approx(1.0)
        assert plan.cost_usd <= 0.3 + 1e-9


def test_time_has_its_price() -> None:
    slow = Plan(("opus",), 0.02, 0.9, ((1.0, Delay(6.0)),))
    assert slow.value_usd(mistake_cost_usd=1.0, second_cost_usd=0.01) == pytest.approx(0.9 - 0.02 - 0.06)
    assert slow.fits(6.0)
    assert not slow.fits(5.9)
