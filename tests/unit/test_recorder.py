from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from router import errands
from router.counters import RecorderCounters
from router.outcome import Feedback, Outcome, RetainedText
from router.recorder import Recorder
from router.store import FeedbackStatus, StoreError, Unstorable
from router.store.sql import SqlStore
from tests.support import outcomes as make


class FakeClock:
    """Time stands still until `advance`; sleepers wake in order of their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic_s(self) -> float:
        return self.now

    def wall_s(self) -> float:
        return self.now

    @property
    def wakes(self) -> list[float]:
        return sorted(at for at, future in self._sleepers if not future.done())

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now + seconds, future))
        await future

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for at, future in sorted(self._sleepers, key=lambda sleeper: sleeper[0]):
            if at <= self.now and not future.done():
                future.set_result(None)
        self._sleepers = [(at, future) for at, future in self._sleepers if not future.done()]


class ScriptedStore:
    """Fails as `script` says, call by call, then works. With the gate shut, `write` hangs until it opens."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.groups: list[list[str]] = []
        self.written: list[str] = []
        self.upkeeps = 0
        self.down = ""
        self.poison: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def write(self, outcomes: Sequence[Outcome]) -> None:
        ids = [outcome.request_id for outcome in outcomes]
        self.groups.append(ids)
        assert self.gate.wait(30)
        if self.script and (problem := self.script.pop(0)) is not None:
            raise problem
        self.ping()
        if self.poison & set(ids):
            raise Unstorable("value")
        self.written += ids

    def ping(self) -> None:
        if self.down:
            raise StoreError(self.down)

    def upkeep(self) -> None:
        self.upkeeps += 1
        raise StoreError("busy")

    def report(self, feedback: Feedback, *, window_s: float) -> FeedbackStatus:
        return FeedbackStatus.RECORDED

    def enforce_retention(self, *, now_s: float, max_age_s: Mapping[str, float], default_max_age_s: float = 0.0) -> int:
        return threading.get_ident()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop and the threads run until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - another thread brings it about
            await asyncio.sleep(0)


async def pass_the_pause(clock: FakeClock, *, longest_s: float = 5.0) -> None:
    """Let the writer's backoff go by; other sleepers sleep longer."""
    await until(lambda: clock.wakes and clock.wakes[0] - clock.now <= longest_s + 1e-9)
    clock.advance(clock.wakes[0] - clock.now)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
async def recorder(store: ScriptedStore, clock: FakeClock) -> AsyncIterator[Recorder]:
    made = Recorder(store, clock, max_wait_s=1.0)  # type: ignore[arg-type]
    yield made
    store.gate.set()
    store.script.clear()
    await made.close(1.0)


def counts(recorder: Recorder) -> tuple[int, int, int, int, int]:
    c = recorder.counters
    return c.recorded, c.late, c.dropped, c.failed_batches, c.queue_depth


def ids(*numbers: int) -> list[str]:
    return [make.request_id(n) for n in numbers]


async def start(recorder: Recorder, *numbers: int) -> list[asyncio.Task[bool]]:
    """Begin recording; the outcomes are queued when this returns."""
    tasks = [asyncio.create_task(recorder.record(make.outcome(n))) for n in numbers]
    await asyncio.sleep(0)
    return tasks


async def hang(recorder: Recorder, store: ScriptedStore, n: int) -> asyncio.Task[bool]:
    """Have the store hang in writing outcome n."""
    store.gate.clear()
    groups = len(store.groups)
    (task,) = await start(recorder, n)
    await until(lambda: len(store.groups) > groups)
    return task


# --- working ---------------------------------------------------------------------------------


async def test_true_means_written(recorder: Recorder, store: ScriptedStore) -> None:
    assert recorder.counters == RecorderCounters(0, 0, 0, 0, 0)
    assert await recorder.record(make.outcome(1)) is True
    assert store.written == ids(1)
    assert counts(recorder) == (1, 0, 0, 0, 0)
    assert recorder.healthy


async def test_nobody_is_told_before_the_store_is_done(recorder: Recorder, store: ScriptedStore) -> None:
    task = await hang(recorder, store, 1)
    assert not task.done()
    assert counts(recorder) == (0, 0, 0, 0, 1)
    store.gate.set()
    assert await task is True


async def test_what_queues_up_during_a_write_goes_together(recorder: Recorder, store: ScriptedStore) -> None:
    first = await hang(recorder, store, 1)
    rest = await start(recorder, *range(2, 102))
    store.gate.set()
    assert all(await asyncio.gather(first, *rest))
    assert [len(group) for group in store.groups] == [1, 64, 36]
    assert store.written == ids(*range(1, 102))
    assert counts(recorder) == (101, 0, 0, 0, 0)


async def test_a_caller_in_a_hurry_goes_without_and_nothing_is_lost(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    """Its own time is over before the store's: the reply may not wait, the store is not to blame."""
    store.gate.clear()
    hurried = asyncio.create_task(recorder.record(make.outcome(1), within_s=0.2))
    patient = asyncio.create_task(recorder.record(make.outcome(2)))
    await until(lambda: store.groups and 0.2 in clock.wakes)
    clock.advance(0.2)
    assert await hurried is False
    assert recorder.healthy
    assert not patient.done()
    store.gate.set()
    assert await patient is True
    assert sorted(store.written) == ids(1, 2)
    assert counts(recorder) == (1, 1, 0, 0, 0)


async def test_the_stores_upkeep_is_done_beside_the_writes(recorder: Recorder, store: ScriptedStore) -> None:
    for first in range(1, 601, 50):
        assert all(await asyncio.gather(*await start(recorder, *range(first, first + 50))))
        await until(lambda: (upkeep := recorder._errands._upkeep) is None or upkeep.done())
    assert store.upkeeps == 2
    assert recorder.healthy  # that it failed is the store's affair


async def test_a_linger_waits_for_company(store: ScriptedStore, clock: FakeClock) -> None:
    recorder = Recorder(store, clock, max_wait_s=1.0, linger_s=0.25)  # type: ignore[arg-type]
    assert all(await asyncio.gather(*await start(recorder, 1)))
    assert store.groups == [ids(1)]  # it came alone and was written at once
    assert all(await asyncio.gather(*await start(recorder, 2, 3)))
    assert store.groups == [ids(1), ids(2, 3)]
    wakes = len(clock.wakes)
    first = await start(recorder, 4)
    await until(lambda: len(clock.wakes) > wakes)
    second = await start(recorder, 5)
    assert store.groups == [ids(1), ids(2, 3)]
    clock.advance(0.25)
    assert all(await asyncio.gather(*first, *second))
    assert store.groups == [ids(1), ids(2, 3), ids(4, 5)]
    assert await recorder.close(1.0) == 0


async def test_a_cancelled_request_is_recorded_all_the_same(recorder: Recorder, store: ScriptedStore) -> None:
    task = await hang(recorder, store, 1)
    (other,) = await start(recorder, 2)
    task.cancel()
    other.cancel()
    await asyncio.wait({task, other})
    assert task.cancelled()
    assert other.cancelled()
    store.gate.set()
    await until(lambda: recorder.counters.queue_depth == 0)
    assert store.written == ids(1, 2)
    assert counts(recorder) == (2, 0, 0, 0, 0)
    assert recorder.healthy


# --- slow ------------------------------------------------------------------------------------


async def test_a_slow_store_costs_max_wait_once_and_then_nothing(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    first = await hang(recorder, store, 1)
    clock.advance(0.5)
    (second,) = await start(recorder, 2)
    await until(lambda: clock.wakes)
    clock.advance(0.5)
    assert await first is False
    assert not second.done()
    assert (recorder.healthy, recorder.problem) == (False, "slow")
    assert await recorder.record(make.outcome(3)) is False  # known to be slow: not waited for
    await until(lambda: clock.wakes)
    clock.advance(0.5)
    assert await second is False
    assert counts(recorder) == (0, 0, 0, 0, 3)
    store.gate.set()
    await until(lambda: recorder.counters.queue_depth == 0)
    assert counts(recorder) == (0, 3, 0, 0, 0)
    assert (recorder.healthy, recorder.problem) == (True, "")
    assert await recorder.record(make.outcome(4)) is True
    assert counts(recorder) == (1, 3, 0, 0, 0)


async def test_a_wait_that_was_long_over_does_not_count(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    for n in range(1, 4):
        assert await recorder.record(make.outcome(n)) is True
        clock.advance(0.75)
    clock.advance(5.0)
    await until(lambda: not clock.wakes)
    assert recorder.healthy
    assert counts(recorder) == (3, 0, 0, 0, 0)


# --- failing ---------------------------------------------------------------------------------


async def test_an_outage_loses_nothing(recorder: Recorder, store: ScriptedStore, clock: FakeClock) -> None:
    store.script = [StoreError("busy"), StoreError("full"), StoreError("full")]
    assert await recorder.record(make.outcome(1)) is False  # at once: the clock has not moved
    assert (recorder.healthy, recorder.problem) == (False, "busy")
    assert await recorder.record(make.outcome(2)) is False
    for pause_s in (0.1, 0.2, 0.4):
        await pass_the_pause(clock, longest_s=pause_s)
    await until(lambda: recorder.counters.queue_depth == 0)
    assert store.written == ids(1, 2)
    assert counts(recorder) == (0, 2, 0, 3, 0)
    assert recorder.healthy
    assert await recorder.record(make.outcome(3)) is True


async def test_those_who_queued_behind_a_failing_group_are_let_go(recorder: Recorder, store: ScriptedStore) -> None:
    store.script = [StoreError("ioerr")]
    first = await hang(recorder, store, 1)
    rest = await start(recorder, 2, 3)
    store.gate.set()
    assert await asyncio.gather(first, *rest) == [False] * 3
    assert counts(recorder) == (0, 0, 0, 1, 3)


async def test_the_backoff_is_bounded_and_starts_anew(store: ScriptedStore, clock: FakeClock) -> None:
    recorder = Recorder(store, clock, max_wait_s=1e6)  # type: ignore[arg-type]

    async def outage(failures: int) -> list[float]:
        store.script = [StoreError("down")] * failures
        assert await recorder.record(make.outcome(recorder.counters.late + 1)) is False
        pauses = []
        for _ in range(failures):
            before = clock.now
            await pass_the_pause(clock)
            pauses.append(round(clock.now - before, 6))
        await until(lambda: recorder.counters.queue_depth == 0)
        return pauses

    assert await outage(8) == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert await outage(2) == [0.1, 0.2]
    await recorder.close(1.0)


async def test_a_full_queue_drops_and_counts(store: ScriptedStore, clock: FakeClock) -> None:
    recorder = Recorder(store, clock, max_wait_s=1.0, max_queued=5)  # type: ignore[arg-type]
    first = await hang(recorder, store, 1)
    rest = await start(recorder, *range(2, 10))
    assert [task.result() for task in rest[4:]] == [False] * 4
    assert counts(recorder) == (0, 0, 4, 0, 5)
    store.gate.set()
    assert await asyncio.gather(first, *rest) == [True] * 5 + [False] * 4
    assert store.written == ids(1, 2, 3, 4, 5)
    assert await recorder.record(make.outcome(10)) is True
    assert await recorder.close(1.0) == 0


async def test_the_queue_is_bounded_in_bytes_too(store: ScriptedStore, clock: FakeClock) -> None:
    recorder = Recorder(store, clock, max_wait_s=1.0, max_queued_bytes=100_000)  # type: ignore[arg-type]
    first = await hang(recorder, store, 1)
    long = make.outcome(2, attempts=[make.attempt(result=make.reply(output_tokens=20_000))])
    second = asyncio.create_task(recorder.record(long))
    await asyncio.sleep(0)
    assert await recorder.record(replace(make.outcome(3), request_features=bytes(20_000))) is False
    assert await recorder.record(make.outcome(4, retained=RetainedText("x" * 20_000, ""))) is False
    (small,) = await start(recorder, 5)
    store.gate.set()
    assert await asyncio.gather(first, second, small) == [True] * 3
    assert await recorder.record(make.outcome(6, retained=RetainedText("x" * 90_000, ""))) is True
    assert counts(recorder) == (4, 0, 2, 0, 0)
    await recorder.close(1.0)


async def test_one_outcome_that_cannot_be_stored_costs_no_other(recorder: Recorder, store: ScriptedStore) -> None:
    store.poison = set(ids(4, 6))
    first = await hang(recorder, store, 1)
    rest = await start(recorder, *range(2, 8))
    store.gate.set()
    assert await asyncio.gather(first, *rest) == [True, True, True, False, True, False, True]
    assert store.written == ids(1, 2, 3, 5, 7)
    assert counts(recorder) == (5, 0, 2, 3, 0)
    assert recorder.healthy  # the store did its part
    more = await start(recorder, 8, 9)
    assert await asyncio.gather(*more) == [True, True]
    assert store.groups[-1] == ids(8, 9)


async def test_a_failure_among_those_written_alone_keeps_them(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    store.script = [Unstorable("value"), None, StoreError("busy")]
    tasks = await start(recorder, 1, 2, 3)
    assert await asyncio.gather(*tasks) == [True, False, False]
    await pass_the_pause(clock, longest_s=0.1)
    await until(lambda: recorder.counters.queue_depth == 0)
    assert store.written == ids(1, 2, 3)
    assert counts(recorder) == (1, 2, 0, 2, 0)


async def test_a_bug_in_the_store_is_contained_and_seen(recorder: Recorder, store: ScriptedStore) -> None:
    store.script = [TypeError("secret"), None, TypeError("secret")]
    tasks = await start(recorder, 1, 2)
    assert await asyncio.gather(*tasks) == [True, False]
    assert (recorder.healthy, recorder.problem) == (False, "TypeError")
    assert counts(recorder) == (1, 0, 1, 2, 0)
    assert await recorder.record(make.outcome(3)) is False  # nobody waits for a store that is not well
    await until(lambda: recorder.counters.queue_depth == 0)
    assert recorder.healthy


# --- errands ---------------------------------------------------------------------------------


async def test_errands_run_off_the_loop_and_beside_a_hanging_write(recorder: Recorder, store: ScriptedStore) -> None:
    task = await hang(recorder, store, 1)
    feedback = Feedback(make.request_id(1), good=True)
    assert await recorder.run(lambda s: s.report(feedback, window_s=1.0)) is FeedbackStatus.RECORDED
    threads = [await recorder.run(lambda s: s.enforce_retention(now_s=0.0, max_age_s={})) for _ in range(2)]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    store.gate.set()
    assert await task is True


async def test_an_errands_problem_is_its_callers(recorder: Recorder) -> None:
    def fail(_store: object) -> None:
        raise StoreError("busy")

    with pytest.raises(StoreError, match="busy"):
        await recorder.run(fail)
    assert recorder.healthy


async def test_errands_are_bounded(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "ERRANDS", 3)
    begun, gate = threading.Event(), threading.Event()

    def hold(_store: object) -> None:
        begun.set()
        gate.wait(30)

    running = asyncio.create_task(recorder.run(hold))
    await until(begun.is_set)
    done: list[int] = []
    queued = [asyncio.create_task(recorder.run(lambda _, n=n: done.append(n))) for n in range(3)]
    await asyncio.sleep(0)
    queued[0].cancel()
    await asyncio.wait(queued[:1])
    with pytest.raises(StoreError, match="overloaded"):  # given up or not, it is in the line
        await recorder.run(lambda _: None)
    gate.set()
    await asyncio.wait([running, *queued])
    assert await recorder.run(lambda _: "again") == "again"
    assert done == [1, 2]  # nobody waited for the other


# --- closing ---------------------------------------------------------------------------------


async def test_close_writes_what_is_queued_and_takes_no_more(recorder: Recorder, store: ScriptedStore) -> None:
    first = await hang(recorder, store, 1)
    rest = await start(recorder, *range(2, 100))
    closing = asyncio.create_task(recorder.close(1.0))
    await asyncio.sleep(0)
    assert await recorder.record(make.outcome(100)) is False
    with pytest.raises(StoreError, match="closed"):
        await recorder.run(lambda _: None)
    store.gate.set()
    assert await closing == 0
    assert all(await asyncio.gather(first, *rest))
    assert counts(recorder) == (99, 0, 1, 0, 0)
    assert await recorder.close(1.0) == 0


async def test_close_does_not_wait_for_a_backoff(recorder: Recorder, store: ScriptedStore, clock: FakeClock) -> None:
    store.script = [StoreError("busy")]
    assert await recorder.record(make.outcome(1)) is False
    await until(lambda: recorder._pause is not None)
    assert await recorder.close(1.0) == 0  # the clock has not moved
    assert store.written == ids(1)
    assert counts(recorder) == (0, 1, 0, 1, 0)


async def test_close_gives_up_in_time_and_says_how_many(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    first = await hang(recorder, store, 1)
    rest = await start(recorder, 2, 3)
    closing = asyncio.create_task(recorder.close(0.5))
    await until(lambda: 0.5 in clock.wakes)
    clock.advance(0.5)
    assert await closing == 3
    assert await asyncio.gather(first, *rest) == [False] * 3
    assert counts(recorder) == (0, 0, 3, 0, 0)


async def test_close_keeps_trying_a_failing_store_until_its_time_is_up(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    store.script = [StoreError("busy")] * 100
    assert await recorder.record(make.outcome(1)) is False
    closing = asyncio.create_task(recorder.close(0.25))
    await until(lambda: 0.25 in clock.wakes)
    for _ in range(3):
        await pass_the_pause(clock, longest_s=0.1)
    assert await closing == 1
    assert counts(recorder)[:3] == (0, 0, 1)
    assert 3 <= recorder.counters.failed_batches <= 5


async def test_close_of_an_unused_recorder(store: ScriptedStore, clock: FakeClock) -> None:
    assert await Recorder(store, clock, max_wait_s=1.0).close(1.0) == 0  # type: ignore[arg-type]


# --- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
async def test_every_outcome_is_counted_once(seed: int, clock: FakeClock) -> None:
    rng = random.Random(seed)
    store = ScriptedStore(*(rng.choice([None, None, StoreError("busy"), Unstorable("value")]) for _ in range(60)))
    recorder = Recorder(store, clock, max_wait_s=0.5, max_queued=20)  # type: ignore[arg-type]
    tasks: list[asyncio.Task[bool]] = []
    for _ in range(40):
        tasks += await start(recorder, *range(len(tasks) + 1, len(tasks) + rng.randrange(8)))
        if tasks and rng.random() < 0.3:
            rng.choice(tasks).cancel()
        store.gate.set() if rng.random() < 0.7 else store.gate.clear()
        clock.advance(rng.choice([0.0, 0.05, 0.3]))
        for _ in range(rng.randrange(20)):
            await asyncio.sleep(0)
    store.gate.set()
    store.script.clear()
    closing = asyncio.create_task(recorder.close(60.0))
    while not closing.done():
        if recorder._pause is not None:  # the last failure came just before the script ended
            clock.advance(0.1)
        await asyncio.sleep(0)
    assert closing.result() == 0
    told = await asyncio.gather(*tasks, return_exceptions=True)
    final = recorder.counters
    assert final.queue_depth == 0
    assert final.recorded + final.late == len(store.written) == len(set(store.written))
    assert final.recorded + final.late + final.dropped == len(tasks)
    yes = {make.request_id(n + 1) for n, one in enumerate(told) if one is True}
    assert yes <= set(store.written)


# --- kill -9 ---------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/outcomes.db"
    SqlStore(url).close()
    rng = random.Random(9)
    acknowledged: set[int] = set()
    command = [sys.executable, "-m", "tests.support.record_until_killed", url]
    for round_ in range(4):
        with subprocess.Popen([*command, str(1 + round_ * 1_000_000)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(50, 400)):
                acknowledged.add(int(process.stdout.readline()))
            process.kill()
            # A line cut off by the kill is no acknowledgement.
            acknowledged.update(int(line) for line in process.stdout if line.endswith("\n"))
        store = SqlStore(url)
        stored = [int(recorded.outcome.request_id, 16) for recorded in store.read()]
        assert store.corrupt_rows == 0
        store.close()
        assert len(stored) == len(set(stored))
        assert acknowledged <= set(stored)
    assert len(acknowledged) >= 200
