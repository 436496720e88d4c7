"""The running service while its store is in trouble: replies go on, recorded, and everything is there afterwards."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router.outcome import RequestIds
from tests.service.test_complete import until
from tests.service.test_operations import NOT_SERVING, SERVING, report
from tests.support.service import details_of, running, text_request


def locked(url: str) -> sqlite3.Connection:
    """Another process's transaction that does not end."""
    locker = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    return locker


async def store_health(service: Any) -> int:
    await service.service.health.update()
    health = health_pb2_grpc.HealthStub(service.channel)
    return int((await health.Check(health_pb2.HealthCheckRequest(service="tierwise.store"))).status)


async def assert_later(service: Any, request_id: str) -> None:
    """Feedback is refused, with the time after which to come back."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.feedback.ReportOutcome(report(request_id))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert details_of(caught.value)["retry_s"] == 1.0


async def test_replies_are_recorded_while_the_store_is_locked_and_feedback_is_told_when_to_return(
    tmp_path: Any,
) -> None:
    store = {"url": f"sqlite:///{tmp_path}/outcomes.db", "patience_s": 0.05, "max_wait_s": 1.0}
    async with running(tmp_path, store=store) as service:
        first = await service.router.Complete(text_request())
        locker = locked(service.store_url)
        replies = [await service.router.Complete(text_request()) for _ in range(10)]
        assert all(reply.recorded for reply in replies)
        assert await store_health(service) == NOT_SERVING
        assert len(service.outcomes()) == 1
        await assert_later(service, first.request_id)
        locker.execute("ROLLBACK")
        locker.close()
        await until(lambda: service.service.recorder.healthy and not service.service.recorder.behind)
        assert await store_health(service) == SERVING
        assert {one.outcome.request_id for one in service.outcomes()} == {one.request_id for one in [first, *replies]}
        assert not (await service.feedback.ReportOutcome(report(replies[-1].request_id))).already_reported


async def test_feedback_on_an_outcome_that_is_still_in_the_journal_is_not_called_unknown(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        recorder = service.service.recorder
        service.service.store.write = lambda _: (_ for _ in ()).throw(sqlite3.OperationalError)
        service.service.store.ping = service.service.store.write
        await service.router.Complete(text_request())  # meets the trouble
        reply = await service.router.Complete(text_request())
        assert reply.recorded
        assert recorder.backlog.depth > 0
        await assert_later(service, reply.request_id)


async def test_feedback_at_another_replica_is_told_to_come_back_while_the_outcome_is_in_the_firsts_journal(
    tmp_path: Any,
) -> None:
    folders = Path(tmp_path) / "one", Path(tmp_path) / "two"
    for folder in folders:
        folder.mkdir()
    shared = f"sqlite:///{folders[0]}/outcomes.db"
    async with (
        running(folders[0]) as one,
        running(folders[1], store={"url": shared, "journal": str(folders[1] / "journal")}) as two,
    ):
        store, write, ping = one.service.store, one.service.store.write, one.service.store.ping
        store.write = store.ping = lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError)
        await one.router.Complete(text_request())  # meets the trouble
        reply = await one.router.Complete(text_request())
        assert reply.recorded
        assert not two.service.recorder.behind
        await assert_later(two, reply.request_id)
        store.write, store.ping = write, ping
        await until(lambda: not one.service.recorder.behind)
        assert not (await two.feedback.ReportOutcome(report(reply.request_id))).already_reported


async def test_an_id_that_the_store_never_got_becomes_unknown(tmp_path: Any) -> None:
    now_s = time.time()
    ids = {age_s: RequestIds().next(now_s - age_s) for age_s in (-3_600.0, 0.0, 200.0, 500.0, 3_600.0)}
    async with running(tmp_path) as service:
        told = {}
        for age_s, request_id in ids.items():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await service.feedback.ReportOutcome(report(request_id))
            told[age_s] = caught.value.code().name, details_of(caught.value)["retry_s"]
        assert {age_s: code for age_s, (code, _) in told.items()} == {
            -3_600.0: "NOT_FOUND",  # no clock is so far ahead
            0.0: "UNAVAILABLE",
            200.0: "UNAVAILABLE",
            500.0: "UNAVAILABLE",
            3_600.0: "NOT_FOUND",
        }
        waits = [told[age_s][1] for age_s in (0.0, 200.0, 500.0)]
        assert waits == [1.0, pytest.approx(50.0, abs=10.0), 60.0]
    async with running(tmp_path, store={"url": f"sqlite:///{tmp_path}/outcomes.db", "settle_s": 0}) as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.feedback.ReportOutcome(report(ids[0.0]))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_a_service_left_in_its_journal_is_drained_by_the_next(tmp_path: Any) -> None:
    async with running(tmp_path) as service:
        locker = locked(service.store_url)
        replies = [await service.router.Complete(text_request()) for _ in range(5)]
        assert all(reply.recorded for reply in replies)
    locker.execute("ROLLBACK")
    locker.close()
    async with running(tmp_path) as service:
        await until(lambda: len(service.outcomes()) == 5)
        assert {one.outcome.request_id for one in service.outcomes()} == {one.request_id for one in replies}


async def test_a_damaged_file_does_not_stop_the_start_and_is_got_over_once_it_is_moved_away(tmp_path: Any) -> None:
    path = Path(tmp_path) / "outcomes.db"
    path.write_bytes(b"not a database at all " * 500)
    async with running(tmp_path) as service:
        assert await store_health(service) == NOT_SERVING
        replies = [await service.router.Complete(text_request()) for _ in range(5)]
        assert all(reply.recorded for reply in replies)
        assert path.read_bytes().startswith(b"not a database")  # it is the operator's
        path.rename(path.with_name("damaged.db"))
        await until(lambda: service.service.recorder.healthy and not service.service.recorder.behind)
        assert await store_health(service) == SERVING
        assert {one.outcome.request_id for one in service.outcomes()} == {one.request_id for one in replies}
