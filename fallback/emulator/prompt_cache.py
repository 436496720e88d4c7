"""Counts a request's input tokens and remembers marked prefixes, as the API's prompt cache does."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from fallback.emulator.answers import count_tokens
from fallback.emulator.api_errors import invalid
from fallback.emulator.models import ModelSpec

_IMAGE_TOKENS = 1_500  # about a megapixel
_TTL_S: tuple[tuple[str, float], ...] = (("5m", 300.0), ("1h", 3_600.0))
_MAX_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class InputTokens:
    """Input tokens as billed: the uncached part, written to the cache for 5 minutes or an hour, and read."""

    uncached: int
    write_5m: int = 0
    write_1h: int = 0
    read: int = 0

    @property
    def total(self) -> int:
        """The whole prompt."""
        return self.uncached + self.write_5m + self.write_1h + self.read


@dataclass(frozen=True, slots=True)
class _Part:
    key: bytes
    tokens: int
    ttl: str  # "" where there is no mark


class PromptCache:
    """Prefixes seen, per model. Entries expire by the clock (seconds); the number kept is bounded."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._expires: OrderedDict[bytes, float] = OrderedDict()

    def clear(self) -> None:
        """Forget every prefix."""
        self._expires.clear()

    def charge(self, body: Mapping[str, Any], spec: ModelSpec) -> InputTokens:
        """How this request's input is billed; remembers its marked prefixes. Raises ApiError (too long, TTL order)."""
        parts = list(_parts(body))
        total = sum(part.tokens for part in parts)
        if total > spec.max_input_tokens:
            raise invalid(f"prompt is too long: {total} tokens > {spec.max_input_tokens} maximum")
        if body.get("cache_control") is not None and parts:
            last = parts[-1]
            parts[-1] = _Part(last.key, last.tokens, last.ttl or body["cache_control"].get("ttl", "5m"))
        if not any(part.ttl for part in parts):
            return InputTokens(total)
        return self._charge_marked(parts, total, spec)

    def _charge_marked(self, parts: list[_Part], total: int, spec: ModelSpec) -> InputTokens:
        now = self._clock()
        prefix = blake2b(spec.id.encode(), digest_size=16)
        length = read = 0
        marks: list[tuple[bytes, int, str]] = []
        for part in parts:
            prefix.update(part.key)
            length += part.tokens
            key = prefix.digest()
            if self._expires.get(key, now) > now:
                read = length
            if part.ttl:
                if part.ttl == "1h" and any(ttl == "5m" for _, _, ttl in marks):
                    raise invalid("a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block")
                marks.append((key, length, part.ttl))
        written = {"5m": 0, "1h": 0}
        reach = read
        for key, length, ttl in marks:
            if length < spec.min_cache_tokens:
                continue
            written[ttl] += max(0, length - reach)
            reach = max(reach, length)
            self._remember(key, now + dict(_TTL_S)[ttl])
        return InputTokens(total - reach, written["5m"], written["1h"], read)

    def _remember(self, key: bytes, expires: float) -> None:
        self._expires[key] = expires
        self._expires.move_to_end(key)
        if len(self._expires) > _MAX_ENTRIES:
            self._expires.popitem(last=False)


def _parts(body: Mapping[str, Any]) -> Iterator[_Part]:
    """The prompt in the order in which prefixes are cached: tools, system, turns."""
    for tool in body.get("tools") or ():
        text = json.dumps({key: value for key, value in tool.items() if key != "cache_control"}, sort_keys=True)
        yield _Part(b"tool:" + text.encode("utf-8", "surrogatepass"), count_tokens(text), _ttl(tool))
    system = body.get("system")
    if isinstance(system, str):
        if system:
            yield _Part(b"system:" + system.encode("utf-8", "surrogatepass"), count_tokens(system), "")
    else:
        for block in system or ():
            yield _block_part("system", block)
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            key = f"{message['role']}:{content}".encode("utf-8", "surrogatepass")
            yield _Part(key, count_tokens(content), "")
        else:
            for block in content:
                yield _block_part(message["role"], block)


def _block_part(role: str, block: Mapping[str, Any]) -> _Part:
    kind = block["type"]
    if kind == "text":
        text = block["text"]
        return _Part(f"{role}:{text}".encode("utf-8", "surrogatepass"), count_tokens(text), _ttl(block))
    rest = json.dumps({key: value for key, value in block.items() if key != "cache_control"}, sort_keys=True)
    tokens = _IMAGE_TOKENS if kind == "image" else count_tokens(rest)
    return _Part(f"{role}:{kind}:{rest}".encode("utf-8", "surrogatepass"), tokens, _ttl(block))


def _ttl(block: Mapping[str, Any]) -> str:
    mark = block.get("cache_control")
    return str(mark.get("ttl", "5m")) if mark else ""
