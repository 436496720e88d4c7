"""The real service as a process of its own, in front of the emulator as another, and callers with a rate."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
from overhead import request
from processes import Child, child

from router.v1 import router_pb2, router_pb2_grpc

_CONFIG = """
[server]
listen = "127.0.0.1:0"
grace_s = 5
[endpoints.claude]
base_url = "http://127.0.0.1:{upstream}"
[store]
url = "sqlite:///{folder}/outcomes.db"
[model]
directory = "{folder}/models"
poll_s = 0.1
[telemetry]
log_level = "error"
"""


class Emulated:
    """The emulator, by its control routes."""

    def __init__(self, port: int) -> None:
        self.port = port

    def faults(self, *rules: dict[str, Any]) -> None:
        """Replace what goes wrong; none: all is well."""
        self._post("faults", {"rules": list(rules)})

    def reset(self) -> None:
        """Zero its counters."""
        self._post("reset", {})

    def stats(self) -> dict[str, Any]:
        """Its counters."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/emulator/stats") as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def _post(self, what: str, body: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self.port}/emulator/{what}"
        with urllib.request.urlopen(url, json.dumps(body).encode()):
            pass


@dataclass
class Stand:
    """A folder, an emulator, and a configuration; services are started from it."""

    folder: Path
    emulator: Emulated
    config: Path
    environ: dict[str, str]

    @property
    def store_url(self) -> str:
        """Where its outcomes are."""
        return f"sqlite:///{self.folder}/outcomes.db"

    @contextmanager
    def service(self) -> Iterator[tuple[Child, int]]:
        """The service, listening."""
        with child("-m", "router.cli", "serve", "--config", str(self.config), environ=self.environ) as started:
            yield started


@contextmanager
def stand(more: str = "", *, latency: str = "", seed: int = 0) -> Iterator[Stand]:
    """`more` is TOML added to the configuration; `latency` as `tierwise emulate` takes it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = ("bench/static_emulator.py", "--latency", latency or "0", "--seed", str(seed))
        _, upstream = stack.enter_context(child(*command, environ={"PYTHONPATH": "."}))
        config = folder / "tierwise.toml"
        text = _merged(_CONFIG.format(upstream=upstream, folder=folder), more.format(upstream=upstream, folder=folder))
        config.write_text(text)
        yield Stand(folder, Emulated(upstream), config, {"ANTHROPIC_API_KEY": "bench"})


def _merged(base: str, more: str) -> str:
    """Both documents as one: sections that stand in both are joined, the later value winning."""
    document = tomllib.loads(base)
    for name, section in tomllib.loads(more).items():
        document[name] = {**document[name], **section} if isinstance(document.get(name), dict) else section
    return "\n".join(_lines("", document))


def _lines(prefix: str, table: dict[str, Any]) -> Iterator[str]:
    plain = {key: value for key, value in table.items() if not _nested(value)}
    if prefix:
        yield f"[{prefix}]"
    yield from (f"{key} = {_value(value)}" for key, value in plain.items())
    for key, value in table.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            yield from _lines(path, value)
        elif _nested(value):
            for each in value:
                yield f"[[{path}]]"
                yield from (f"{name} = {_value(inner)}" for name, inner in each.items())


def _nested(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: Any) -> str:
    return json.dumps(value)  # TOML's strings, numbers, booleans and lists of them are JSON's


@dataclass
class Calls:
    """What became of many calls."""

    seconds: list[float] = field(default_factory=list)  # of the answered ones
    statuses: Counter[str] = field(default_factory=Counter)
    refused_s: list[float] = field(default_factory=list)
    replies: list[router_pb2.CompleteResponse] = field(default_factory=list)
    ended_s: list[tuple[float, str]] = field(default_factory=list)

    @property
    def n(self) -> int:
        """All of them."""
        return sum(self.statuses.values())

    def share(self, status: str = "OK") -> float:
        """Of the calls that ended so."""
        return self.statuses[status] / max(1, self.n)


async def call(
    stub: Any, calls: Calls, *, timeout_s: float = 30.0, message: router_pb2.CompleteRequest | None = None
) -> None:
    """One call, noted."""
    started_s = time.perf_counter()
    try:
        reply = await stub.Complete(message or request(), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        status = error.code().name
        calls.refused_s.append(time.perf_counter() - started_s)
    else:
        status = "OK"
        calls.seconds.append(time.perf_counter() - started_s)
        calls.replies.append(reply)
    calls.statuses[status] += 1
    calls.ended_s.append((time.monotonic(), status))


async def at_rate(port: int, rate: float, seconds: float, **options: Any) -> Calls:
    """An open loop: so many calls begin every second, whatever becomes of them."""
    calls = Calls()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        began_s, under_way = time.perf_counter(), set[asyncio.Task[None]]()
        for number in range(int(rate * seconds)):
            wait_s = began_s + number / rate - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            task = asyncio.create_task(call(stub, calls, **options))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
    return calls


async def in_turn(port: int, count: int, concurrency: int, **options: Any) -> Calls:
    """A closed loop: `count` calls, so many at once."""
    calls, left = Calls(), iter(range(count))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)

        async def caller() -> None:
            for _ in left:
                await call(stub, calls, **options)

        await asyncio.gather(*(caller() for _ in range(concurrency)))
    return calls


def rss_mb(process: Child) -> float:
    """Resident memory now."""
    return float(psutil.Process(process.pid).memory_info().rss) / 2**20


async def watching(work: Awaitable[Calls], look: Callable[[], float]) -> tuple[Calls, list[float]]:
    """The work's calls, and what `look` saw every second while it went on."""
    seen: list[float] = []

    async def watch() -> None:
        while True:
            seen.append(look())
            await asyncio.sleep(1.0)

    watcher = asyncio.create_task(watch())
    try:
        return await work, seen
    finally:
        watcher.cancel()
