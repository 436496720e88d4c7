"""What may leave the process as an attribute or a label: codes, ids and bounded words, never content.

Values that an upstream or a caller could have shaped go through here before they are put on a span or a
metric. A value that does not look like what it should be is withheld, not cleaned: cleaned text is
still text.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

WITHHELD = "_withheld_"
OTHER = "_other_"

_CODE = re.compile(r"[a-z0-9_][a-z0-9_.:/\[\]$=<>-]{0,127}\Z")
_IDENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,111}(@[a-z0-9-]{1,16})?\Z")  # model@version; no e-mail address
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_MAX_WORDS = 300
_LONGEST = 128  # nothing longer is kept in a cache
_CACHED = 4096
_MAX_SECONDS = 4e9


@lru_cache(maxsize=_CACHED)
def _code(value: str) -> str:
    return value if _CODE.match(value) else WITHHELD if value else ""


@lru_cache(maxsize=_CACHED)
def _name(value: str) -> str:
    return ident(value)


def code(value: str) -> str:
    """A short lower-case code such as `overloaded_error` or `labels:not_a_label`."""
    return _code(value) if len(value) <= _LONGEST else WITHHELD


def ident(value: str) -> str:
    """An id that does not recur."""
    return value if _IDENT.match(value) else WITHHELD if value else ""


def name(value: str) -> str:
    """An id that recurs: a tier, an endpoint, a model, a workload."""
    return _name(value) if len(value) <= _LONGEST else WITHHELD


def words(value: str) -> str:
    """Our own words (a decision's reason): printable and bounded."""
    return _UNPRINTABLE.sub("?", value[:_MAX_WORDS])


def amount(value: float) -> float:
    """A number of dollars, seconds or a score; 0 where it is not finite."""
    return value if math.isfinite(value) else 0.0


def cost(value: float) -> float:
    """What may be added to a sum that only grows."""
    return value if 0.0 < value < math.inf else 0.0


def nanoseconds(seconds: float) -> int:
    """Seconds as whole nanoseconds, never negative; four of them add up inside OTLP's 64 bits."""
    return int(min(seconds, _MAX_SECONDS) * 1e9) if 0.0 < seconds < math.inf else 0


class Bounded:
    """Lets the first `limit` distinct values through; the rest become `_other_`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        """The label to use for `value`."""
        known = self._known.get(value)
        if known is not None:
            return known
        safe = name(value)
        if len(self._known) >= self._limit or safe == WITHHELD:
            return OTHER
        self._known[value] = safe
        return safe
