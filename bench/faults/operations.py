"""R10: kill -9. R13: the collector is down. R14: a graceful stop. R16: models swapped under load."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import durability
import grpc
import psutil
from overhead import request
from processes import child

from bench.faults.load import overheads_s
from bench.faults.result import Result, percentile
from bench.faults.stand import Calls, at_rate, call, rss_mb, stand
from bench.faults.storage import stored_ids
from router.model import ModelError, load_model
from router.v1 import router_pb2, router_pb2_grpc
from tests.support.small_models import small_model, write_model


def killed(scale: float, seed: int) -> Result:
    """R10: kill -9 at random moments under load; what was acknowledged is there."""
    kills = int(25 * scale)
    found: dict[str, Any] = durability.measure(kills, seed)
    result = Result("R10", "kill -9", n=f"{kills} kills, {found['acknowledged']:,} acknowledged", seed=seed)
    result.none("acknowledged and lost", found["lost"])
    result.none("duplicates", found["duplicates"])
    result.none("corrupt rows", found["corrupt_rows"])
    result.told("start of the process until it listens, imports included, most", f"{found['ready_s_max']} s")
    return result


# --- the collector ---------------------------------------------------------------------------------


@contextmanager
def _silent_collector() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        yield listening.getsockname()[1]


def collector(scale: float, seed: int) -> Result:
    """R13: traces go nowhere, refused or swallowed; the service must not care, and must still end.

    Compared with traces that a collector takes: what tracing itself costs is told beside it.
    """
    seconds = 15.0 * scale
    result = Result("R13", "collector down", n=f"{int(200 * seconds)} calls for each", seed=seed)
    refused_port = _free_port()
    with _silent_collector() as silent_port, child("bench/collector.py") as (_, listening_port):
        untraced_ms, untraced_mb, _ = _with_collector(0, seconds, seed)
        base_ms, _, _ = _with_collector(listening_port, seconds, seed)
        result.told(
            "overhead p99 without tracing / with a collector that listens", f"{untraced_ms:.1f} / {base_ms:.1f} ms"
        )
        for name, port in (("refused", refused_port), ("silent", silent_port)):
            p99_ms, mb, exit_s = _with_collector(port, seconds, seed)
            result.most(f"{name}: overhead p99 above that with one that listens", p99_ms - base_ms, 2.0, " ms")
            result.most(f"{name}: memory above that without tracing", mb - untraced_mb, 32.0, " MB")
            result.most(f"{name}: SIGTERM to exit", exit_s, 5.0, " s")
    return result


def _with_collector(port: int, seconds: float, seed: int) -> tuple[float, float, float]:
    """(p99 overhead in ms, memory in MB, seconds from SIGTERM to exit)."""
    more = f'[telemetry]\notlp_endpoint = "http://127.0.0.1:{port}"\n' if port else ""
    with stand(more, latency="0.05", seed=seed) as here, here.service() as (process, served):
        asyncio.run(at_rate(served, 100.0, 3.0))
        calls = asyncio.run(at_rate(served, 200.0, seconds))
        mb = rss_mb(process)
        began_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        return 1e3 * percentile(overheads_s(calls), 99), mb, time.monotonic() - began_s


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


# --- stopping --------------------------------------------------------------------------------------


def stopped(scale: float, seed: int) -> Result:
    """R14: SIGTERM under 100 calls a second."""
    rounds = int(8 * scale)
    result = Result("R14", "graceful stop", n=f"{rounds} stops", seed=seed)
    statuses: dict[str, int] = {}
    lost, codes, ends_s, answered = 0, set(), [], 0
    with stand(latency="0.1,0.4", seed=seed) as here:
        for _ in range(rounds):
            with here.service() as (process, port):
                calls, end_s = asyncio.run(_until_stopped(process, port))
                codes.add(process.wait(30))
            ends_s.append(end_s)
            stored = stored_ids(here.store_url, here.folder / "outcomes.journal")
            lost += sum(reply.request_id not in stored for reply in calls.replies)
            answered += len(calls.replies)
            for status, n in calls.statuses.items():
                statuses[status] = statuses.get(status, 0) + n
        with here.service() as (process, _):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            began_s = time.monotonic()
            process.wait(30)
            second_s = time.monotonic() - began_s
    result.told("calls", ", ".join(f"{n} {name}" for name, n in sorted(statuses.items())))
    others = sum(n for status, n in statuses.items() if status not in ("OK", "UNAVAILABLE"))
    result.none("calls that ended in anything but OK and UNAVAILABLE", others)
    result.none(f"replies whose outcome is missing, of {answered}", lost)
    result.equal("exit codes", sorted(codes), [0])
    result.most("SIGTERM to exit, most (grace 5 s)", max(ends_s), 6.0, " s")
    result.most("a second SIGTERM", second_s, 3.0, " s")
    return result


async def _until_stopped(process: Any, port: int) -> tuple[Calls, float]:
    calls = Calls()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        under_way = []
        for number in range(250):
            under_way.append(asyncio.create_task(call(stub, calls)))
            await asyncio.sleep(0.01)
            if number == 150:
                process.send_signal(signal.SIGTERM)
                began_s = time.monotonic()
        await asyncio.gather(*under_way)
        await asyncio.to_thread(process.wait, 30)
    return calls, time.monotonic() - began_s


# --- models ----------------------------------------------------------------------------------------


def swapped(scale: float, seed: int) -> Result:
    """R16: models swapped under load; bad files refused, cheaply; a rollback is quick."""
    swaps = int(60 * scale)
    result = Result("R16", "model swap", n=f"{swaps} swaps under load", seed=seed)
    with stand("[model]\npoll_s = 0.05\n", latency="0.02", seed=seed) as here:
        models = here.folder / "models"
        for version in ("one", "two"):
            directory = models / "versions" / version
            directory.mkdir(parents=True)
            write_model(small_model(version, seed=len(version)), directory)
        _point(models, "one")
        with here.service() as (process, port):
            calls, took_s = asyncio.run(_swap(models, port, swaps))
            mixed = sum(map(_mixed, calls.replies))
            before_mb = psutil.Process(process.pid).memory_info().rss / 2**20
            refused = _bad_versions(models)
            for name in refused:
                _point(models, name)
                time.sleep(0.3)
            served = asyncio.run(at_rate(port, 50.0, 1.0))
            after_mb = psutil.Process(process.pid).memory_info().rss / 2**20
        slow = [_refusal_s(models / "versions" / name) for name in refused]
    result.none("calls that failed", calls.n - calls.statuses["OK"])
    result.none("replies of two versions at once", mixed)
    result.equal("versions seen", len({reply.decision.model_version for reply in calls.replies}), 2)
    result.most("a swap or a rollback until it serves, most", max(took_s), 1.0, " s")
    after = {reply.decision.model_version for reply in served.replies}
    result.true("the one before served on after every bad version", holds=bool(after) and after <= {"one", "two"})
    result.most(f"to refuse one of {len(refused)} bad versions, most", 1e3 * max(slow), 100.0, " ms")
    result.most("memory after all bad versions, above before", after_mb - before_mb, 32.0, " MB")
    return result


def _mixed(reply: router_pb2.CompleteResponse) -> bool:
    scored = {v.version for a in reply.attempts for v in a.verdicts if v.check == "scorer"}
    return not scored <= {reply.decision.model_version}


async def _swap(models: Path, port: int, swaps: int) -> tuple[Calls, list[float]]:
    calls, took_s, over = Calls(), [], asyncio.Event()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)

        async def caller() -> None:
            while not over.is_set():
                await call(stub, calls)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        for number in range(swaps):
            version = ("two", "one")[number % 2]
            _point(models, version)
            began_s = time.monotonic()
            while True:
                asked = request()
                decided = await stub.Route(router_pb2.RouteRequest(workload=asked.workload, prompt=asked.prompt))
                if decided.decision.model_version == version or time.monotonic() - began_s > 5:
                    break
                await asyncio.sleep(0.01)
            took_s.append(time.monotonic() - began_s)
        over.set()
        await asyncio.gather(*callers)
    return calls, took_s


def _point(models: Path, version: str) -> None:
    """As the registry does it: whole or not at all."""
    pointer = models / "current.new"
    pointer.write_text(version + "\n", encoding="utf-8")
    pointer.replace(models / "current")


def _bad_versions(models: Path) -> list[str]:
    """Copies of a good version, each spoilt in its own way."""
    versions, good = models / "versions", models / "versions" / "one"

    def spoilt(name: str) -> Path:
        shutil.copytree(good, versions / name)
        return versions / name

    weights = (good / "weights.npz").read_bytes()
    (spoilt("truncated") / "weights.npz").write_bytes(weights[: len(weights) // 2])
    flipped = bytearray(weights)
    flipped[len(flipped) // 3] ^= 1
    (spoilt("flipped") / "weights.npz").write_bytes(bytes(flipped))
    manifest = (good / "manifest.json").read_text()
    foreign = manifest.replace('"features_version": "', '"features_version": "x')
    (spoilt("features") / "manifest.json").write_text(foreign)
    (spoilt("no-json") / "manifest.json").write_text("{")
    with (spoilt("sparse") / "weights.npz").open("r+b") as file:
        file.truncate(2 << 30)
    link = spoilt("symlink") / "weights.npz"
    link.unlink()
    link.symlink_to(good / "weights.npz")
    (spoilt("missing") / "weights.npz").unlink()
    return ["truncated", "flipped", "features", "no-json", "sparse", "symlink", "missing", "not-there"]


def _refusal_s(directory: Path) -> float:
    began_s = time.perf_counter()
    try:
        load_model(directory)
    except ModelError:
        return time.perf_counter() - began_s
    return float("inf")
