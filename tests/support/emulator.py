"""The emulator in-process, with the real SDK in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
from anthropic.types import Message

from fallback.emulator.answers import AnswerSource
from fallback.emulator.latency import Latency
from fallback.emulator.server import Emulator
from fallback.emulator.static import StaticSource

MODEL = {tier: f"claude-{tier}-5-5" for tier in ("haiku", "sonnet", "opus")}


@dataclass
class FakeTime:
    """A clock that tests set, and a sleep that only notes how long it should have been (seconds)."""

    now_s: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@dataclass
class Bench:
    """A started emulator and an SDK client of it, with the SDK's retries off."""

    emulator: Emulator
    client: anthropic.AsyncAnthropic
    base_url: str

    async def ask(self, prompt: str = "Hello", tier: str = "haiku", **more: Any) -> Message:
        """One message."""
        params: dict[str, Any] = {"max_tokens": 1_000, "messages": [{"role": "user", "content": prompt}], **more}
        message: Message = await self.client.messages.create(model=MODEL[tier], **params)
        return message

    async def raw(self, prompt: str = "Hello", tier: str = "haiku", **more: Any) -> Any:
        """One message with its response's headers."""
        params: dict[str, Any] = {"max_tokens": 1_000, "messages": [{"role": "user", "content": prompt}], **more}
        return await self.client.messages.with_raw_response.create(model=MODEL[tier], **params)

    @property
    def stats(self) -> dict[str, Any]:
        return self.emulator.stats()


@asynccontextmanager
async def running(
    source: AnswerSource | None = None,
    *,
    faults: object = None,
    seed: int = 0,
    latency: Latency | Mapping[str, Latency] | None = None,
    time: FakeTime | None = None,
    timeout_s: float = 10.0,
) -> AsyncIterator[Bench]:
    """The emulator on a free port, with one fixed reply where no source is given."""
    clock = time or FakeTime()
    emulator = Emulator(
        source or StaticSource(),
        faults=faults,
        seed=seed,
        latency=latency,
        clock=clock,
        wall=lambda: 1_790_000_000.0,
        sleep=clock.sleep,
    )
    base_url = await emulator.start()
    client = anthropic.AsyncAnthropic(api_key="test", base_url=base_url, max_retries=0, timeout=timeout_s)
    try:
        yield Bench(emulator, client, base_url)
    finally:
        await client.close()
        await emulator.stop()


async def until(condition: Callable[[], bool], *, turns: int = 10_000) -> None:
    """Let the loop turn until the condition holds; fails rather than waits for ever."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition never held")
