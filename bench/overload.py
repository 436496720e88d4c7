"""Check R2: twice the capacity is offered; what is still served, how fast, and how fast the rest is refused.

Upstream is the emulator with lognormal latencies (simulated); the caller, the emulator and the service share
this machine. Capacity is what a closed loop of callers gets through. A shared machine's processor may be half as fast
from one minute to the next, so the overload comes in slices, each compared with the capacity just before it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from processes import child

from router.v1 import router_pb2, router_pb2_grpc
from router.wakeups import Loop

RETRY_S = 0.5  # the service's own RetryInfo
_SLICE_S = 10.0
_RISE_S = 1.0


def _request() -> router_pb2.CompleteRequest:
    text = router_pb2.TextBlock(text="Which of these two contracts ends first, and when? " * 8)
    message = router_pb2.Message(role="user", content=[router_pb2.ContentBlock(text=text)])
    return router_pb2.CompleteRequest(prompt=router_pb2.Prompt(messages=[message], max_tokens=256))


@dataclass
class Told:
    """What callers saw: seconds of each answer, by how it ended; and when the served ones ended."""

    served_s: list[float] = field(default_factory=list)
    ended_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def rate(self, began_s: float, seconds: float) -> float:
        """Served a second, but for the first second: nothing ends before it has begun."""
        rise_s = min(_RISE_S, seconds / 2)
        return sum(began_s + rise_s <= at_s < began_s + seconds for at_s in self.ended_s) / (seconds - rise_s)


async def ask(stub: router_pb2_grpc.RouterServiceStub, told: Told) -> None:
    """One request."""
    began = time.perf_counter()
    try:
        await stub.Complete(_request(), timeout=30)
    except grpc.aio.AioRpcError as error:
        told.refused_s.append(time.perf_counter() - began)
        told.refused[error.code().name] += 1
        return
    told.ended_s.append(time.perf_counter())
    told.served_s.append(told.ended_s[-1] - began)


async def closed(stub: router_pb2_grpc.RouterServiceStub, callers: int, seconds: float) -> float:
    """Requests a second that a fixed number of callers gets through; one who is refused comes back when told to."""
    told, began = Told(), time.perf_counter()

    async def call() -> None:
        while time.perf_counter() < began + seconds:
            before = len(told.refused_s)
            await ask(stub, told)
            if len(told.refused_s) > before:
                await asyncio.sleep(RETRY_S)

    await asyncio.gather(*(call() for _ in range(callers)))
    return told.rate(began, seconds)


async def offered(channel: grpc.aio.Channel, rate: float, seconds: float, told: Told) -> float:
    """What is served a second of `rate` requests, sent whatever becomes of them; and a health check every 50 ms."""
    stub, health = router_pb2_grpc.RouterServiceStub(channel), health_pb2_grpc.HealthStub(channel)
    tasks: set[asyncio.Task[None]] = set()
    start, sent, ended = time.perf_counter(), 0, False

    async def probe() -> None:
        while not ended:
            began = time.perf_counter()
            await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            told.health_s.append(time.perf_counter() - began)
            await asyncio.sleep(0.05)

    probing = asyncio.create_task(probe())
    while (now := time.perf_counter() - start) < seconds:
        while sent < rate * now:
            task = asyncio.create_task(ask(stub, told))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            sent += 1
        await asyncio.sleep(0.005)
    ended = True
    await asyncio.gather(*tasks, probing)
    return told.rate(start, seconds)


def quantile(values: list[float], share: float) -> float:
    """In seconds; NaN of nothing."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else math.nan


async def measure(port: int, pid: int, args: argparse.Namespace) -> dict[str, object]:
    """The figures."""
    slices = max(1, round(args.seconds / _SLICE_S))
    slice_s = args.seconds / slices
    unloaded, over, after = Told(), Told(), Told()
    capacities, goodputs = [], []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        await closed(stub, 16, 3.0)
        for _ in range(slices):
            capacities.append(await closed(stub, args.callers, slice_s / 2))
            await offered(channel, capacities[-1] / 2, slice_s / 2, unloaded)
            goodputs.append(await offered(channel, 2 * capacities[-1], slice_s, over))
        rss_mb = psutil.Process(pid).memory_info().rss / 2**20
        await asyncio.sleep(5.0)
        await offered(channel, capacities[-1] / 2, args.seconds / 4, after)
    shares = [goodput / capacity for goodput, capacity in zip(goodputs, capacities, strict=True)]
    return {
        "capacity_rps": sum(capacities) / slices,
        "capacities_rps": sorted(map(round, capacities)),
        "goodput_share_of_capacity": sum(goodputs) / sum(capacities),
        "goodput_shares": sorted(round(share, 2) for share in shares),
        "p99_s_unloaded": quantile(unloaded.served_s, 0.99),
        "p99_ratio_of_accepted": quantile(over.served_s, 0.99) / quantile(unloaded.served_s, 0.99),
        "refusals": len(over.refused_s),
        "refusal_p50_s": quantile(over.refused_s, 0.5),
        "refusal_p99_s": quantile(over.refused_s, 0.99),
        "health_p95_s": quantile(over.health_s, 0.95),
        "rss_mb": rss_mb,
        "p99_ratio_5_s_after": quantile(after.served_s, 0.99) / quantile(unloaded.served_s, 0.99),
        "refusals_after": len(after.refused_s),
        "refused_by_status": over.refused,
        "refused_unloaded": unloaded.refused,
        "seconds": args.seconds,
    }


def main(args: argparse.Namespace) -> dict[str, object]:
    """Start everything and measure."""
    with (
        tempfile.TemporaryDirectory() as folder,
        child("bench/static_emulator.py", "--latency", args.latency, environ={"PYTHONPATH": "."}) as (_, upstream),
    ):
        config = Path(folder) / "tierwise.toml"
        config.write_text(
            f'[endpoints.claude]\nbase_url = "http://127.0.0.1:{upstream}"\n[server]\nlisten = "127.0.0.1:0"\n'
            f'[store]\nurl = "sqlite:///{folder}/outcomes.db"\n[model]\ndirectory = "{folder}/models"\n'
            '[telemetry]\nlog_level = "warning"\n',
            encoding="utf-8",
        )
        keyed = {"ANTHROPIC_API_KEY": "bench", "PYTHONPATH": "."}
        command = ("-m", "router.cli", "serve", "--config", str(config))
        with (
            child(*command, environ=keyed) as (process, port),
            asyncio.Runner(loop_factory=Loop) as runner,  # a caller who does not keep itself waiting
        ):
            return runner.run(measure(port, process.pid, args))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of overload")
    parser.add_argument("--callers", type=int, default=400, help="of the closed loop that finds the capacity")
    parser.add_argument("--latency", default="0.3,1.0", help="upstream's: SECONDS, or P50,P99 in seconds")
    print(json.dumps(main(parser.parse_args()), indent=2))
