"""CPU per request of the whole service against a pass-through of the same gRPC and SDK, same run.

    python bench/overhead.py [--requests 1500] [--rounds 5] [--concurrency 16]

Three processes: the emulator with one fixed reply, the service (features, decision, free checks,
durable outcome, metrics), and the pass-through. They take turns; the figure is the median ratio of
their process CPU time over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import grpc
import psutil
from processes import Child, child

from router.v1 import router_pb2, router_pb2_grpc

PROMPT = ("A customer writes that the order from last Tuesday arrived with two of five items missing and asks. " * 11)[
    :1000
]


def request() -> router_pb2.CompleteRequest:
    """A 1,000-character prompt."""
    text = router_pb2.ContentBlock(text=router_pb2.TextBlock(text=PROMPT))
    prompt = router_pb2.Prompt(messages=[router_pb2.Message(role="user", content=[text])], max_tokens=400)
    return router_pb2.CompleteRequest(workload="bench", prompt=prompt)


async def drive(stub: router_pb2_grpc.RouterServiceAsyncStub, requests: int, concurrency: int) -> list[float]:
    """Seconds of each call."""
    left = iter(range(requests))
    seconds: list[float] = []

    async def caller() -> None:
        for _ in left:
            started = time.perf_counter()
            await stub.Complete(request(), timeout=30)
            seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return seconds


def cpu_s(process: Child) -> float:
    """User and system seconds so far."""
    times = psutil.Process(process.pid).cpu_times()
    return times.user + times.system


async def compare(service: tuple[Child, int], plain: tuple[Child, int], args: argparse.Namespace) -> dict:
    """CPU milliseconds per request of both, by round."""
    found: dict[str, list[float]] = {"service": [], "pass_through": []}
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{service[1]}") as one,
        grpc.aio.insecure_channel(f"127.0.0.1:{plain[1]}") as two,
    ):
        sides = {
            "service": (service[0], router_pb2_grpc.RouterServiceStub(one)),
            "pass_through": (plain[0], router_pb2_grpc.RouterServiceStub(two)),
        }
        for _, stub in sides.values():
            await drive(stub, 300, args.concurrency)
        for _ in range(args.rounds):
            for name, (process, stub) in sides.items():
                before = cpu_s(process)
                await drive(stub, args.requests, args.concurrency)
                found[name].append((cpu_s(process) - before) / args.requests * 1_000)
    ratios = [a / b for a, b in zip(found["service"], found["pass_through"], strict=True)]
    return {
        "cpu_ms_service": statistics.median(found["service"]),
        "cpu_ms_pass_through": statistics.median(found["pass_through"]),
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "requests": args.requests,
        "rounds": args.rounds,
        "concurrency": args.concurrency,
    }


def measure(args: argparse.Namespace) -> dict:
    """The figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        child("bench/static_emulator.py", environ={"PYTHONPATH": "."}) as (_, upstream),
    ):
        base_url = f"http://127.0.0.1:{upstream}"
        config = Path(folder) / "tierwise.toml"
        config.write_text(
            f'[endpoints.claude]\nbase_url = "{base_url}"\n[server]\nlisten = "127.0.0.1:0"\n'
            f'[store]\nurl = "sqlite:///{folder}/outcomes.db"\n[model]\ndirectory = "{folder}/models"\n'
            '[telemetry]\nprometheus_listen = "127.0.0.1:0"\nlog_level = "warning"\n'
        )
        keyed = {"ANTHROPIC_API_KEY": "bench"}
        with (
            child("-m", "router.cli", "serve", "--config", str(config), environ=keyed) as service,
            child("bench/passthrough.py", base_url, environ={"PYTHONPATH": "."}) as plain,
        ):
            return asyncio.run(compare(service, plain, args))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=16)
    print(json.dumps(measure(parser.parse_args()), indent=2))
