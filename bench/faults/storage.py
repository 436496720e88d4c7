"""R11: a damaged store and journal. R12: the store is held up, and its disk is full."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import durability

from bench.faults.load import overheads_s
from bench.faults.result import Result, percentile
from bench.faults.stand import Calls, at_rate, stand
from router import frames
from router.store import Recorded, StoreError
from router.store.sql import SqlStore
from tests.support import outcomes as make

_ROWS = 60
_STEP = 512
_RATE = 50.0  # a share of what this carries, so that a wait of milliseconds shows


def damaged(scale: float, seed: int) -> Result:
    """R11: bits flipped and tails cut, in the store's files and in the journal's."""
    flips = int(300 * scale)
    result = Result("R11", "damaged store", seed=seed)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        good.mkdir()
        store = SqlStore(f"sqlite:///{good}/outcomes.db")
        written = [make.typical(n) for n in range(1, _ROWS + 1)]
        store.write(written)
        shutil.copytree(good, Path(folder) / "copied")  # with its log, as a crash would leave it
        store.close()
        true = {each.request_id: make.comparable(each) for each in written}
        files = sorted((Path(folder) / "copied").glob("outcomes.db*"))
        wrong = crashes = told = 0
        for n in range(flips):
            found = _read_spoilt(Path(folder), _flipped(rng, rng.choice(files)), n)
            wrong += sum(make.comparable(each.outcome) != true.get(each.outcome.request_id) for each in found[0])
            crashes += found[1]
            told += found[2]
        log = next(file for file in files if file.name.endswith("-wal"))
        cuts = range(0, log.stat().st_size, max(_STEP, _STEP * int(4 / max(scale, 0.1))))
        for n, cut in enumerate(cuts):
            found = _read_spoilt(Path(folder), (log, log.read_bytes()[:cut]), n)
            wrong += sum(make.comparable(each.outcome) != true.get(each.outcome.request_id) for each in found[0])
            crashes += found[1]
    result.n = f"{flips} flips, {len(cuts)} cuts of the store; {flips} flips of the journal"
    result.none("rows read that are not as they were written", wrong)
    result.none("ends other than rows or a StoreError", crashes)
    result.told("flips told as damage", str(told))
    lost, changed = _spoilt_journal(rng, flips)
    result.most("outcomes of the journal lost to a flip, most", lost, 1)
    result.none("outcomes of the journal changed by a flip", changed)
    return result


def _flipped(rng: random.Random, file: Path) -> tuple[Path, bytes]:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return file, bytes(content)


def _read_spoilt(folder: Path, spoilt: tuple[Path, bytes], number: int) -> tuple[list[Recorded], int, int]:
    """(rows read, unforeseen errors, whether the damage was told) of a copy in which one file is another."""
    place = folder / f"try-{number % 2}"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(spoilt[0].parent, place)
    (place / spoilt[0].name).write_bytes(spoilt[1])
    rows: list[Recorded] = []
    try:
        store = SqlStore(f"sqlite:///{place}/outcomes.db")
        try:
            rows.extend(store.read())
            return rows, 0, int(store.corrupt_rows > 0)
        finally:
            with suppress(StoreError):
                store.close()
    except StoreError:
        return rows, 0, 1
    except Exception:  # noqa: BLE001 - this is what is counted
        return rows, 1, 0


def _spoilt_journal(rng: random.Random, flips: int) -> tuple[int, int]:
    """(most outcomes lost to one flip, outcomes that came back changed)."""
    written = [make.typical(n) for n in range(1, 21)]
    content = b"".join(map(frames.encode, written))
    true = {each.request_id: make.comparable(each) for each in written}
    lost = changed = 0
    for _ in range(flips):
        spoilt = bytearray(content)
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        found = []
        for begin, end in frames.scan(bytes(spoilt)).payloads:
            with suppress(frames.Unreadable):
                found.append(frames.decode(bytes(spoilt[begin:end])))
        lost = max(lost, len(written) - len(found))
        changed += sum(make.comparable(each) != true.get(each.request_id) for each in found)
    return lost, changed


def away(scale: float, seed: int) -> Result:
    """R12: the store is locked by somebody else; then its disk is full, and then the journal's too."""
    seconds = 12.0 * scale
    result = Result("R12", "store down, disk full", n=f"{int(_RATE * seconds)} calls for each", seed=seed)
    _held_up(result, seconds, seed)
    with _small_disk(max(16, int(16 * scale))) as disk:  # one that holds all outcomes once there is room
        if disk is None:
            result.told("disk full", "not tried: mounting a small disk needs root")
        else:
            _filled(result, disk, seconds, seed)
    return result


def _held_up(result: Result, seconds: float, seed: int) -> None:
    with stand(latency="0.05", seed=seed) as here:
        with here.service() as (_, port):

            def called(for_s: float) -> Calls:
                return asyncio.run(at_rate(port, _RATE, for_s))

            called(5.0)  # warm
            before = called(seconds)
            with _locked(here.folder / "outcomes.db"):
                at_first, meanwhile = called(1.0), called(seconds)
            after = called(5.0)
        periods = (at_first, meanwhile, after)
        replies = [reply for each in periods for reply in each.replies]
        acknowledged = {reply.request_id for reply in replies if reply.recorded}
        stored = stored_ids(here.store_url, here.folder / "outcomes.journal")
    result.none("locked: calls that failed", sum(each.n - each.statuses["OK"] for each in periods))
    result.none("locked: replies not recorded", len(replies) - len(acknowledged))
    result.none("locked: acknowledged and lost", len(acknowledged - stored))
    usual_ms, meanwhile_ms, after_ms = (1e3 * percentile(overheads_s(each), 99) for each in (before, meanwhile, after))
    result.most("locked, after the first second: overhead p99 above that before", meanwhile_ms - usual_ms, 5.0, " ms")
    waits = overheads_s(at_first)
    result.told(
        "locked, the first second: calls that waited for the store's patience, the longest",
        f"{sum(wait > 0.02 for wait in waits)}, {1e3 * max(waits):.0f} ms",
    )
    result.told("overhead p99 before, in 5 s of catching up", f"{usual_ms:.1f}, {after_ms:.1f} ms")


def _filled(result: Result, disk: Path, seconds: float, seed: int) -> None:
    journal = 'journal = "{folder}/journal"\njournal_max_bytes = 1048576\n'
    more = f'[store]\nurl = "sqlite:///{disk}/outcomes.db"\n{journal}'
    with stand(more, latency="0.05", seed=seed) as here, here.service() as (process, port):
        asyncio.run(at_rate(port, 50.0, 1.0))
        filler = disk / "filler"
        _fill(filler)
        calls = asyncio.run(at_rate(port, 100.0, seconds))
        told_dropped = sum(not reply.recorded for reply in calls.replies)
        filler.unlink()
        time.sleep(6.0)
        after = asyncio.run(at_rate(port, 50.0, 2.0))
        alive = process.poll() is None
        process.terminate()
        process.wait(30)
        stored = stored_ids(f"sqlite:///{disk}/outcomes.db", here.folder / "journal")
    acknowledged = {reply.request_id for reply in calls.replies if reply.recorded}
    result.none("disk full: calls that failed", calls.n - calls.statuses["OK"])
    result.none("disk full: acknowledged and lost", len(acknowledged - stored))
    result.told("disk full, journal of 1 MiB full too: replies marked recorded = false", str(told_dropped))
    result.true("goes on without a restart", holds=alive)
    result.none("replies not recorded once there is room again", sum(not reply.recorded for reply in after.replies))


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    """Somebody else holds the write lock."""
    connection = sqlite3.connect(database, timeout=30)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


@contextmanager
def _small_disk(megabytes: int) -> Iterator[Path | None]:
    """A file system of its own, where that may be made."""
    with tempfile.TemporaryDirectory() as folder:
        mount = ("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder)
        if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
            yield None
            return
        try:
            yield Path(folder)
        finally:
            subprocess.run(("umount", "-l", folder), check=False, capture_output=True)  # noqa: S607


def _fill(file: Path) -> None:
    with suppress(OSError), file.open("wb", buffering=0) as open_file:
        while True:
            open_file.write(bytes(1 << 12))


def stored_ids(url: str, journal: Path) -> set[str]:
    """The request ids that are in the store once the journal's have been brought there."""
    store = SqlStore(url)
    try:
        durability.drain(store, journal)
        return {each.outcome.request_id for each in store.read()}
    finally:
        store.close()
