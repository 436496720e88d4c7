"""Heavy work goes one piece every other turn of the loop, and light work passes by it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.pacing import Paced, Pacing
from tests.support.fakes import FakeClock, ScriptedProvider, reply, request, tier


class Turns:
    """Counts the turns of the running loop."""

    def __init__(self) -> None:
        self.now = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._count)

    def _count(self) -> None:
        self.now += 1
        self._loop.call_soon(self._count)


class Pieces:
    """Pieces of work in a line, and the turn in which each began."""

    def __init__(self, count: int) -> None:
        self.pacing, self.turns = Pacing(FakeClock()), Turns()
        self.began: dict[int, int] = {}
        self.tasks = [asyncio.create_task(self._piece(number)) for number in range(count)]

    async def _piece(self, number: int) -> None:
        await self.pacing.turn()
        self.began[number] = self.turns.now


async def test_pieces_begin_in_the_order_they_came_with_a_turn_for_light_work_between_them() -> None:
    pieces = Pieces(20)
    await asyncio.gather(*pieces.tasks)
    assert list(pieces.began) == list(range(20))
    assert {later - sooner for sooner, later in pairwise(list(pieces.began.values())[1:])} == {2}
    assert pieces.began[1] - pieces.began[0] == 3  # the first found nobody before it, and began at once


async def test_what_takes_four_turns_is_done_while_two_pieces_begin() -> None:
    pieces = Pieces(50)
    await asyncio.sleep(0)
    before = len(pieces.began)
    for _ in range(4):  # as a refusal does
        await asyncio.sleep(0)
    assert len(pieces.began) - before <= 2
    await asyncio.gather(*pieces.tasks)


async def test_with_nobody_before_it_a_piece_begins_at_once() -> None:
    pacing = Pacing(FakeClock())
    turn = pacing.turn()
    with pytest.raises(StopIteration):
        turn.send(None)


@given(st.sets(st.integers(0, 19)))
def test_those_who_went_away_hold_up_nobody(gone: set[int]) -> None:
    async def play() -> None:
        pieces = Pieces(20)
        await asyncio.sleep(0)
        for number in gone - {0}:
            pieces.tasks[number].cancel()
        await asyncio.gather(*pieces.tasks, return_exceptions=True)
        assert list(pieces.began) == [number for number in range(20) if number not in gone - {0}]
        await pieces.pacing.turn()

    asyncio.run(play())


async def test_it_tells_how_long_the_first_in_the_line_has_stood_there() -> None:
    clock = FakeClock()
    pacing = Pacing(clock)
    assert pacing.standing_s == 0.0
    line = [asyncio.create_task(pacing.turn()) for _ in range(10)]
    await asyncio.sleep(0)
    clock.advance(0.5)
    assert pacing.standing_s == 0.5
    await asyncio.gather(*line)
    assert pacing.standing_s == 0.0


async def test_a_paced_providers_replies_are_handed_on_one_at_a_time() -> None:
    provider = Paced(ScriptedProvider(FakeClock(), [reply("yes")]), Pacing(FakeClock()))
    turns = Turns()
    at = []

    async def ask() -> None:
        answer = await provider.send(request(), tier(), "m", max_tokens=10, timeout_s=1.0)
        at.append((answer.text, turns.now))

    await asyncio.gather(*(ask() for _ in range(10)))
    assert {text for text, _ in at} == {"yes"}
    assert len({turn for _, turn in at}) == 10
    await provider.close()
