"""The real service on loopback: real gRPC in front, the real SDK and the emulator behind, a store on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fallback.emulator.answers import AnswerSource
from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource
from router.config import Config
from router.serve import Service
from router.store import Recorded
from router.store.sql import SqlStore
from router.v1 import feedback_pb2_grpc, router_pb2, router_pb2_grpc


@dataclass
class Running:
    """A running service and everything around it that a test may ask."""

    service: Service
    emulator: Emulator
    channel: grpc.aio.Channel
    store_url: str

    @property
    def router(self) -> Any:
        return router_pb2_grpc.RouterServiceStub(self.channel)

    @property
    def feedback(self) -> Any:
        return feedback_pb2_grpc.FeedbackServiceStub(self.channel)

    @property
    def upstream_requests(self) -> int:
        return int(self.emulator.stats()["requests"])

    def outcomes(self) -> list[Recorded]:
        store = SqlStore(self.store_url)
        try:
            return list(store.read())
        finally:
            store.close()


@asynccontextmanager
async def running(
    folder: Path,
    *,
    source: AnswerSource | None = None,
    faults: object = None,
    upstream: Mapping[str, Any] | None = None,
    **sections: Any,
) -> AsyncIterator[Running]:
    """A service with the given configuration sections over quick test defaults."""
    emulator = Emulator(source or StaticSource(), faults=faults, seed=1, **(upstream or {}))
    base_url = await emulator.start()
    store_url = f"sqlite:///{folder}/outcomes.db"
    document: dict[str, Any] = {
        "server": {"listen": "127.0.0.1:0", "grace_s": 5},
        "store": {"url": store_url},
        "model": {"directory": str(folder / "models"), "poll_s": 0.05},
        **sections,
        "resilience": {"backoff_base_s": 0.01, **sections.get("resilience", {})},
    }
    # Exploration is random on purpose; a test that is not about it starts where the plan says.
    workloads: dict[str, Any] = {"default": {}, **document.get("workloads", {})}
    document["workloads"] = {name: {"explore": 0, **policy} for name, policy in workloads.items()}
    service = Service(Config.model_validate(document), emulator_url=base_url)
    await service.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{service.port}")
    try:
        yield Running(service, emulator, channel, store_url)
    finally:
        await channel.close()
        await service.stop()
        await emulator.stop()


def text_request(text: str = "What is 2 + 2?", *, workload: str = "", **fields: Any) -> router_pb2.CompleteRequest:
    """A Complete request with one user message."""
    return router_pb2.CompleteRequest(workload=workload, prompt=text_prompt(text), **fields)


def text_prompt(text: str = "What is 2 + 2?", **fields: Any) -> router_pb2.Prompt:
    """A prompt with one user message."""
    block = router_pb2.ContentBlock(text=router_pb2.TextBlock(text=text))
    return router_pb2.Prompt(
        messages=[router_pb2.Message(role="user", content=[block])], **{"max_tokens": 256, **fields}
    )


def details_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """ErrorInfo's reason and domain, RetryInfo's seconds and BadRequest's fields of an error."""
    found: dict[str, Any] = {"reason": "", "domain": "", "retry_s": None, "fields": []}
    status = rpc_status.from_call(error)  # AioRpcError carries the trailing metadata itself
    for packed in status.details if status is not None else ():
        info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
        if packed.Unpack(info):
            found["reason"], found["domain"] = info.reason, info.domain
        elif packed.Unpack(retry):
            found["retry_s"] = retry.retry_delay.ToTimedelta().total_seconds()
        elif packed.Unpack(bad):
            found["fields"] = [violation.field for violation in bad.field_violations]
    return found
