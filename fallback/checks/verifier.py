"""The workload's own verifier: a Python function that the service team names."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from fallback.checks import Case, Judgement
from fallback.types import Accept, Reject, Reply, Request, Unjudged, Verdict

VerifierFunction = Callable[[Request, Reply], bool]


@lru_cache(maxsize=256)
def _slots(_entry_point: str) -> threading.BoundedSemaphore:
    """Calls of one verifier at once. Hung ones keep their places, and take none from other verifiers."""
    return threading.BoundedSemaphore(64)


@lru_cache(maxsize=256)
def _resolve(entry_point: str) -> VerifierFunction:
    module_name, _, function_name = entry_point.partition(":")
    if not module_name or not function_name:
        raise ValueError(f"entry_point must be package.module:function, not {entry_point!r}")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # noqa: BLE001 - foreign code: its import may raise anything
        raise ValueError(f"entry_point {entry_point!r} cannot be imported: {error}") from None
    if not callable(function) or inspect.iscoroutinefunction(function):
        raise ValueError(f"entry_point {entry_point!r} is not a plain function")
    resolved: VerifierFunction = function
    return resolved


@dataclass(frozen=True, slots=True)
class VerifierCheck:
    """Calls `entry_point(request, reply) -> bool` on a thread, for at most `timeout_s`.

    An exception or a timeout in it is Unjudged: a bug of the verifier says nothing about the reply.
    """

    name: ClassVar[str] = "verifier"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    entry_point: str
    timeout_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s < math.inf:
            raise ValueError("timeout_s must be a positive number of seconds")
        _resolve(self.entry_point)

    async def judge(self, case: Case) -> Judgement:
        """By the function's truth value."""
        loop = asyncio.get_running_loop()
        judged: asyncio.Future[Verdict] = loop.create_future()
        limit_s = min(self.timeout_s, max(0.0, case.time_left_s))

        def work() -> None:
            verdict = _verdict(self.entry_point, case, limit_s)
            with suppress(RuntimeError):  # nobody waits any more: the loop is closed
                loop.call_soon_threadsafe(_tell, judged, verdict)

        # A daemon thread of its own: one that hangs holds up neither other work nor the end of the process.
        threading.Thread(target=work, name="verifier", daemon=True).start()
        try:
            async with asyncio.timeout(limit_s):
                return Judgement(await judged)
        except TimeoutError:
            return Judgement(Unjudged("verifier_timeout"))


def _verdict(entry_point: str, case: Case, limit_s: float) -> Verdict:
    slots = _slots(entry_point)
    if not slots.acquire(timeout=limit_s):
        return Unjudged("verifier_timeout")
    try:
        passed = bool(_resolve(entry_point)(case.request, case.reply))
    except TimeoutError:
        return Unjudged("verifier_timeout")
    except Exception:  # noqa: BLE001 - foreign code; its text may hold the reply, so only the fact is kept
        return Unjudged("verifier_error")
    finally:
        slots.release()
    return Accept() if passed else Reject("verifier")


def _tell(judged: asyncio.Future[Verdict], verdict: Verdict) -> None:
    if not judged.done():
        judged.set_result(verdict)
