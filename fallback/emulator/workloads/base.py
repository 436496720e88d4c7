"""What a simulated workload is, and what all of them share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_FINAL = re.compile(r"^\s*(?:Answer|Label)\s*:\s*(.+?)\s*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt with its right answer.

    `difficulty` is in 0..1. It follows from the prompt alone: what shows on its surface, and a part (from the
    prompt's hash) that does not show, as in life.
    """

    workload: str
    prompt: str = field(repr=False)
    answer: str = field(repr=False)
    difficulty: float
    output_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A reply before it is put into words: lines of reasoning, the final answer, the kind of mistake in it."""

    lines: tuple[str, ...]
    final: str
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class Curve:
    """P(right | difficulty): a falling logistic from about `high` to about `low`, steepest at `middle`."""

    high: float
    low: float
    middle: float
    steepness: float = 9.0

    def at(self, difficulty: float) -> float:
        """The probability, at a difficulty in 0..1."""
        fall = 1.0 / (1.0 + math.exp(-self.steepness * (difficulty - self.middle)))
        return self.high - (self.high - self.low) * fall


class Workload(Protocol):
    """One kind of request. Stateless: everything follows from the prompt."""

    @property
    def name(self) -> str:
        """As callers name it."""
        ...

    @property
    def curves(self) -> Mapping[str, Curve]:
        """P(right | difficulty) by tier."""
        ...

    @property
    def only_answer(self) -> bool:
        """The prompt asks for the answer alone, with no reasoning around it."""
        ...

    def case(self, seed: int, index: int) -> Case:
        """The case of that number: the same one every time."""
        ...

    def recognise(self, prompt: str) -> Case | None:
        """The case that a prompt poses, or None where it is not of this workload."""
        ...

    def draft(self, case: Case, tier: str, rng: Random, *, right: bool) -> Draft:
        """A right reply, or one with a plausible mistake."""
        ...

    def grade(self, case: Case, reply_text: str) -> bool:
        """Whether a reply is right: for scoring and simulated feedback only, no check may use it."""
        ...


def hidden(prompt: str, scale: float) -> float:
    """A number around 0 with about that standard deviation, fixed by the prompt and visible nowhere in it."""
    raw = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"difficulty").digest()
    uniforms = [int.from_bytes(raw[at : at + 4], "big") / 2**32 for at in range(0, 16, 4)]
    return (sum(uniforms) - 2.0) * math.sqrt(3.0) * scale


def clip(value: float) -> float:
    """Into 0..1."""
    return min(1.0, max(0.0, value))


def final_answer(reply_text: str) -> str:
    """The last `Answer:` or `Label:` line, or that field of a JSON reply; empty where there is none."""
    text = reply_text.strip()
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found = value.get("answer", value.get("label", ""))
            return str(found) if isinstance(found, (str, int, float)) else ""
    matches = _FINAL.findall(text)
    return matches[-1].strip(" *`") if matches else ""


def sure(value: T | None) -> T:
    """What cannot be missing: a workload reads back what it has written (property tests hold it to that)."""
    if value is None:
        raise RuntimeError("a workload could not read its own prompt")
    return value


def unfold(reply_text: str) -> str:
    """A reply that an output schema has folded into `{"reasoning": ..., "answer": ...}`, as plain text again."""
    if not reply_text.lstrip().startswith("{"):
        return reply_text
    try:
        value = json.loads(reply_text)
    except (ValueError, RecursionError):
        return reply_text
    if not isinstance(value, dict) or "answer" not in value:
        return reply_text
    return f"{value.get('reasoning', '')}\nAnswer: {value['answer']}"


def pick(rng: Random, weights: Mapping[str, float]) -> str:
    """One key, by weight."""
    return rng.choices(list(weights), weights=list(weights.values()))[0]
