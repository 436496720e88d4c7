"""Admission: places, a short queue by priority, refusals at once, and no place ever lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.admission import Admission, AdmissionSettings, Priority
from router.limits import LimitSettings
from router.pacing import Pacing
from router.status import Refusal
from tests.support.fakes import FakeClock

LOW, NORMAL, HIGH = Priority


def made(places: int = 1, queued: int = 2, wait_s: float = 60.0) -> Admission:
    return Admission(AdmissionSettings(LimitSettings(places, places), queued, wait_s), Pacing(FakeClock()))


class Ticks(FakeClock):
    """A clock whose sleeps end when the test says so, and as late as it says."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(self, seconds: float) -> None:
        late_s = await self._ends.get()
        self.advance(seconds + late_s)

    async def tick(self, times: int = 1, late_s: float = 0.0) -> None:
        """So many sleeps end, one after the other."""
        for _ in range(times):
            self._ends.put_nowait(late_s)
            await turns()


@asynccontextmanager
async def narrowed(wait_s: float = 60.0) -> AsyncIterator[tuple[Admission, Ticks]]:
    """Admission whose limit a lagging loop has brought down to two of its hundred places; both are taken."""
    admission, clock = Admission(AdmissionSettings(LimitSettings(100, 2), 4, wait_s), Pacing(FakeClock())), Ticks()
    watching = asyncio.create_task(admission.watch(clock))
    async with callers(admission, NORMAL, NORMAL):
        await clock.tick(200, late_s=1.0)
        assert admission.limit == 2
        yield admission, clock
    watching.cancel()


class Caller:
    """One request; holds its place until `done` is set."""

    def __init__(self, admission: Admission, priority: Priority = NORMAL) -> None:
        self.done = asyncio.Event()
        self.inside = False
        self.task = asyncio.ensure_future(self._run(admission, priority))

    async def _run(self, admission: Admission, priority: Priority) -> str:
        try:
            async with admission.admitted(priority):
                self.inside = True
                await self.done.wait()
                return "served"
        except Refusal as refusal:
            exhausted = refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED and refusal.retry_s is not None
            return "refused" if exhausted else refusal.reason


@asynccontextmanager
async def callers(admission: Admission, *priorities: Priority) -> AsyncIterator[list[Caller]]:
    started = []
    for priority in priorities:
        started.append(Caller(admission, priority))
        await asyncio.sleep(0)
    yield started
    for caller in started:
        caller.done.set()
    await asyncio.gather(*(caller.task for caller in started))
    assert (admission.in_flight, admission.queued) == (0, 0)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_beyond_places_and_queue_a_request_is_refused_at_once() -> None:
    admission = made(places=2, queued=1)
    async with callers(admission, NORMAL, NORMAL, NORMAL, NORMAL) as (first, second, third, fourth):
        assert [each.inside for each in (first, second, third)] == [True, True, False]
        assert await fourth.task == "refused"
        first.done.set()
        await turns()
        assert third.inside
    assert admission.refused == {LOW: 0, NORMAL: 1, HIGH: 0}


async def test_the_higher_class_comes_in_first_and_the_first_comer_within_it() -> None:
    admission = made(queued=4)
    async with callers(admission, NORMAL, LOW, NORMAL, HIGH, NORMAL) as (running, low, normal, high, later):
        order = []
        current = running
        for expected in (high, normal, later, low):
            current.done.set()
            await turns()
            assert expected.inside
            order.append(expected)
            current = expected
        assert len(order) == 4


async def test_with_the_queue_full_the_last_comer_of_the_lowest_class_gives_way() -> None:
    admission = made(queued=3)
    async with callers(admission, NORMAL, LOW, NORMAL, LOW, HIGH) as (_, low, normal, last_low, high):
        assert await last_low.task == "refused"
        assert not low.task.done()
        another = Caller(admission, LOW)
        assert await another.task == "refused", "nobody is below it"
        more = Caller(admission, HIGH)
        assert await low.task == "refused"
        await turns()
        assert not normal.task.done()
        high.done.set()
        more.done.set()
    assert admission.refused == {LOW: 3, NORMAL: 0, HIGH: 0}


async def test_the_wait_is_short() -> None:
    admission = made(wait_s=0.01)
    async with callers(admission, NORMAL, NORMAL) as (_, waiting):
        assert await waiting.task == "refused"


async def test_a_caller_who_leaves_the_queue_or_a_place_just_given_loses_no_place() -> None:
    admission = made(queued=3)
    async with callers(admission, NORMAL, NORMAL, NORMAL) as (running, leaving, staying):
        leaving.task.cancel()
        await turns()
        assert admission.queued == 1
        fourth = Caller(admission)
        await asyncio.sleep(0)
        running.done.set()
        await asyncio.sleep(0)  # the place is given, and its taker goes away before knowing
        staying.task.cancel()
        fourth.done.set()
        assert await fourth.task == "served"
        for gone in (leaving, staying):
            with pytest.raises(asyncio.CancelledError):
                await gone.task
            gone.task = asyncio.ensure_future(asyncio.sleep(0))  # type: ignore[arg-type]


async def test_closing_lets_those_who_wait_in_and_nobody_else() -> None:
    admission = made()
    async with callers(admission, NORMAL, NORMAL) as (_, waiting):
        admission.close()
        await turns()
        assert waiting.inside
        with pytest.raises(Refusal) as caught:
            async with admission.admitted():
                raise AssertionError
        assert caught.value.reason == "STOPPING"


@given(
    st.lists(st.tuples(st.sampled_from(["come", "end", "cancel"]), st.integers(0, 2), st.integers(0, 20)), max_size=60)
)
def test_no_history_loses_or_invents_a_place(steps: list[tuple[str, int, int]]) -> None:
    async def play() -> None:
        admission = made(places=3, queued=4)
        started: list[Caller] = []
        for what, priority, whom in steps:
            if what == "come":
                started.append(Caller(admission, Priority(priority)))
            elif started:
                caller = started[whom % len(started)]
                if what == "end":
                    caller.done.set()
                else:
                    caller.task.cancel()
            if whom % 3:
                await asyncio.sleep(0)
            assert 0 <= admission.in_flight <= 3
            assert admission.queued <= 4
        for caller in started:
            caller.done.set()
        await asyncio.gather(*(caller.task for caller in started), return_exceptions=True)
        assert (admission.in_flight, admission.queued) == (0, 0)

    asyncio.run(play())


async def test_who_could_neither_come_in_nor_wait_is_turned_away_before_anything_is_done_for_it() -> None:
    admission = made(places=1, queued=1)
    assert admission.turned_away(LOW) is None
    async with callers(admission, NORMAL, NORMAL):
        assert [admission.turned_away(each) is not None for each in (LOW, NORMAL, HIGH)] == [True, True, False]
        refusal = admission.turned_away(LOW)
        assert refusal is not None
        assert (refusal.code, refusal.retry_s) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.5)
    assert admission.refused == {LOW: 2, NORMAL: 1, HIGH: 0}
    assert admission.arrived == 5


async def test_who_would_wait_in_vain_is_turned_away_at_once_though_the_queue_has_room() -> None:
    async with narrowed() as (admission, _):
        refusal = admission.turned_away(HIGH)  # nobody has left for minutes
        assert refusal is not None
        assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("wait_s", "waits"), [(1.0, True), (0.1, False)])
async def test_who_will_have_a_place_in_time_may_wait(wait_s: float, *, waits: bool) -> None:
    admission, clock = Admission(AdmissionSettings(LimitSettings(100, 2), 4, wait_s), Pacing(FakeClock())), Ticks()
    watching = asyncio.create_task(admission.watch(clock))
    async with callers(admission, *[NORMAL] * 40) as inside:
        await clock.tick(200, late_s=1.0)
        for leaving in inside[:30]:  # one in 50 ms: 20 a second
            leaving.done.set()
            await clock.tick(late_s=0.025)
        missing = admission.in_flight + 1 - admission.limit
        assert 2 < missing < 12
        assert (admission.turned_away(NORMAL) is None) == waits
    watching.cancel()


async def test_a_wait_ends_with_a_place_above_the_limit_as_long_as_there_is_any() -> None:
    async with narrowed(wait_s=0.01) as (admission, _):
        late = Caller(admission)
        late.done.set()
        assert await late.task == "served"
    assert admission.refused == {LOW: 0, NORMAL: 0, HIGH: 0}


@pytest.mark.parametrize(("ticks", "shut"), [(9, False), (10, True)])
async def test_while_heavy_work_stands_in_line_for_longer_than_the_wait_nobody_comes_in(
    ticks: int, *, shut: bool
) -> None:
    clock = Ticks()
    pacing = Pacing(clock)
    admission = Admission(AdmissionSettings(LimitSettings(100, 2), 4, 0.1), pacing)
    watching = asyncio.create_task(admission.watch(clock))
    async with callers(admission, NORMAL, NORMAL):
        line = [asyncio.create_task(pacing.turn()) for _ in range(200)]
        await turns()
        clock.advance(0.11)
        await clock.tick(ticks)
        assert [admission.turned_away(each) is not None for each in Priority] == [shut] * 3
        await asyncio.gather(*line)
        await clock.tick()
        assert admission.turned_away(NORMAL) is None
    watching.cancel()
