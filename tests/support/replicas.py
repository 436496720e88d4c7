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
from router.store import Recorded
from router.store.sql import SqlStore
from router.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc
from tests.support.service import details_of, text_request

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
journal = "{folder}/{name}.journal"
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

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        if self._process is None:
            return 0
        if self._process.returncode is None:
            self._process.send_signal(how)
        return await self._process.wait()

    async def decides_with(self, version: str) -> None:
        """Until it decides with this version of the model."""
        asked = router_pb2.RouteRequest(prompt=text_request().prompt)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub: Any = router_pb2_grpc.RouterServiceStub(channel)
            while (await stub.Route(asked)).decision.model_version != version:
                pass


def kept(store_url: str, folder: Path) -> dict[str, Recorded]:
    """By request id: what is in the store, and in the journals here for the next process to bring there."""
    store = SqlStore(store_url)
    try:
        for journal in folder.glob("*.journal"):
            waiting = Journal(journal, max_bytes=1 << 30)
            while group := waiting.peek(64):
                store.write(group)
                waiting.drop(len(group))
            waiting.close()
        return {each.outcome.request_id: each for each in store.read()}
    finally:
        store.close()


@dataclass
class Callers:
    """Callers that never rest; what they got, and from which replica.

    With `judges` every reply is reported good as soon as it is there, by the same way; told to wait, they do.
    """

    judges: bool = False
    statuses: Counter[str] = field(default_factory=Counter)
    reports: Counter[str] = field(default_factory=Counter)
    answered_by: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    recorded: dict[str, str] = field(default_factory=dict)  # request id to the replica that answered
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
            await asyncio.gather(*(self._one(channel) for _ in range(at_once)))

    async def _one(self, channel: grpc.aio.Channel) -> None:
        stub: Any = router_pb2_grpc.RouterServiceStub(channel)
        while not self.over:
            try:
                reply = await stub.Complete(text_request(), timeout=60)
            except grpc.aio.AioRpcError as error:
                self.statuses[f"{error.code().name} {error.details()}"] += 1
                continue
            self.statuses["OK"] += 1
            self.answered_by[reply.attempts[-1].endpoint] += 1
            self.versions[reply.decision.model_version] += 1
            if reply.recorded:
                self.recorded[reply.request_id] = reply.attempts[-1].endpoint
                if self.judges:
                    self.reports[await report_good(channel, reply.request_id)] += 1


async def report_good(channel: grpc.aio.Channel, request_id: str) -> str:
    """The status with which a report ends; one that is UNAVAILABLE with RetryInfo is made again, and that is said."""
    stub: Any = feedback_pb2_grpc.FeedbackServiceStub(channel)
    report = feedback_pb2.ReportOutcomeRequest(request_id=request_id, quality=feedback_pb2.QUALITY_GOOD)
    waited = False
    while True:
        try:
            await stub.ReportOutcome(report, timeout=60)
        except grpc.aio.AioRpcError as error:
            delay_s = details_of(error)["retry_s"]
            if error.code() is not grpc.StatusCode.UNAVAILABLE or delay_s is None:
                return f"{error.code().name} {error.details()}"
            waited = True
            await asyncio.sleep(delay_s)
        else:
            return "OK, told to wait" if waited else "OK"
