"""The running service while its store is in trouble: replies go on, recorded, and everything is there afterwards."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

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
    """Feedback is refused for now, with the time after which to come back."""
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
