"""What every message from the wire is read by: the error that names a field, and what text may stand in one."""

from __future__ import annotations

import re
from dataclasses import dataclass

PRINTABLE = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*")


class InvalidField(ValueError):
    """A field of a request is wrong. `field` is its path; the description never repeats its content."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold. `ladder` are the tier names, cheapest first."""

    ladder: tuple[str, ...]
    max_text_chars: int
