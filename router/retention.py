"""Prompt and reply as JSON text, for workloads whose policy keeps them."""

from __future__ import annotations

import json
from dataclasses import asdict, is_dataclass
from typing import Any

from fallback.types import Reply, Request
from router.outcome import RetainedText

_MAX_CHARS = 200_000


def retained_text(request: Request, reply: Reply) -> RetainedText:
    """Both as JSON, each cut at 200,000 characters; attachments are kept as their size only."""
    prompt = {
        "system": [asdict(block) for block in request.system],
        "messages": [asdict(message) for message in request.messages],
        "tools": [asdict(tool) for tool in request.tools],
    }
    return RetainedText(_json(prompt), _json([asdict(block) for block in reply.content]))


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)[:_MAX_CHARS]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)
