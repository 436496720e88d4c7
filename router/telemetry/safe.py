"""What may leave the process as an attribute or a label: codes, ids and bounded words, never content.

Values that an upstream or a caller could have shaped go through here before they are put on a span or a
metric. A value that does not look like what it should be is withheld, not cleaned: cleaned text is
still text.
"""

from __future__ import annotations

import math
import re

WITHHELD = "_withheld_"
OTHER = "_other_"

_CODE = re.compile(r"[a-z0-9_][a-z0-9_.:/\[\]$=<>-]{0,127}\Z")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,111}(@[a-z0-9-]{1,16})?\Z")  # model@version; no e-mail address
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_MAX_WORDS = 300
_MAX_SECONDS = 4e9


def code(value: str) -> str:
    """A short lower-case code such as `overloaded_error` or `labels:not_a_label`."""
    return value if _CODE.match(value) else WITHHELD if value else ""


def name(value: str) -> str:
    """A tier, an endpoint, a model, a workload, an id."""
    return value if _NAME.match(value) else WITHHELD if value else ""


def words(value: str) -> str:
    """Our own words (a decision's reason): printable and bounded."""
    return _UNPRINTABLE.sub("?", value[:_MAX_WORDS])


def nanoseconds(seconds: float) -> int:
    """Seconds as whole nanoseconds, never negative; four of them add up inside OTLP's 64 bits."""
    return int(min(seconds, _MAX_SECONDS) * 1e9) if 0.0 < seconds < math.inf else 0


class Bounded:
    """Lets the first `limit` distinct names through; the rest become `_other_`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The label to use for `value`."""
        if value in self._known:
            return value
        if len(self._known) >= self._limit or name(value) == WITHHELD:
            return OTHER
        self._known.add(value)
        return value
