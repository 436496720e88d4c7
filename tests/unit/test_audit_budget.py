from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.audit.budget import DAY_S, DayBudget

NOON_S = 20_000.5 * DAY_S


def held(budget: DayBudget, usd: float, *, cap_usd: float = 1.0, at_s: float = NOON_S, workload: str = "w"):
    return budget.hold(workload, usd, cap_usd=cap_usd, wall_s=at_s)


def test_what_is_set_aside_counts_until_it_is_known_what_it_cost() -> None:
    budget = DayBudget()
    first = held(budget, 0.75)
    assert first is not None
    assert held(budget, 0.5) is None
    first.settle(0.25, NOON_S)
    assert held(budget, 0.75) is not None
    assert held(budget, 0.1) is None


def test_workloads_have_their_own_money_and_every_day_new() -> None:
    budget = DayBudget()
    budget.learn({"w": 1.0}, NOON_S)
    assert held(budget, 0.5) is None
    assert held(budget, 0.5, workload="other") is not None
    assert held(budget, 1.0, at_s=NOON_S + DAY_S) is not None


def test_a_clock_that_steps_back_opens_no_new_day() -> None:
    budget = DayBudget()
    budget.learn({"w": 1.0}, NOON_S)
    assert held(budget, 0.5, at_s=NOON_S - DAY_S) is None
    assert held(budget, 0.5) is None


def test_what_ends_after_midnight_is_paid_from_the_new_day() -> None:
    budget = DayBudget()
    late = held(budget, 0.75)
    assert late is not None
    assert held(budget, 0.5, at_s=NOON_S + DAY_S) is None  # it may still cost that much today
    late.settle(0.5, NOON_S + DAY_S)
    assert budget.spent_usd("w") == 0.5


def test_what_others_spent_is_learned_and_what_was_spent_here_is_not_counted_twice() -> None:
    budget = DayBudget()
    mine = held(budget, 0.25)
    assert mine is not None
    mine.settle(0.25, NOON_S)
    budget.learn({"w": 0.25}, NOON_S)  # mine, as written
    assert budget.spent_usd("w") == 0.25
    budget.learn({"w": 0.75}, NOON_S)  # another's too
    assert held(budget, 0.5) is None
    assert held(budget, 0.25) is not None
    budget.learn({"w": 0.5}, NOON_S)  # a reading that took its time
    assert budget.spent_usd("w") == 0.75


def test_yesterdays_spending_that_is_read_late_is_not_todays() -> None:
    budget = DayBudget()
    assert held(budget, 0.1, at_s=NOON_S + DAY_S) is not None
    budget.learn({"w": 1.0}, NOON_S)
    assert held(budget, 0.5, at_s=NOON_S + DAY_S) is not None


@given(
    st.lists(st.tuples(st.floats(0.0, 0.6), st.floats(0.0, 1.0), st.booleans(), st.floats(0.0, DAY_S / 2)), max_size=60)
)
def test_no_day_ever_costs_more_than_its_cap(audits: list[tuple[float, float, bool, float]]) -> None:
    budget, now_s, open_ = DayBudget(), NOON_S, []
    paid: dict[int, float] = {}
    for most_usd, share, end_one, later_s in audits:
        now_s += later_s
        hold = held(budget, most_usd, at_s=now_s)
        if hold is not None:
            open_.append((hold, most_usd * share))
        if end_one and open_:
            ended, cost_usd = open_.pop(0)
            ended.settle(cost_usd, now_s)
            day = int(now_s // DAY_S)
            paid[day] = paid.get(day, 0.0) + cost_usd
    for hold, cost_usd in open_:
        hold.settle(cost_usd, now_s)
        day = int(now_s // DAY_S)
        paid[day] = paid.get(day, 0.0) + cost_usd
    assert all(usd <= 1.0 + 1e-9 for usd in paid.values())
