"""The retry budget: gRPC A6's arithmetic, and its bound over any history."""

from __future__ import annotations

import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fallback.budget import RetryBudget


def test_it_allows_while_more_than_half_is_left_and_never_sooner_again() -> None:
    budget = RetryBudget(max_tokens=10, ratio=0.25)
    allowed = []
    for _ in range(7):
        budget.on_failure()
        allowed.append(budget.allows)
    assert allowed == [True] * 4 + [False] * 3
    assert budget.tokens == 3
    for _ in range(8):
        budget.on_reply()
    assert (budget.tokens, budget.allows) == (5.0, False)
    budget.on_reply()
    assert budget.allows


@pytest.mark.parametrize(
    ("tokens", "ratio"), [(0, 0.5), (-1, 0.5), (math.nan, 0.5), (math.inf, 0.5), (10, 0), (10, 1.01), (10, math.nan)]
)
def test_senseless_settings_are_refused(tokens: float, ratio: float) -> None:
    with pytest.raises(ValueError, match="max_tokens"):
        RetryBudget(max_tokens=tokens, ratio=ratio)


@given(st.floats(0.5, 200), st.floats(0.01, 1), st.lists(st.booleans(), max_size=400))
def test_tokens_stay_in_their_bounds_and_follow_the_history(most: float, ratio: float, replies: list[bool]) -> None:
    budget = RetryBudget(max_tokens=most, ratio=ratio)
    expected = most
    for replied in replies:
        if replied:
            budget.on_reply()
            expected = min(most, expected + ratio)
        else:
            budget.on_failure()
            expected = max(0.0, expected - 1)
        assert budget.tokens == pytest.approx(expected)
        assert 0 <= budget.tokens <= most
        assert budget.allows == (budget.tokens > most / 2)


@given(st.integers(1, 5), st.integers(1, 100), st.integers(1, 400))
def test_extra_calls_in_an_outage_are_bounded_by_half_the_tokens(retries: int, most: int, requests: int) -> None:
    budget = RetryBudget(max_tokens=most)
    extra = 0
    for _ in range(requests):
        budget.on_failure()
        for _ in range(retries):
            if not budget.allows:
                break
            extra += 1
            budget.on_failure()
    assert extra <= most / 2


@pytest.mark.parametrize(("share", "keeps"), [(0.15, True), (0.25, False)])
def test_a_ratio_of_a_quarter_keeps_retrying_up_to_a_fifth_of_failures(share: float, *, keeps: bool) -> None:
    budget = RetryBudget()
    owed = 0.0
    for _ in range(20_000):
        owed += share
        if owed >= 1:
            owed -= 1
            budget.on_failure()
        else:
            budget.on_reply()
    assert budget.allows is keeps


class BudgetMachine(RuleBasedStateMachine):
    """Any history of replies, failures and hedges that keeps to what the budget allows."""

    def __init__(self) -> None:
        super().__init__()
        self.real = RetryBudget(max_tokens=8.0, ratio=0.25)
        self.tokens = 8.0
        self.replies = 0
        self.hedges = 0
        self.under_way = 0

    @rule()
    def reply(self) -> None:
        self.real.on_reply()
        self.replies += 1
        self.tokens = min(8.0, self.tokens + 0.25)

    @rule()
    def failure(self) -> None:
        self.real.on_failure()
        self.tokens = max(0.0, self.tokens - 1.0)

    @precondition(lambda self: self.real.allows)
    @rule()
    def extra(self) -> None:
        self.real.on_extra()
        self.under_way += 1

    @precondition(lambda self: self.under_way > 0)
    @rule()
    def extra_fails(self) -> None:
        self.real.on_extra_ended()
        self.under_way -= 1
        self.failure()

    @precondition(lambda self: self.under_way > 0)
    @rule()
    def extra_is_answered(self) -> None:
        self.real.on_extra_ended()
        self.under_way -= 1
        self.reply()

    @precondition(lambda self: self.real.allows_hedge)
    @rule()
    def hedge(self) -> None:
        self.real.on_hedge()
        self.hedges += 1
        self.tokens -= 1.0

    @invariant()
    def agrees(self) -> None:
        assert self.real.tokens == self.tokens
        assert self.real.allows == (self.tokens - self.under_way > 4.0)
        assert self.real.allows_hedge == (self.tokens - self.under_way > 6.0)
        assert self.hedges < 3 + self.replies * 0.25, "hedges are bounded by replies"
        assert not self.real.allows_hedge or self.real.allows


TestBudgetMachine = BudgetMachine.TestCase
TestBudgetMachine.settings = settings(
    max_examples=int(os.environ.get("TIERWISE_STEPS", "6000")) // 60, stateful_step_count=60
)
