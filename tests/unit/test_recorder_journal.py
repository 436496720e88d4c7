"""The recorder with a journal behind it: replies stay recorded in any trouble of the store, which gets all later."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router import frames, segments
from router.counters import BacklogCounters
from router.journal import Journal, Waiting, survey
from router.recorder import Recorder
from router.store import StoreError, Unstorable
from router.store.sql import SqlStore
from tests.support import outcomes as make
from tests.unit.test_recorder import FakeClock, ScriptedStore, counts, hang, ids, start, until

PATIENCE_S = 0.25
ENDLESS_S = 100.0  # `pass_time` passes over such sleepers: no write is slow only because the fake clock ran on


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def make_recorder(store: ScriptedStore, clock: FakeClock, folder: Path, *, max_bytes: int = 1 << 20) -> Recorder:
    journal = Journal(folder, max_bytes=max_bytes)
    return Recorder(store, clock, max_wait_s=1.0, journal=journal, patience_s=ENDLESS_S)  # type: ignore[arg-type]


@pytest.fixture
async def recorder(store: ScriptedStore, clock: FakeClock, folder: Path) -> AsyncIterator[Recorder]:
    made = make_recorder(store, clock, folder)
    yield made
    store.gate.set()
    await made.close(1.0)


async def pass_time(recorder: Recorder, clock: FakeClock, condition: object) -> None:
    """Let time pass, sleeper by sleeper, until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)
            if clock.wakes and clock.wakes[0] - clock.now <= 5.001:  # the longest backoff, and what floats make of it
                clock.advance(clock.wakes[0] - clock.now)


async def drained(recorder: Recorder, clock: FakeClock) -> None:
    await pass_time(recorder, clock, lambda: recorder.healthy and not recorder.backlog.size_bytes)


async def test_an_outage_is_not_seen_by_the_replies_and_loses_nothing(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, folder: Path
) -> None:
    assert await recorder.record(make.outcome(1)) is True
    store.down = "busy"
    for n in range(2, 102):
        assert await recorder.record(make.outcome(n)) is True
    assert clock.now == 0  # nobody waited for anything but the journal
    assert (recorder.healthy, recorder.problem, store.written) == (False, "busy", ids(1))
    assert counts(recorder)[0] == 101
    assert recorder.backlog.depth == recorder.backlog.journalled == 100
    store.down = ""
    await drained(recorder, clock)
    assert store.written == ids(*range(1, 102))  # in order, each once
    assert recorder.backlog == BacklogCounters(journalled=100, drained=100)
    assert survey(folder) == Waiting(0, 0, 0)
    assert await recorder.record(make.outcome(102)) is True
    assert store.groups[-1] == ids(102)
    assert (counts(recorder)[:3], recorder.backlog.journalled) == ((102, 0, 0), 100)


async def test_a_store_that_hangs_costs_its_patience_once(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    recorder._patience_s = PATIENCE_S
    first = await hang(recorder, store, 1)
    await until(lambda: clock.wakes and clock.wakes[0] == PATIENCE_S)
    clock.advance(PATIENCE_S)
    assert await first is True  # by the journal
    assert recorder.problem == "slow"
    for n in range(2, 12):
        assert await recorder.record(make.outcome(n)) is True
    assert clock.now == PATIENCE_S
    store.gate.set()
    await drained(recorder, clock)
    assert set(store.written) == set(ids(*range(1, 12)))
    assert store.written[0] == ids(1)[0]  # once by the write that hung, and again by the journal: a store has it once
    assert counts(recorder)[:3] == (11, 0, 0)


async def test_a_store_in_trouble_is_asked_and_brought_nothing(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    store.down = "unreachable"
    for n in range(1, 65):
        assert await recorder.record(make.outcome(n)) is True
    await pass_time(recorder, clock, lambda: clock.now > 60)
    assert store.groups == [ids(1)]  # the write that found it so
    store.down = ""
    await drained(recorder, clock)
    assert store.groups[1:] == [ids(*range(1, 65))]


async def test_what_is_given_up_before_it_began_comes_by_the_journal_alone(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    recorder._patience_s = PATIENCE_S
    store.down = "unreachable"
    for n in range(1, 66):
        assert await recorder.record(make.outcome(n)) is True
    store.down = ""
    store.gate.clear()
    await pass_time(recorder, clock, lambda: store.groups[-1] == ids(*range(1, 65)))
    first, store.gate = store.gate, threading.Event()
    first.set()
    await until(lambda: store.groups[-1] == ids(65))  # under way when the next one comes
    assert recorder.healthy
    late = asyncio.create_task(recorder.record(make.outcome(66)))
    await until(lambda: clock.wakes and clock.wakes[0] == clock.now + PATIENCE_S)
    clock.advance(PATIENCE_S)
    assert await late is True
    assert recorder.problem == "slow"
    store.gate.set()
    await drained(recorder, clock)
    assert store.written == ids(*range(1, 67))


async def test_those_who_queued_behind_a_failing_group_are_recorded_too(
    recorder: Recorder, store: ScriptedStore
) -> None:
    store.down = "ioerr"
    first = await hang(recorder, store, 1)
    rest = await start(recorder, 2, 3)
    store.gate.set()
    assert await asyncio.gather(first, *rest) == [True] * 3


async def test_a_process_drains_what_the_one_before_it_left(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, folder: Path
) -> None:
    store.down = "full"
    assert all([await recorder.record(make.outcome(n)) for n in range(1, 101)])
    assert await recorder.close(1.0) == 0
    store.down = ""
    heir = make_recorder(store, clock, folder)
    assert heir.backlog.depth == 100
    await heir.recover()
    await drained(heir, clock)
    assert store.written == ids(*range(1, 101))
    assert heir.backlog == BacklogCounters(drained=100)
    await heir.close(1.0)


async def test_at_the_end_what_is_queued_goes_to_the_journal(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, folder: Path
) -> None:
    recorder._patience_s = PATIENCE_S
    first = await hang(recorder, store, 1)
    rest = await start(recorder, *range(2, 100))
    closing = asyncio.create_task(recorder.close(1.0))
    await until(lambda: PATIENCE_S in clock.wakes)
    clock.advance(PATIENCE_S)
    assert await closing == 0
    assert all(await asyncio.gather(first, *rest))
    heir = Journal(folder, max_bytes=1 << 20)
    assert heir.depth == 99


async def test_with_the_journal_full_too_drops_are_counted_and_said(
    store: ScriptedStore, clock: FakeClock, folder: Path
) -> None:
    ten = sum(len(frames.encode(make.outcome(n))) for n in range(1, 11))
    journal = Journal(folder, max_bytes=ten + 16)
    recorder = Recorder(
        store,  # type: ignore[arg-type]
        clock,
        max_wait_s=1.0,
        journal=journal,
        patience_s=ENDLESS_S,
        max_queued=5,
    )
    store.down = "full"
    told = [await recorder.record(make.outcome(n)) for n in range(1, 31)]
    assert told == [True] * 10 + [False] * 20
    assert clock.now == 0
    assert counts(recorder)[:3] == (10, 0, 15)
    assert counts(recorder)[4] == 5  # kept in memory, for when one of the two is back
    assert not recorder.healthy
    store.down = ""
    await pass_time(recorder, clock, lambda: not recorder.counters.queue_depth and not recorder.backlog.depth)
    assert sorted(store.written) == ids(*range(1, 16))
    assert counts(recorder)[:3] == (10, 5, 15)
    await drained(recorder, clock)
    assert await recorder.record(make.outcome(31)) is True
    await recorder.close(1.0)


async def test_a_journal_on_a_full_disk_is_got_over_without_the_store(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(segments.os, "write", full)
    store.down = "full"
    assert await recorder.record(make.outcome(1)) is False
    assert await recorder.record(make.outcome(2)) is False
    monkeypatch.undo()
    await pass_time(recorder, clock, lambda: recorder.counters.queue_depth == 0)
    assert await recorder.record(make.outcome(3)) is True
    assert (counts(recorder)[:3], recorder.backlog.depth) == ((1, 2, 0), 3)
    store.down = ""
    await drained(recorder, clock)
    assert store.written == ids(1, 2, 3)


async def test_with_the_journals_disk_gone_the_store_is_used_as_soon_as_it_is_back(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.down = "busy"
    assert await recorder.record(make.outcome(1)) is True

    def gone(*_args: object) -> bytes:
        raise OSError(errno.EIO, "gone")

    monkeypatch.setattr(segments.os, "write", gone)
    monkeypatch.setattr(segments.os, "pread", gone)
    assert await recorder.record(make.outcome(2)) is False
    store.down = ""
    await pass_time(recorder, clock, lambda: recorder.healthy and not recorder.counters.queue_depth)
    assert set(store.written) == set(ids(2))
    assert await recorder.record(make.outcome(3)) is True
    monkeypatch.undo()
    await recorder.recover()
    await drained(recorder, clock)
    assert set(store.written) == set(ids(2, 3, 1))


async def test_a_journal_that_hangs_holds_up_nobody_for_long(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, write = threading.Event(), os.write

    def slow(fd: int, data: bytes) -> int:
        assert gate.wait(30)
        return write(fd, data)

    store.down = "busy"
    monkeypatch.setattr(segments.os, "write", slow)
    (first,) = await start(recorder, 1)
    await pass_time(recorder, clock, first.done)
    assert first.result() is False
    assert clock.now >= 1.0
    assert await recorder.record(make.outcome(2)) is False
    gate.set()
    store.down = ""
    await pass_time(recorder, clock, lambda: recorder.counters.queue_depth == 0)
    await drained(recorder, clock)
    assert set(store.written) == set(ids(1, 2))
    assert counts(recorder)[:3] == (0, 2, 0)


async def test_what_no_store_would_have_is_left_out_of_the_draining(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    store.down = "busy"
    for n in range(1, 8):
        assert await recorder.record(make.outcome(n)) is True
    store.poison = set(ids(3, 6))
    store.down = ""
    await drained(recorder, clock)
    assert store.written == ids(1, 2, 4, 5, 7)
    assert (recorder.backlog.drained, recorder.backlog.lost) == (5, 2)


async def test_an_outcome_that_cannot_be_journalled_costs_no_other(recorder: Recorder, store: ScriptedStore) -> None:
    store.down = "busy"
    assert await recorder.record(make.outcome(1)) is True
    tasks = await start(recorder, 2)
    tasks += [asyncio.create_task(recorder.record(make.outcome(3, top_tier_cost_usd=float("nan"))))]
    tasks += await start(recorder, 4)
    assert await asyncio.gather(*tasks) == [True, False, True]
    assert recorder.counters.dropped == 1


async def test_a_bug_in_the_store_is_contained_and_got_over(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock
) -> None:
    store.script = [TypeError("secret"), TypeError("secret")]
    assert await recorder.record(make.outcome(1)) is False
    assert recorder.problem == "TypeError"
    assert await recorder.record(make.outcome(2)) is True  # by the journal
    await drained(recorder, clock)
    assert store.written == ids(2)  # by the drainer
    assert recorder.counters.dropped == 1


@pytest.mark.parametrize("problem", [StoreError("busy"), TypeError("secret"), Unstorable("value")])
async def test_draining_goes_on_whatever_the_store_raises(
    recorder: Recorder, store: ScriptedStore, clock: FakeClock, problem: Exception
) -> None:
    store.down = "busy"
    assert all([await recorder.record(make.outcome(n)) for n in range(1, 4)])
    store.script = [problem, problem]
    store.down = ""
    await drained(recorder, clock)
    assert store.written == (ids(2, 3) if isinstance(problem, Unstorable) else ids(1, 2, 3))


def test_no_kill_while_journalling_or_draining_loses_or_doubles_an_outcome(tmp_path: Path, folder: Path) -> None:
    rng = random.Random(5)
    url = f"sqlite:///{tmp_path}/outcomes.db"
    command = [sys.executable, "-m", "tests.support.drain_until_killed", url, str(folder)]
    acknowledged: set[int] = set()
    for round_ in range(2):
        with subprocess.Popen([*command, str(1 + round_ * 1_000_000)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(300, 600)):
                acknowledged.add(int(process.stdout.readline()))
            process.kill()
            acknowledged.update(int(line) for line in process.stdout if line.endswith("\n"))
    line, kills = "", 0
    while line != "done\n":
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(1 if kills == 0 else rng.randrange(2, 6)):
                line = process.stdout.readline()
            kills += line != "done\n"
            if kills > 2:
                line = process.stdout.readlines()[-1]
            process.kill()
    assert kills > 0
    store = SqlStore(url)
    stored = [int(recorded.outcome.request_id, 16) for recorded in store.read()]
    store.close()
    assert stored == sorted(set(stored))
    assert acknowledged <= set(stored)
    assert len(acknowledged) > 600
    assert (store.corrupt_rows, survey(folder)) == (0, Waiting(0, 0, 0))
