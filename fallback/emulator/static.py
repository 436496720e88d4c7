"""One fixed reply, whatever is asked: the cheapest upstream there is, for benchmarks."""

from __future__ import annotations

from fallback.emulator.answers import Answer, Ask, Label


class StaticSource:
    """Always the same text and token counts."""

    def __init__(self, text: str = "Simulated static reply.", *, output_tokens: int | None = None) -> None:
        self._answer = Answer(text=text, output_tokens=output_tokens)

    @property
    def label(self) -> Label:
        """Static is simulated too."""
        return "simulated"

    def answer(self, ask: Ask) -> Answer:  # noqa: ARG002 - the protocol has it
        """The fixed reply."""
        return self._answer
