"""Sources and verifiers for audit tests: tiers that answer differently, and one who knows the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping

from fallback.emulator.answers import Answer, Ask, Label
from fallback.types import Reply, Request


class ByTier:
    """Each tier always gives the same text. Prompts that hold a key of `wrong` get "41" from the tiers named there."""

    def __init__(self, texts: Mapping[str, str], wrong: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._texts = texts
        self._wrong = wrong or {}

    @property
    def label(self) -> Label:
        return "simulated"

    def answer(self, ask: Ask) -> Answer:
        for word, tiers in self._wrong.items():
            if word in ask.prompt and ask.tier in tiers:
                return Answer(text="41")
        return Answer(text=self._texts.get(ask.tier, "42"))


def is_42(request: Request, reply: Reply) -> bool:
    return "42" in reply.text


def hangs(request: Request, reply: Reply) -> bool:
    raise TimeoutError


def not_haikus(request: Request, reply: Reply) -> bool:
    """A verifier that dislikes how the cheapest tier says it."""
    return "surely" not in reply.text and "41" not in reply.text


class Judging(ByTier):
    """Its judge finds every reply good when it grades one, and the one with 42 in it better when it compares two."""

    def answer(self, ask: Ask) -> Answer:
        wanted = (ask.schema or {}).get("properties", {})
        if "points" in wanted:
            return Answer(text=json.dumps({"findings": "fine", "points": 9, "can_tell": True}))
        if "better" in wanted:
            first, second = ask.prompt.split(" FIRST>>")[1].split(" SECOND>>")
            right = ("\n42\n" in first, "\n42\n" in second)
            better = "equal" if right[0] is right[1] else "first" if right[0] else "second"
            return Answer(text=json.dumps({"findings": "compared", "better": better}))
        return super().answer(ask)
