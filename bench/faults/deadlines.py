"""R3: deadlines. R7: Retry-After."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import grpc
from overhead import request
from overload import RETRY_S

from bench.faults.result import Result, percentile
from bench.faults.stand import stand
from router.store.sql import SqlStore
from router.v1 import router_pb2, router_pb2_grpc

_MIN_TIME_S = 0.5
_CALLERS = 150
_NO_BREAKERS = "[resilience]\nbreaker_failures = 1000\nbreaker_window = 1000\n"
_FAULTS: tuple[dict[str, Any], ...] = (
    {"probability": 0.25, "action": {"kind": "hang"}},
    {"probability": 0.33, "action": {"kind": "trickle", "chunk_bytes": 8, "interval_s": 0.5}},
    {"probability": 0.5, "action": {"kind": "slow_headers", "delay_s": 3.0}},
)


def overrun(scale: float, seed: int) -> Result:
    """R3: deadlines of 50 ms to 8 s against hangs, trickles and slow headers."""
    result = Result("R3", "deadlines", seed=seed)
    count, rng = int(1_500 * scale), random.Random(seed)
    late: list[float] = []
    statuses: dict[str, int] = {}
    requests = iter(range(count))

    async def caller(stub: Any) -> None:
        """One after the other; who is refused comes back when told to."""
        for _ in requests:
            deadline_s = rng.choice((0.05, 0.2, 0.6, 1.0, 2.0, 4.0, 8.0))
            message = request()
            message.labels["deadline_s"] = str(deadline_s)
            while await once(stub, message, deadline_s) == "RESOURCE_EXHAUSTED":  # noqa: ASYNC110 - as told
                await asyncio.sleep(RETRY_S)

    async def once(stub: Any, message: router_pb2.CompleteRequest, deadline_s: float) -> str:
        started_s = time.perf_counter()
        try:
            await stub.Complete(message, timeout=deadline_s)
            status = "OK"
        except grpc.aio.AioRpcError as error:
            status = error.code().name
        late.append(time.perf_counter() - started_s - deadline_s)
        statuses[status] = statuses.get(status, 0) + 1
        return status

    async def all_of_them(port: int) -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            await asyncio.gather(*(caller(stub) for _ in range(_CALLERS)))

    with stand(_NO_BREAKERS, seed=seed) as here:
        here.emulator.faults(*_FAULTS)
        with here.service() as (_, port):
            asyncio.run(all_of_them(port))
            time.sleep(0.5)
            open_now = here.emulator.stats()["in_flight"]
            store = SqlStore(here.store_url)
            outcomes = [each.outcome for each in store.read()]
            store.close()
    result.n = f"{count} requests: {', '.join(f'{n} {name}' for name, n in sorted(statuses.items()))}"
    result.most("overrun p99", max(0.0, 1e3 * percentile(late, 99)), 50.0, " ms")
    result.most("overrun, most", max(0.0, 1e3 * max(late)), 150.0, " ms")
    started_late = sum(
        attempt.started_s + _MIN_TIME_S > float(outcome.labels["deadline_s"])
        for outcome in outcomes
        for attempt in outcome.attempts
    )
    result.none("attempts begun with less than the tier's least time", started_late)
    result.none("upstream calls still open half a second later", open_now)
    return result


async def _until_open(port: int) -> None:
    """Until the last 429 no longer keeps the road to haiku closed."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        for _ in range(200):
            if (await stub.Complete(request(), timeout=_DEADLINE_S)).attempts[0].tier == "haiku":
                return
            await asyncio.sleep(0.1)


_DEADLINE_S = 8.0
# What the provider says to wait, and whether the same tier is then asked again after just so many seconds.
_HINTS: tuple[tuple[str, dict[str, Any], float | None], ...] = (
    ("0.2 s", {"seconds": 0.2}, 0.2),
    ("5 s", {"seconds": 5.0}, 5.0),
    ("350 ms", {"ms": 350.0}, 0.35),
    ("120 s", {"seconds": 120.0}, None),
    ("a date in 300 s", {"date_in_s": 300.0}, None),
    ("1e9", {"raw": "1e9"}, None),
)
# Again, elsewhere, or straight elsewhere while the last 429 still keeps the road closed.
_PASSED_OVER = {"retry haiku", "failover sonnet", "first sonnet"}
_NONSENSE = ("-3", "NaN", "soon", "", "1e400")


def hints(scale: float, seed: int) -> Result:
    """R7: Retry-After is waited exactly when it fits the deadline; else another tier, at once."""
    del scale
    many = len(_HINTS) + len(_NONSENSE)
    result = Result("R7", "Retry-After", n=f"{many} hints, deadline {_DEADLINE_S:g} s", seed=seed)

    async def after(here: Any, port: int, hint: dict[str, Any]) -> tuple[list[str], float]:
        """(purposes, seconds between the first call's end and the second's start)."""
        here.emulator.faults(
            {"first": 1, "model": "haiku", "action": {"kind": "status", "status": 429, "retry_after": hint}}
        )
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = router_pb2_grpc.RouterServiceStub(channel)
            started_s = time.perf_counter()
            reply = await stub.Complete(request(), timeout=_DEADLINE_S)
            waited_s = time.perf_counter() - started_s
        spent_s = sum(attempt.duration.ToNanoseconds() for attempt in reply.attempts) / 1e9
        return [f"{attempt.purpose} {attempt.tier}" for attempt in reply.attempts], waited_s - spent_s

    off: list[float] = []
    moved: list[float] = []
    with stand(_NO_BREAKERS, seed=seed) as here, here.service() as (_, port):
        asyncio.run(after(here, port, {"seconds": 0.0}))  # warm
        answered = [asyncio.run(after(here, port, {"raw": raw}))[0][-1] for raw in _NONSENSE]
        here.emulator.faults()
        asyncio.run(_until_open(port))
        for name, hint, wanted_s in _HINTS:
            purposes, waited_s = asyncio.run(after(here, port, hint))
            if wanted_s is not None:
                off.append(abs(waited_s - wanted_s))
                result.equal(f"after {name}", purposes[-1], "retry haiku")
            else:  # after the first of them the road is known to be closed, and not even tried
                moved.append(waited_s)
                result.equal(f"after {name}", purposes[-1].split()[1], "sonnet")
    result.most("waited too long or too short, most", 1e3 * max(off), 20.0, " ms")
    result.most("before the failover, most", 1e3 * max(moved), 100.0, " ms")
    result.true("nonsense is passed over, and the request answered", holds=set(answered) <= _PASSED_OVER)
    return result
