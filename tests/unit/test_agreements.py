"""What is recorded of how replies agree."""

from __future__ import annotations

from fallback.errors import Overloaded
from router.agreements import agreements_of
from router.outcome import Agreement
from tests.support.fakes import reply


def test_every_pair_of_replies_and_no_failure() -> None:
    found = agreements_of([reply("Answer: 42"), Overloaded(), reply("So it is 42.0"), reply("Answer: 17")])
    assert [(each.first, each.second, each.same) for each in found] == [(0, 2, 1.0), (0, 3, 0.0), (2, 3, 0.0)]
    assert all(0 <= each.alike < 1 for each in found[1:])
    assert found[0].alike == 1.0


def test_one_reply_agrees_with_nobody_and_nothing_is_nobodys_answer() -> None:
    assert agreements_of([reply("42")]) == agreements_of([]) == agreements_of([Overloaded(), reply("42")]) == ()
    assert agreements_of([reply(""), reply("")]) == (Agreement(0, 1, 0.0, 1.0),)
