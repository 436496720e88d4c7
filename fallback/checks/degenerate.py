"""Empty or stuck: a detector of degenerate output, not a judge of meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fallback.checks import Case, Judgement
from fallback.types import Accept, Reject

_LOOKED_AT_CHARS = 20_000
_PHRASE_WORDS = 8


@dataclass(frozen=True, slots=True)
class DegenerateCheck:
    """Rejects a reply without content, and one whose last words are the same phrase over and over.

    Short correct answers pass: only nothing at all is empty.
    """

    name: ClassVar[str] = "degenerate"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    repeats: int = 12

    async def judge(self, case: Case) -> Judgement:
        """By the reply's text and tool calls."""
        if case.reply.tool_uses:
            return Judgement(Accept())
        text = case.reply.text
        if not text.strip():
            return Judgement(Reject("empty"))
        words = text[-_LOOKED_AT_CHARS:].split()
        if any(self._stuck(words, length) for length in range(1, _PHRASE_WORDS + 1)):
            return Judgement(Reject("repetition"))
        return Judgement(Accept())

    def _stuck(self, words: list[str], length: int) -> bool:
        # A word alone may repeat in a table or a count; it needs three times as many.
        times = self.repeats * 3 if length == 1 else self.repeats
        tail = words[-length * times :]
        if length > 1 and len(set(tail)) == 1:
            return False
        return len(tail) == length * times and tail == tail[:length] * times
