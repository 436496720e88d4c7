"""The next step: what is kept, what is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.cascade import (
    Ask,
    Keep,
    Option,
    Prospect,
    after_a_bad_reply,
    best_seen,
    chain_prospect,
    next_step,
)


def test_a_reply_is_kept_when_asking_on_does_not_pay() -> None:
    step = next_step({"haiku": 0.9}, [Option("sonnet", 0.02, 0.95)], mistake_cost_usd=0.1)
    assert step == Keep("haiku", pytest.approx(0.09))


def test_a_dearer_mistake_pays_for_asking_on() -> None:
    step = next_step({"haiku": 0.9}, [Option("sonnet", 0.02, 0.95)], mistake_cost_usd=1.0)
    assert step == Ask("sonnet", pytest.approx(0.93))


def test_a_tier_is_skipped_when_the_one_above_is_worth_more() -> None:
    options = [Option("sonnet", 0.02, 0.5), Option("opus", 0.04, 0.9)]
    assert next_step({"haiku": 0.2}, options, mistake_cost_usd=1.0) == Ask("opus", pytest.approx(0.86))


def test_the_dearest_reply_is_not_always_the_one_kept() -> None:
    step = next_step({"haiku": 0.5, "sonnet": 0.3}, [], mistake_cost_usd=1.0)
    assert step == Keep("haiku", 0.5)


def test_an_earlier_reply_must_lead_clearly_to_be_kept() -> None:
    assert next_step({"haiku": 0.4, "sonnet": 0.3}, [], mistake_cost_usd=1.0) == Keep("sonnet", 0.3)
    assert best_seen({"haiku": 0.9, "sonnet": 0.7, "opus": 0.6}) == "haiku"
    assert best_seen({"haiku": 0.9}) == "haiku"


def test_ties_go_to_keeping_and_to_the_cheaper() -> None:
    assert next_step({"haiku": 0.5, "sonnet": 0.5}, [Option("opus", 0.0, 0.5)], mistake_cost_usd=1.0).__class__ is Keep
    assert next_step({}, [Option("haiku", 0.1, 0.6), Option("sonnet", 0.1, 0.6)], mistake_cost_usd=1.0) == Ask(
        "haiku", pytest.approx(0.5)
    )


def test_nothing_to_choose_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no reply"):
        next_step({}, [], mistake_cost_usd=1.0)


def test_the_worth_of_a_chain_counts_what_the_check_catches_less_its_cost() -> None:
    p, cost = {"haiku": 0.6, "sonnet": 0.9}, {"haiku": 0.001, "sonnet": 0.02}
    ahead = chain_prospect(("haiku", "sonnet"), p, cost, mistake_cost_usd=0.2, caught=0.5, odds_ratio=1.0)
    assert ahead.calls == pytest.approx(1.0 + 0.4 * 0.5)
    assert ahead.worth == pytest.approx(0.6 + 0.4 * 0.5 * (0.9 - 0.1))
    assert chain_prospect(("haiku", "sonnet"), p, cost, mistake_cost_usd=0.2, caught=0.0) == Prospect(0.6, 1.0)


def test_going_on_that_does_not_pay_takes_nothing_away() -> None:
    p, cost = {"haiku": 0.6, "opus": 0.1}, {"haiku": 0.001, "opus": 1.0}
    assert chain_prospect(("haiku", "opus"), p, cost, mistake_cost_usd=0.1, caught=1.0) == Prospect(0.6, 1.0)


def test_what_a_bad_reply_says_of_the_tiers_above_counts_in_a_chain() -> None:
    p, cost = {"haiku": 0.6, "sonnet": 0.9, "opus": 0.95}, {"haiku": 0.001, "sonnet": 0.02, "opus": 0.04}
    worth = {
        odds: chain_prospect(tuple(p), p, cost, mistake_cost_usd=0.5, caught=1.0, odds_ratio=odds).worth
        for odds in (1.0, 10.0)
    }
    sonnet, opus = (after_a_bad_reply(p[tier], 0.6, odds_ratio=10.0) for tier in ("sonnet", "opus"))
    last = after_a_bad_reply(opus, sonnet, odds_ratio=10.0)
    assert worth[10.0] == pytest.approx(0.6 + 0.4 * (sonnet + (1 - sonnet) * (last - 0.08) - 0.04))
    assert worth[10.0] < worth[1.0] == pytest.approx(0.6 + 0.4 * (0.9 + 0.1 * (0.95 - 0.08) - 0.04))


def test_fewer_calls_are_taken_where_more_save_less_than_the_margin() -> None:
    options = [Option("haiku", 0.001, 0.93, calls=2.0), Option("sonnet", 0.010, 0.95)]  # a call saves 0.007
    for margin, source in ((0.0, "haiku"), (0.69, "haiku"), (0.71, "sonnet")):
        assert next_step({}, options, mistake_cost_usd=0.1, call_margin=margin).source == source
    assert next_step({"x": 0.89}, options, mistake_cost_usd=0.1, call_margin=0.71) == Ask("haiku", pytest.approx(0.092))
    seldom = [replace(options[0], calls=1.5), options[1]]
    assert next_step({}, seldom, mistake_cost_usd=0.1, call_margin=0.71).source == "haiku"
    known = [Option("haiku", 0.001, 0.93), Option("sonnet", 0.010, 0.95)]  # nothing is known of their calls
    assert next_step({}, known, mistake_cost_usd=0.1, call_margin=1.0).source == "haiku"


shares = st.floats(0.001, 0.999)


@given(shares, shares, st.floats(1.0, 50.0))
def test_a_bad_reply_makes_the_next_one_less_likely_and_the_two_ways_add_up(
    p: float, other: float, odds: float
) -> None:
    after_bad = after_a_bad_reply(p, other, odds_ratio=odds)
    after_good = (p - (1 - other) * after_bad) / other
    assert 0.0 <= after_bad <= p + 1e-9
    assert p - 1e-6 <= after_good <= 1.0 + 1e-6
    assert after_good * (1 - after_bad) == pytest.approx(odds * after_bad * (1 - after_good), rel=1e-3, abs=1e-4)


def test_a_bad_reply_that_was_to_be_expected_says_little() -> None:
    assert after_a_bad_reply(0.8, 0.02) == pytest.approx(0.8, abs=0.01)
    assert after_a_bad_reply(0.8, 0.95) < 0.65
    assert after_a_bad_reply(0.8, 0.5, odds_ratio=1.0) == pytest.approx(0.8)
    assert after_a_bad_reply(0.8, 1.0) == 0.8, "what cannot happen says nothing"
