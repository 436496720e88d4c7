"""The next step: what is kept, what is asked."""

from __future__ import annotations

import pytest

from fallback.cascade import Ask, Keep, Option, chain_worth, next_step


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
    step = next_step({"haiku": 0.4, "sonnet": 0.3}, [], mistake_cost_usd=1.0)
    assert step == Keep("haiku", 0.4)


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
    worth = chain_worth(("haiku", "sonnet"), p, cost, mistake_cost_usd=0.2, caught=0.5)
    assert worth == pytest.approx(0.6 + 0.4 * 0.5 * (0.9 - 0.1))
    assert chain_worth(("haiku", "sonnet"), p, cost, mistake_cost_usd=0.2, caught=0.0) == pytest.approx(0.6)


def test_going_on_that_does_not_pay_takes_nothing_away() -> None:
    p, cost = {"haiku": 0.6, "opus": 0.1}, {"haiku": 0.001, "opus": 1.0}
    assert chain_worth(("haiku", "opus"), p, cost, mistake_cost_usd=0.1, caught=1.0) == pytest.approx(0.6)
    assert chain_worth((), p, cost, mistake_cost_usd=0.1, caught=1.0) == 0.0
