from __future__ import annotations

import asyncio
import threading

import pytest

from router.daemon import DaemonThread
from tests.unit.test_recorder import until


async def test_calls_are_done_one_after_the_other_and_end_as_the_work_does() -> None:
    thread = DaemonThread("test")
    done: list[int] = []
    calls = [asyncio.ensure_future(thread.call(lambda n=n: done.append(n) or n)) for n in range(100)]  # type: ignore[func-returns-value]
    assert await asyncio.gather(*calls) == done == list(range(100))
    with pytest.raises(ZeroDivisionError):
        await thread.call(lambda: 1 // 0)
    assert await thread.call(threading.get_ident) != threading.get_ident()
    thread.end()


async def test_of_cancelled_calls_what_has_begun_goes_on_and_the_rest_does_not_begin() -> None:
    thread = DaemonThread("test")
    begun, gate = threading.Event(), threading.Event()
    done: list[str] = []

    def hold() -> None:
        begun.set()
        gate.wait(30)
        done.append("begun")

    calls = [asyncio.ensure_future(thread.call(hold))]
    await until(begun.is_set)
    calls.append(asyncio.ensure_future(thread.call(lambda: done.append("queued"))))
    await asyncio.sleep(0)
    assert thread.queued == 1
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert thread.queued == 1
    gate.set()
    await thread.call(lambda: done.append("later"))
    assert done == ["begun", "later"]
    assert thread.queued == 0
    thread.end()
