"""Whether two replies give the same answer, by a workload's own notion of an answer. Pure, bounded work."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

from fallback.answers import agreement, find_answer, normalised, number_in, numbers_in
from fallback.checks.schema import json_in
from fallback.types import Reply

Notion = Literal["auto", "exact", "json_field", "number", "label", "similarity"]

_LOOKED_AT_CHARS = 20_000
_WORD = re.compile(r"\w{1,64}")
_PUNCTUATION = ".\"'`*: "


def similarity(one: str, other: str) -> float:
    """Cosine in [0, 1] of the two texts' words and pairs of words, a repeated one counting by its logarithm.

    It sees what is said, not what is meant: fit for open texts, where no two are the same.
    """
    a, b = _words(one), _words(other)
    if not a or not b:
        return 0.0
    dot = math.fsum(weight * b[word] for word, weight in a.items() if word in b)
    return min(1.0, dot / (_length(a) * _length(b)))


def _words(text: str) -> dict[str, float]:
    words = _WORD.findall(text[:_LOOKED_AT_CHARS].casefold())
    counts = Counter(words)
    counts.update(f"{one} {other}" for one, other in pairwise(words))
    return {word: 1.0 + math.log(count) for word, count in counts.items()}


def _length(weights: dict[str, float]) -> float:
    return math.sqrt(math.fsum(weight * weight for weight in weights.values()))


def same_answer(
    notion: Notion, one: Reply, other: Reply, *, field: str = "", tolerance: float = 0.0, alike: float = 1.0
) -> bool:
    """Whether two replies give the same answer. A reply without an answer of the kind agrees with none.

    `field` is the dotted path of a JSON field; `tolerance` how far two numbers may be apart, relative to the
    larger; `alike` the least similarity. Tool calls are the same answer where names and arguments are.
    """
    if one.tool_uses or other.tool_uses:
        return _calls(one) == _calls(other)
    match notion:
        case "auto":
            first, second = find_answer(one.text), find_answer(other.text)
            return bool(first.loose) and agreement(first, second)[1] == 1.0
        case "exact":
            return _equal(lambda reply: normalised(reply.text) or None, one, other)
        case "json_field":
            return _equal(lambda reply: _field(reply.text, field), one, other)
        case "number":
            a, b = _number(one.text), _number(other.text)
            return a is not None and b is not None and math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-12)
        case "label":
            return _equal(lambda reply: _label(reply.text) or None, one, other)
        case "similarity":
            return similarity(one.text, other.text) >= alike


def _equal(answer: Callable[[Reply], str | None], one: Reply, other: Reply) -> bool:
    first = answer(one)
    return first is not None and first == answer(other)


def _calls(reply: Reply) -> list[tuple[str, str]]:
    return sorted((use.name, as_json(dict(use.input))) for use in reply.tool_uses)


def as_json(value: Any) -> str:
    """The value as JSON text with sorted keys; empty where it is nested too deeply."""
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (RecursionError, TypeError, ValueError):
        return ""


def _number(text: str) -> float | None:
    """The answer as a number, else the last number of the text."""
    tail = text[-_LOOKED_AT_CHARS:]
    found = number_in(find_answer(tail).exact)
    if found is not None:
        return found
    numbers = numbers_in(tail)
    return numbers[-1] if numbers else None


def _label(text: str) -> str:
    """The whole reply where it is one line, else what follows the last line's colon."""
    lines = text[-_LOOKED_AT_CHARS:].strip().splitlines()
    return lines[-1].rpartition(":")[2].strip(_PUNCTUATION).casefold() if lines else ""


def _field(text: str, path: str) -> str | None:
    """The field's value made comparable; None where the reply is no JSON or has no such field."""
    try:
        value: Any = json_in(text)
    except ValueError:
        return None
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return None
        value = value[name]
    if isinstance(value, str):
        return normalised(value).casefold()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return normalised(str(value))
    return as_json(value) or None
