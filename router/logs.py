"""Log lines: JSON or text on stderr, one line an event, with the request's ids, and never content.

What could carry a prompt, a reply or a key is kept out by construction, whatever the level:

- an exception is shown as its types and places, without its message;
- libraries that log requests are held at WARNING by the handler itself, so that no later setting of theirs
  (ANTHROPIC_LOG=debug, say) undoes it;
- of other people's multi-line messages only the first line is kept (asyncio puts an exception's text into the second);
- anything that looks like a key is replaced, control characters are escaped, and every field is bounded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

LogFormat = Literal["json", "text"]

# Held at these levels: below them they log requests, headers, statement parameters, or the caller's metadata.
_PINNED = {
    "anthropic": logging.WARNING,
    "httpx2": logging.WARNING,
    "httpcore2": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "aiohttp": logging.WARNING,
    "urllib3": logging.WARNING,
    "requests": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "opentelemetry": logging.ERROR,  # its warnings quote the caller's tracestate
    "opentelemetry.sdk": logging.WARNING,  # says when spans are dropped
}
_OURS = ("router", "fallback", "training", "tierwise")
_MAX_MESSAGE = 2000
_MAX_FOREIGN = 300
_MAX_FRAMES = 20
_MAX_CAUSES = 5

_KEYS = re.compile(r"sk-[A-Za-z0-9_-]{8,}|(?i:bearer|x-api-key:?|authorization:?)\s+\S+")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RequestIds:
    """What a line says about the request it belongs to."""

    request_id: str
    trace_id: str = ""


_current: ContextVar[RequestIds | None] = ContextVar("tierwise_log_ids", default=None)


@contextmanager
def request(ids: RequestIds) -> Iterator[None]:
    """Put the ids on every line logged inside, in tasks started inside, too."""
    token = _current.set(ids)
    try:
        yield
    finally:
        _current.reset(token)


def setup(level: str = "INFO", *, style: LogFormat = "json", stream: TextIO | None = None) -> None:
    """Log to `stream` (stderr) from now on. For the entry points only: it replaces the process' handlers."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(_pinned)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name, lowest in _PINNED.items():
        logging.getLogger(name).setLevel(lowest)
    logging.captureWarnings(True)
    logging.raiseExceptions = False  # a broken pipe must not print the record, arguments included


def loop_exception(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For `loop.set_exception_handler`: asyncio's own prints the exception's text."""
    error = context.get("exception")
    _log.error("event loop: %s", context.get("message", ""), exc_info=error if error is not None else False)


def _pinned(record: logging.LogRecord) -> bool:
    name = record.name
    while name:
        if name in _PINNED:
            return record.levelno >= _PINNED[name]
        name = name.rpartition(".")[0]
    return True


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):
        text = str(record.msg)  # a wrong format string is no reason to lose the line
    if record.name.partition(".")[0] not in _OURS:
        text = text.partition("\n")[0][:_MAX_FOREIGN]
    return clean(text)


def clean(text: str) -> str:
    """Bounded, on one line, without anything that looks like a key."""
    shown = _KEYS.sub("[redacted]", text[:_MAX_MESSAGE])
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)


def _error(error: BaseException) -> list[dict[str, Any]]:
    """The exception and its causes: types and places. Never messages: they may quote what was sent."""
    told: list[dict[str, Any]] = []
    current: BaseException | None = error
    while current is not None and len(told) < _MAX_CAUSES:
        frames = traceback.extract_tb(current.__traceback__)[-_MAX_FRAMES:]
        places = [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames]
        told.append({"type": type(current).__name__, "at": places})
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return told


def _short(path: str) -> str:
    return "/".join(path.replace("\\", "/").split("/")[-3:])


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        fields: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        ids = _current.get()
        if ids is not None:
            fields["request_id"] = clean(ids.request_id)
            if ids.trace_id:
                fields["trace_id"] = clean(ids.trace_id)
        if record.exc_info and record.exc_info[1] is not None:
            fields["error"] = _error(record.exc_info[1])
        return json.dumps(fields)


class TextFormatter(logging.Formatter):
    """One line to read at a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        parts = [_time(record), f"{record.levelname:7}", record.name, _message(record)]
        ids = _current.get()
        if ids is not None:
            parts.append(f"request={clean(ids.request_id)}" + (f" trace={clean(ids.trace_id)}" if ids.trace_id else ""))
        if record.exc_info and record.exc_info[1] is not None:
            chain = (f"{told['type']} at {' < '.join(reversed(told['at']))}" for told in _error(record.exc_info[1]))
            parts.append("error: " + "; from ".join(chain))
        return " ".join(parts)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
