"""Callers: what they send, how long they wait, when they go away, and what they do with the answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc

from router.v1 import feedback_pb2, router_pb2

WORKLOADS = ("plain", "guarded", "bounded")


class Aborted(Exception):
    """What `abort_with_status` raises in a handler."""


class Context:
    """As much of a gRPC context as the servicer uses."""

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline_s: float | None) -> None:
        self._loop = loop
        self.deadline_s = deadline_s
        self.status: Any = None

    def time_remaining(self) -> float | None:
        return None if self.deadline_s is None else max(0.0, self.deadline_s - self._loop.time())

    @staticmethod
    def invocation_metadata() -> Sequence[tuple[str, str]]:
        return ()

    async def abort_with_status(self, status: Any) -> NoReturn:
        self.status = status
        raise Aborted


@dataclass(frozen=True)
class Plan:
    """What one caller will do. `gone_s`: when it hangs up; None: it waits."""

    number: int
    request: router_pb2.CompleteRequest
    timeout_s: float | None
    gone_s: float | None
    judges: bool | None  # what its feedback will say; None: it gives none


def plan(number: int, rng: random.Random) -> Plan:
    """A caller drawn at random; the call's number is the last word of its prompt."""
    text = router_pb2.ContentBlock(text=router_pb2.TextBlock(text=f"question {rng.randrange(1000)} call {number}"))
    prompt = router_pb2.Prompt(messages=[router_pb2.Message(role="user", content=[text])], max_tokens=200)
    request = router_pb2.CompleteRequest(
        workload=rng.choice(WORKLOADS), prompt=prompt, labels={"call": str(number), "tenant": f"t{rng.randrange(3)}"}
    )
    if rng.random() < 0.1:
        request.bounds.cost_cap_usd = rng.choice((0.0005, 0.003, 0.02))
    if rng.random() < 0.05:
        request.prompt.max_tokens = -1  # a mistake of the caller's
    return Plan(
        number=number,
        request=request,
        timeout_s=rng.choice((None, 0.3, 2.0, 5.0, 30.0)),
        gone_s=rng.uniform(0.0, 4.0) if rng.random() < 0.1 else None,
        judges=rng.random() < 0.7 if rng.random() < 0.3 else None,
    )


def report_of(request_id: str, *, good: bool) -> feedback_pb2.ReportOutcomeRequest:
    """The caller's later judgement."""
    quality = feedback_pb2.QUALITY_GOOD if good else feedback_pb2.QUALITY_BAD
    return feedback_pb2.ReportOutcomeRequest(request_id=request_id, quality=quality)


def reason_of(status: Any) -> str:
    """The status's code as its name."""
    code: grpc.StatusCode = status.code
    return code.name
