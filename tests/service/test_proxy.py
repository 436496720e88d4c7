"""Two replicas behind a real Envoy with the shipped configuration, one PostgreSQL, one folder of models.

`make test-replicas` brings both; without them these tests are skipped. ROUNDS=20 restarts each replica so often,
AWAY_S=30 keeps PostgreSQL away for so many seconds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource
from router.store.sql import SqlStore
from tests.service.test_complete import until
from tests.service.test_learning import publish
from tests.support import envoy, postgres
from tests.support.replicas import Callers, Replica, kept, report_good

pytestmark = [
    pytest.mark.skipif(envoy.binary() is None, reason=envoy.MISSING),
    pytest.mark.skipif(not postgres.dsn(), reason=f"no PostgreSQL: make test-replicas, or {postgres.VARIABLE}"),
]
ROUNDS = int(os.environ.get("ROUNDS", "2"))
AWAY_S = float(os.environ.get("AWAY_S", "0"))
AT_ONCE = 6


@dataclass
class Fleet:
    """Both replicas, the proxy before them and those who call it."""

    folder: Path
    store_url: str
    replicas: list[Replica]
    proxy: envoy.Envoy
    callers: Callers
    calling: asyncio.Future[None]

    async def seen(self, *replicas: Replica) -> None:
        """Until the proxy sends calls to these and no other."""
        await self.proxy.sees({each.port for each in replicas})

    async def both_answer(self) -> None:
        """Until both have answered anew."""
        self.callers.answered_by.clear()
        await until(lambda: min(self.callers.answered_by[each.name] for each in self.replicas) > 20)

    async def over(self) -> None:
        """No more calls; every one has ended."""
        self.callers.over = True
        await self.calling
        for replica in self.replicas:
            await replica.stop()

    async def stored(self, store_url: str, request_ids: Iterable[str]) -> None:
        """Until the store has these."""
        store = SqlStore(store_url)
        try:
            for request_id in request_ids:
                while not await asyncio.to_thread(store.workload_of, request_id):  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0.1)
        finally:
            store.close()

    def lost(self) -> set[str]:
        """Replies that were said to be recorded and are not."""
        return set(self.callers.recorded) - kept(self.store_url, self.folder).keys()


@pytest.fixture
def store_url() -> Iterator[str]:
    with postgres.database(f"tierwise_proxy_{os.getpid()}") as url:
        yield url


@asynccontextmanager
async def fleet(folder: Path, store_url: str, *, judges: bool = True) -> AsyncIterator[Fleet]:
    emulator = Emulator(StaticSource())
    upstream = await emulator.start()
    # The drain outlasts the proxy's health check: its interval and its timeout.
    replicas = [Replica(name, folder, upstream, store_url, drain_s=2.0) for name in ("one", "two")]
    proxy = envoy.Envoy(folder, (replicas[0].port, replicas[1].port))
    callers = Callers(judges=judges)
    try:
        await asyncio.gather(proxy.start(), *(each.start() for each in replicas))
        await proxy.sees({each.port for each in replicas})
        calling = asyncio.ensure_future(callers.call(proxy.target, at_once=AT_ONCE, balanced=False))
        made = Fleet(folder, store_url, replicas, proxy, callers, calling)
        await made.both_answer()
        yield made
        await made.over()
    finally:
        callers.over = True
        for replica in replicas:
            await replica.stop(signal.SIGKILL)
        await proxy.stop()
        await emulator.stop()


async def test_rolling_restarts_and_new_models_cost_no_call(tmp_path: Path, store_url: str) -> None:
    restarts, on_all_s, other_s = 0, [], 0
    async with fleet(tmp_path, store_url) as running:
        callers, channel = running.callers, grpc.aio.insecure_channel(running.proxy.target)
        for number in range(ROUNDS):
            for replica, other in (running.replicas, running.replicas[::-1]):
                of_this = [id_ for id_, name in callers.recorded.items() if name == replica.name][-20:]
                assert await replica.stop() == 0
                await running.seen(other)
                callers.answered_by.clear()
                for id_ in of_this:  # whose reply it was is not there to take it
                    assert await report_good(channel, id_) in ("OK", "OK, told to wait")
                    other_s += 1
                await until(lambda other=other: callers.answered_by[other.name] > 20)
                assert not callers.answered_by[replica.name]
                await replica.start()
                await running.seen(*running.replicas)
                await running.both_answer()
                restarts += 1
            published_s = time.monotonic()
            publish(tmp_path / "models", f"night-{number}")
            await asyncio.gather(*(each.decides_with(f"night-{number}") for each in running.replicas))
            on_all_s.append(time.monotonic() - published_s)
            await until(lambda number=number: callers.versions[f"night-{number}"] > 0)
        await channel.close()
    assert set(callers.statuses) == {"OK"}
    assert set(callers.reports) <= {"OK", "OK, told to wait"}
    assert len(callers.recorded) == callers.statuses["OK"]
    assert not running.lost()
    print(  # noqa: T201 - the figures, for docs/measurements.md
        f"\nrolling restarts: {restarts} restarts, {callers.statuses['OK']} calls, 0 failed, 0 outcomes lost; "
        f"{callers.reports.total()} reports, 0 refused, {callers.reports['OK, told to wait']} told to wait, "
        f"{other_s} of them at a replica other than the reply's while that was down; a new model on both in "
        f"{max(on_all_s):.2f} s at most (model.poll_s 0.1)"
    )


async def test_a_killed_replica_costs_only_what_it_held_and_loses_no_outcome(tmp_path: Path, store_url: str) -> None:
    kills = 0
    async with fleet(tmp_path, store_url) as running:
        callers = running.callers
        for replica, other in (running.replicas, running.replicas[::-1]) * ROUNDS:
            before = callers.statuses.total() - callers.statuses["OK"]
            await replica.stop(signal.SIGKILL)
            await running.seen(other)
            callers.answered_by.clear()
            await until(lambda other=other: callers.answered_by[other.name] > 20)
            assert callers.statuses.total() - callers.statuses["OK"] - before <= AT_ONCE
            await replica.start()
            await running.seen(*running.replicas)
            await running.both_answer()
            kills += 1
        retried = await running.proxy.count("upstream_rq_retry")
    failed = callers.statuses.total() - callers.statuses["OK"]
    assert {status.split()[0] for status in callers.statuses} <= {"OK", "UNAVAILABLE"}
    assert not running.lost()
    print(  # noqa: T201
        f"\nkill -9: {kills} kills, {callers.statuses['OK']} calls answered, {failed} failed (at most {AT_ONCE} in "
        f"flight at each), {retried} sent on by the proxy, 0 outcomes lost"
    )


async def test_while_postgresql_is_away_replies_go_on_recorded_and_reports_are_told_to_wait(
    tmp_path: Path, store_url: str
) -> None:
    way = postgres.Proxy(store_url)
    async with fleet(tmp_path, way.url, judges=False) as running:
        callers, channel = running.callers, grpc.aio.insecure_channel(running.proxy.target)
        way.refuse()
        before = len(callers.recorded)
        await until(lambda: len(callers.recorded) > before + 100)
        await asyncio.sleep(AWAY_S)
        during = list(callers.recorded)[-50:]
        reports = [asyncio.ensure_future(report_good(channel, each)) for each in during]
        done, _ = await asyncio.wait(reports, timeout=0.5)
        assert not done  # nobody calls them unknown, at whichever replica they are
        way.heal()
        waited, healed_s = dict(zip(callers.recorded.values(), callers.recorded, strict=True)), time.monotonic()
        await running.stored(store_url, waited.values())
        caught_up_s = time.monotonic() - healed_s
        told = Counter(await asyncio.gather(*reports))
        await channel.close()
    assert set(told) <= {"OK", "OK, told to wait"}
    assert told["OK, told to wait"] > 0
    assert set(callers.statuses) == {"OK"}
    assert len(callers.recorded) == callers.statuses["OK"]
    running.store_url = store_url
    assert not running.lost()
    way.close()
    print(  # noqa: T201
        f"\nPostgreSQL away: {callers.statuses['OK']} calls, 0 failed, {len(callers.recorded) - before} since it went, "
        f"0 outcomes lost; what waited at its return was there {caught_up_s:.1f} s later, calls going on; "
        f"{told['OK, told to wait']} of {told.total()} reports told to wait, all taken in the end"
    )
