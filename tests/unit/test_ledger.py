"""The ledger: order, money, and checks that belong to the reply they judged."""

from __future__ import annotations

import pytest

from fallback.errors import HEDGE_LOST, Cancelled, Overloaded
from fallback.ledger import Ledger
from fallback.types import Accept, CheckReport, Purpose, Reject, Unjudged
from tests.support.fakes import reply
from tests.support.outcomes import attempt


def test_it_keeps_the_order_and_adds_everything_up() -> None:
    ledger = Ledger(5.0)
    assert (ledger.attempts, ledger.cost_usd, ledger.started_s) == ((), 0, 5.0)
    ledger.attempted(attempt("haiku", result=Overloaded(), cost_usd=0.25))
    first, second = reply("one"), reply("two")
    ledger.attempted(attempt("haiku", result=first, purpose=Purpose.RETRY, cost_usd=1.0))
    ledger.attempted(attempt("haiku", result=Cancelled(HEDGE_LOST), purpose=Purpose.HEDGE))
    ledger.judged(
        first, (CheckReport("a", "1", Accept(), cost_usd=0.5), CheckReport("b", "1", Reject("no"), cost_usd=2.0))
    )
    assert ledger.cost_usd == pytest.approx(3.75 + ledger.attempts[2].cost_usd)
    assert [each.purpose for each in ledger.attempts] == [Purpose.FIRST, Purpose.RETRY, Purpose.HEDGE]
    assert ledger.attempts[0].checks == ()
    assert ledger.attempts[1].rejection == Reject("no")
    ledger.attempted(attempt("sonnet", result=second, purpose=Purpose.ESCALATION, cost_usd=0.0))
    ledger.judged(second, ())
    assert [len(each.checks) for each in ledger.attempts] == [0, 2, 0, 0]


def test_what_is_accepted() -> None:
    assert attempt(verdict=Accept()).accepted
    assert attempt(verdict=Unjudged("x")).accepted
    assert attempt(verdict=Unjudged("x")).rejection is None
    assert not attempt(verdict=Reject("x")).accepted
    assert not attempt(result=Overloaded()).accepted
