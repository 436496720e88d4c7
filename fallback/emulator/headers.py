"""The response headers that the real API sends: request id, organization, rate limits, retry-after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from types import MappingProxyType

from fallback.emulator.faults import RetryAfter

ORGANIZATION_ID = "00000000-0000-4000-8000-000000000000"
EMULATED = "x-tierwise-emulated"
# Per minute, endpoint and model. Shown, counted down and never enforced: refusals are what fault scripts are for.
LIMITS: Mapping[str, int] = MappingProxyType({"requests": 4_000, "input-tokens": 2_000_000, "output-tokens": 400_000})
_WINDOW_S = 60


class RateMeter:
    """The `anthropic-ratelimit-*` headers, by wall-clock minutes."""

    def __init__(self, wall: Callable[[], float], limits: Mapping[str, int] = LIMITS) -> None:
        self._wall = wall
        self._limits = limits
        self._window = -1
        self._used: dict[str, dict[str, int]] = {}
        self._fixed: dict[str, str] = {}

    def headers(self, pool: str, usage: Mapping[str, int]) -> dict[str, str]:
        """Count one request of a pool with its usage and give the headers that go with it. Cached reads are free."""
        window = int(self._wall()) // _WINDOW_S
        if window != self._window:
            self._window, self._used = window, {}
            reset = datetime.fromtimestamp((window + 1) * _WINDOW_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            self._fixed = {}
            for name, limit in self._limits.items():
                self._fixed[f"anthropic-ratelimit-{name}-limit"] = str(limit)
                self._fixed[f"anthropic-ratelimit-{name}-reset"] = reset
        used = self._used.setdefault(pool, dict.fromkeys(LIMITS, 0))
        used["requests"] += 1
        used["input-tokens"] += usage.get("input_tokens", 0) + usage.get("cache_creation_input_tokens", 0)
        used["output-tokens"] += usage.get("output_tokens", 0)
        found = dict(self._fixed)
        for name, limit in self._limits.items():
            found[f"anthropic-ratelimit-{name}-remaining"] = str(max(0, limit - used[name]))
        return found


def retry_after_headers(retry_after: RetryAfter | None, now: float) -> dict[str, str]:
    """`now` is wall-clock seconds since the epoch."""
    if retry_after is None:
        return {}
    if retry_after.ms is not None:
        return {"retry-after-ms": f"{retry_after.ms:g}"}
    if retry_after.date_in_s is not None:
        when = datetime.fromtimestamp(now + retry_after.date_in_s, UTC)
        return {"retry-after": format_datetime(when, usegmt=True)}
    if retry_after.seconds is not None:
        return {"retry-after": f"{retry_after.seconds:g}"}
    return {"retry-after": retry_after.raw or ""}
