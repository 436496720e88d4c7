"""Sentences that can be written and read back: one template serves both ways.

A template such as `A delivery brings {count} more {item}.` is filled to write a sentence, and compiled to a
regular expression to read one. A text is a row of such sentences; reading it gives their kinds and values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence read: its kind, which variant of it, and the values of its slots."""

    kind: str
    variant: int
    values: Mapping[str, str]


class Grammar:
    """Templates by kind (several variants each), and the regular expression of each slot."""

    def __init__(self, templates: Mapping[str, Sequence[str]], slots: Mapping[str, str]) -> None:
        self._templates = {kind: tuple(variants) for kind, variants in templates.items()}
        self._compiled = [
            (kind, number, _compile(variant, slots))
            for kind, variants in self._templates.items()
            for number, variant in enumerate(variants)
        ]

    def variants(self, kind: str) -> int:
        """How many ways there are to say this."""
        return len(self._templates[kind])

    def write(self, kind: str, variant: int, values: Mapping[str, str]) -> str:
        """One sentence."""
        return self._templates[kind][variant].format(**values)

    def read(self, text: str) -> list[Sentence] | None:
        """All sentences of a text, or None where some part of it is not of this grammar."""
        found: list[Sentence] = []
        at = 0
        while at < len(text):
            for kind, number, pattern in self._compiled:
                match = pattern.match(text, at)
                if match:
                    found.append(Sentence(kind, number, match.groupdict()))
                    at = match.end()
                    break
            else:
                return None
        return found


def _compile(template: str, slots: Mapping[str, str]) -> re.Pattern[str]:
    parts: list[str] = []
    end = 0
    for slot in _SLOT.finditer(template):
        parts.append(re.escape(template[end : slot.start()]))
        parts.append(f"(?P<{slot[1]}>{slots[slot[1]]})")
        end = slot.end()
    parts.append(re.escape(template[end:]))
    return re.compile("".join(parts) + r"(?: |\Z)")


def either(words: Sequence[str]) -> str:
    """A slot that takes one of these words."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def words(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


NUMBER = r"\d{1,9}"
NAMES = words(
    "Maya Tomas Ines Karim Lena Oskar Priya Rafael Sofia Viktor Amara Bruno Clara Dmitri Elif Farah Goran Hana "
    "Idris Jonas Keiko Luca Mirela Noor"
)
PLACES = words("Hamburg Lisbon Graz Turin Ghent Aarhus Bilbao Leeds Split Tartu Malmo Basel Porto Lyon Cork Bergen")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
