"""How the replies of one request agree with each other: what of their texts is recorded. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from fallback.answers import agreement, find_answer
from fallback.errors import Failure
from fallback.types import Reply
from router.outcome import Agreement

# Where it is not known: what a stack's inputs take for neither the same answer nor another one.
UNKNOWN = (0.5, 0.0)
_DIGITS = 4


def agreements_of(results: Sequence[Reply | Failure]) -> tuple[Agreement, ...]:
    """Every pair of replies among a request's attempts."""
    replied = [number for number, result in enumerate(results) if isinstance(result, Reply)]
    if len(replied) < 2:
        return ()
    answers = {number: find_answer(result.text) for number in replied if isinstance(result := results[number], Reply)}
    return tuple(
        Agreement(first, second, same, round(alike, _DIGITS))
        for first, second in combinations(replied, 2)
        for same, alike in (agreement(answers[first], answers[second]),)
    )
