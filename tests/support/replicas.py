"""Replicas of the service as processes of their own, and callers that balance over them by health."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router.journal import Journal
from router.store.sql import SqlStore
from router.v1 import router_pb2, router_pb2_grpc
from tests.support.service import text_request

_BALANCED = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "router.v1.RouterService"},
}
_CONFIG = """
[server]
listen = "127.0.0.1:{port}"
drain_s = {drain_s}
grace_s = 10
[[tiers]]
name = "haiku"
model = "claude-haiku-5-5"
endpoints = ["{name}"]
[endpoints.{name}]
base_url = "{upstream}"
[store]
url = "{store_url}"
[model]
directory = "{folder}/models"
poll_s = 0.1
[telemetry]
log_level = "error"
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Replica:
    """One process on a port of its own, started again on the same one. Its endpoint bears its name."""

    def __init__(self, name: str, folder: Path, upstream: str, store_url: str, *, drain_s: float = 1.0) -> None:
        self.name, self.port = name, free_port()
        self._config = folder / f"{name}.toml"
        self._config.write_text(
            _CONFIG.format(
                name=name, port=self.port, drain_s=drain_s, upstream=upstream, store_url=store_url, folder=folder
            ),
            encoding="utf-8",
        )
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Until it says in health that it serves."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router.cli", "serve", "--config", str(self._config)),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "ANTHROPIC_API_KEY": "emulated"},
        )
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if b"is serving on" in line:
                break
        else:
            raise AssertionError("a replica ended before it listened")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            asked = health_pb2.HealthCheckRequest(service="router.v1.RouterService")
            state = await health_pb2_grpc.HealthStub(channel).Check(asked, wait_for_ready=True)
            assert state.status == health_pb2.HealthCheckResponse.SERVING

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()

    async def decides_with(self, version: str) -> None:
        """Until it decides with this version of the model."""
        asked = router_pb2.RouteRequest(prompt=text_request().prompt)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub: Any = router_pb2_grpc.RouterServiceStub(channel)
            while (await stub.Route(asked)).decision.model_version != version:
                pass


def kept_ids(store_url: str, journal: Path) -> set[str]:
    """The request ids in the store, and in the journal for the next process to bring there."""
    store, waiting = SqlStore(store_url), Journal(journal, max_bytes=1 << 30)
    try:
        while group := waiting.peek(64):
            store.write(group)
            waiting.drop(len(group))
        return {each.outcome.request_id for each in store.read()}
    finally:
        waiting.close()
        store.close()


@dataclass
class Callers:
    """Callers that never rest; what they got, and from which replica."""

    statuses: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    request_ids: list[str] = field(default_factory=list)
    over: bool = False

    async def call(self, target: str, *, at_once: int = 6, balanced: bool = True) -> None:
        """Until `over`; against a proxy the balancing is the proxy's."""
        options: list[tuple[str, Any]] = [
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),  # a replica that is back is found soon
        ]
        if balanced:
            options.append(("grpc.service_config", json.dumps(_BALANCED)))
        async with grpc.aio.insecure_channel(target, options=options) as channel:
            stub: Any = router_pb2_grpc.RouterServiceStub(channel)
            await asyncio.gather(*(self._one(stub) for _ in range(at_once)))

    async def _one(self, stub: Any) -> None:
        while not self.over:
            try:
                reply = await stub.Complete(text_request(), timeout=60)
            except grpc.aio.AioRpcError as error:
                self.statuses[f"{error.code().name} {error.details()}"] += 1
            else:
                self.statuses["OK"] += 1
                self.answered_by[reply.attempts[-1].endpoint] += 1
                if reply.recorded:
                    self.request_ids.append(reply.request_id)
