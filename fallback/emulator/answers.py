"""What a source of answers is asked and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Label = Literal["simulated", "recorded"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One validated request, as a source sees it.

    `prompt` is the text of the last user turn. `sample` counts from 1 how often this tier was asked this very
    prompt: the emulator keeps that count, so that sources need no state. `may_call` are the tools that the
    reply may call, empty after a tool result; `must_call` says that it has to.
    """

    tier: str
    model: str
    prompt: str = field(repr=False)
    system: str = field(default="", repr=False)
    sample: int = 1
    thinking: bool = True
    effort: str = "medium"
    schema: Mapping[str, Any] | None = field(default=None, repr=False)
    may_call: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    must_call: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The reply asks for a tool call."""

    name: str
    input: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A tier's whole answer, before limits cut it.

    `output_tokens` is for the text and calls, counted from them where it is None; `thinking_tokens` come on top.
    """

    text: str = field(default="", repr=False)
    calls: tuple[ToolCall, ...] = ()
    output_tokens: int | None = None
    thinking_tokens: int = 0


class AnswerSource(Protocol):
    """Where answers come from. Pure: the same Ask gives the same Answer."""

    @property
    def label(self) -> Label:
        """What the `x-tierwise-emulated` header says."""
        ...

    def answer(self, ask: Ask) -> Answer:
        """The answer. Raises ApiError where there is none."""
        ...


def count_tokens(text: str) -> int:
    """Tokens of a text as the emulator counts them: characters / 4, at least 1. The real tokenizer is not public."""
    return max(1, round(len(text) / 4))
