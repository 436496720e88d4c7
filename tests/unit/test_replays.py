"""Idempotency: one answer per key, whoever waits, whoever leaves, and never more memory than set."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.fields import InvalidField
from router.replays import Replays
from router.status import Refusal
from router.v1 import router_pb2
from tests.support.fakes import FakeClock

KEY = ("w", "k")


def _response(n: int = 1, size: int = 0) -> router_pb2.CompleteResponse:
    return router_pb2.CompleteResponse(request_id=f"{n}", tier="x" * size)


class Maker:
    """Counts its calls; answers when `go` is set."""

    def __init__(self, *, error: BaseException | None = None, wait: bool = False) -> None:
        self.calls = 0
        self.error = error
        self.go = asyncio.Event()
        if not wait:
            self.go.set()

    async def __call__(self) -> router_pb2.CompleteResponse:
        self.calls += 1
        n = self.calls
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return _response(n)


@pytest.fixture
def replays(clock: FakeClock) -> Replays:
    return Replays(window_s=600.0, max_entries=3, max_bytes=1_000, clock=clock)


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_same_key_again_gets_the_first_reply_marked(replays: Replays) -> None:
    make = Maker()
    first = await replays.once(KEY, b"f", make)
    again = await replays.once(KEY, b"f", make)
    assert (first.request_id, first.replayed) == ("1", False)
    assert (again.request_id, again.replayed) == ("1", True)
    again.request_id = "changed"
    assert (await replays.once(KEY, b"f", make)).request_id == "1", "each gets a copy of its own"
    assert make.calls == 1


async def test_the_key_belongs_to_the_workload(replays: Replays) -> None:
    make = Maker()
    await replays.once(("a", "k"), b"f", make)
    assert not (await replays.once(("b", "k"), b"f", make)).replayed
    assert make.calls == 2


async def test_another_request_with_the_same_key_is_refused_also_in_flight(replays: Replays) -> None:
    make = Maker(wait=True)
    task = asyncio.ensure_future(replays.once(KEY, b"f", make))
    await _settle()
    with pytest.raises(InvalidField, match="idempotency_key: was used with a different request"):
        await replays.once(KEY, b"g", make)
    make.go.set()
    await task
    with pytest.raises(InvalidField):
        await replays.once(KEY, b"g", make)


async def test_a_hundred_at_once_make_one_call(replays: Replays) -> None:
    make = Maker(wait=True)
    tasks = [asyncio.ensure_future(replays.once(KEY, b"f", make)) for _ in range(100)]
    await _settle()
    make.go.set()
    replies = await asyncio.gather(*tasks)
    assert make.calls == 1
    assert sorted(reply.replayed for reply in replies) == [False] + [True] * 99


async def test_a_joiner_that_leaves_disturbs_nobody(replays: Replays) -> None:
    make = Maker(wait=True)
    first, second, third = (asyncio.ensure_future(replays.once(KEY, b"f", make)) for _ in range(3))
    await _settle()
    second.cancel()
    await _settle()
    make.go.set()
    assert ((await first).replayed, (await third).replayed) == (False, True)
    assert second.cancelled()


async def test_when_the_first_leaves_one_joiner_takes_over_and_the_rest_join_it(replays: Replays) -> None:
    make = Maker(wait=True)
    tasks = [asyncio.ensure_future(replays.once(KEY, b"f", make)) for _ in range(10)]
    await _settle()
    tasks[0].cancel()
    await _settle()
    assert make.calls == 2
    make.go.set()
    replies = await asyncio.gather(*tasks[1:])
    assert make.calls == 2
    assert sorted(reply.replayed for reply in replies) == [False] + [True] * 8
    assert {reply.request_id for reply in replies} == {"2"}


@pytest.mark.parametrize(
    "error", [Refusal(grpc.StatusCode.UNAVAILABLE, "X", "x"), InvalidField("f", "d"), ZeroDivisionError()]
)
async def test_an_error_is_shared_with_those_who_wait_and_then_forgotten(replays: Replays, error: Exception) -> None:
    make = Maker(error=error, wait=True)
    tasks = [asyncio.ensure_future(replays.once(KEY, b"f", make)) for _ in range(5)]
    await _settle()
    make.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(type(result) is type(error) for result in results)
    assert make.calls == 1, "five who wait spend once"
    assert not (await replays.once(KEY, b"f", Maker())).replayed


async def test_an_error_that_nobody_waits_for_is_no_loose_end(replays: Replays) -> None:
    with pytest.raises(ZeroDivisionError):
        await replays.once(KEY, b"f", Maker(error=ZeroDivisionError()))


async def test_after_the_window_it_is_a_new_request(replays: Replays, clock: FakeClock) -> None:
    make = Maker()
    await replays.once(KEY, b"f", make)
    clock.advance(599.9)
    assert (await replays.once(KEY, b"f", make)).replayed
    clock.advance(0.2)
    assert not (await replays.once(KEY, b"other", make)).replayed
    assert clock.wall_reads == 0


async def test_one_in_flight_is_never_forgotten(replays: Replays, clock: FakeClock) -> None:
    slow, make = Maker(wait=True), Maker()
    task = asyncio.ensure_future(replays.once(KEY, b"f", slow))
    await _settle()
    clock.advance(10_000.0)
    for n in range(10):
        await replays.once(("w", f"{n}"), b"f", make)
    joined = asyncio.ensure_future(replays.once(KEY, b"f", slow))
    await _settle()
    slow.go.set()
    assert (await task).request_id == (await joined).request_id
    assert slow.calls == 1


async def test_the_oldest_go_first_beyond_the_count(replays: Replays) -> None:
    make = Maker()
    for n in range(4):
        await replays.once(("w", f"{n}"), b"f", make)
    assert not (await replays.once(("w", "0"), b"f", make)).replayed, "and this pushes 1 out"
    assert (await replays.once(("w", "2"), b"f", make)).replayed
    assert not (await replays.once(("w", "1"), b"f", make)).replayed


async def test_the_bytes_are_bounded_whatever_happens_to_the_replies_later(clock: FakeClock) -> None:
    replays = Replays(window_s=600.0, max_entries=1_000, max_bytes=1_000, clock=clock)

    def make(n: int, size: int) -> Maker:
        maker = Maker()

        async def give() -> router_pb2.CompleteResponse:
            return _response(n, size)

        maker.__class__ = type("Give", (Maker,), {"__call__": lambda _: give()})
        return maker

    for n in range(10):
        reply = await replays.once(("w", f"{n}"), b"f", make(n, 300))
        reply.tier = ""  # the caller's own object: it may do with it what it likes
    kept = [n for n in range(10) if (await replays.once(("w", f"{n}"), b"f", make(n, 0))).replayed]
    assert kept == [7, 8, 9]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 400), st.sampled_from([0.0, 1.0, 300.0])), max_size=60))
def test_never_more_than_set_over_any_history(steps: list[tuple[int, int, float]]) -> None:
    clock = FakeClock()
    replays = Replays(window_s=600.0, max_entries=3, max_bytes=1_000, clock=clock)
    finished: list[tuple[int, float, int]] = []  # a model: key, expiry and size, oldest first

    async def play() -> None:
        for n, size, wait_s in steps:
            clock.advance(wait_s)
            now_s = clock.monotonic_s()
            finished[:] = [entry for entry in finished if entry[1] > now_s]

            async def make(size: int = size) -> router_pb2.CompleteResponse:
                return _response(1, size)

            reply = await replays.once(("w", f"{n}"), b"f", make)
            assert reply.replayed == any(key == n for key, _, _ in finished)
            if not reply.replayed:
                finished.append((n, now_s + 600.0, reply.ByteSize()))
            while len(finished) > 3 or sum(entry[2] for entry in finished) > 1_000:
                finished.pop(0)

    asyncio.run(play())
