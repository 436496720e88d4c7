"""Verifiers as a service team would write them, good and bad."""

from __future__ import annotations

import threading
from typing import Any

from fallback.types import Reply, Request

release = threading.Event()


def has_a_digit(request: Request, reply: Reply) -> bool:
    return any(character.isdigit() for character in reply.text)


def truthy(request: Request, reply: Reply) -> Any:
    return reply.text


def raises(request: Request, reply: Reply) -> bool:
    raise RuntimeError(f"canary {reply.text}")


def times_out_itself(request: Request, reply: Reply) -> bool:
    raise TimeoutError


class _Ambiguous:
    def __bool__(self) -> bool:
        raise ValueError("an array, say")


def ambiguous(request: Request, reply: Reply) -> Any:
    return _Ambiguous()


def hangs(request: Request, reply: Reply) -> bool:
    release.wait(30)
    return True


async def coroutine(request: Request, reply: Reply) -> bool:
    return False
