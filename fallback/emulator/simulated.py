"""Answers from the built-in workloads. Stateless: all follows from the prompt, the tier, the seed and the sample.

How well the tiers do is made up (see each workload's curves), so that a router has something to learn: nothing
here measures a real model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from hashlib import blake2b
from random import Random
from statistics import NormalDist
from types import MappingProxyType
from typing import Any

from fallback.emulator.answers import Answer, Ask, Label, ToolCall, count_tokens
from fallback.emulator.grading import judged
from fallback.emulator.schema import instance
from fallback.emulator.workloads import WORKLOADS, recognise
from fallback.emulator.workloads.base import Case, Draft

# How much of the luck belongs to the prompt (all tiers fail together), to the prompt and tier (a tier fails it
# again and again) and to the single sample. Shares of the variance: they add up to 1.
_SHARES = (("prompt", 0.35), ("tier", 0.35), ("sample", 0.30))
_THINKING: Mapping[str, float] = MappingProxyType({"haiku": 0.9, "sonnet": 0.7, "opus": 0.6})  # per reply token
_EFFORT: Mapping[str, float] = MappingProxyType({"low": 0.4, "medium": 1.0, "high": 1.4, "xhigh": 2.2, "max": 3.0})
_OPENING: Mapping[str, tuple[float, str]] = MappingProxyType(
    {
        "haiku": (0.8, "I'll work through this step by step and keep track of every value on the way."),
        "sonnet": (0.5, "Working through it step by step."),
        "opus": (0.2, "Step by step:"),
    }
)
# Weak cues, as in life: they come with wrong replies more often than with right ones, and prove nothing.
_HEDGES = ("I am assuming that nothing else changes here.", "This is probably what is meant.", "I think this is right.")
_DOUBTS = ("Wait, let me check that again.", "Hmm, actually, that needs another look.", "Let me redo this step.")


class SimulatedSource:
    """Answers the workloads' prompts with their tiers' skill, and any other prompt with a short reply."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    @property
    def label(self) -> Label:
        """All of it is simulated."""
        return "simulated"

    def is_right(self, case: Case, tier: str, sample: int = 1) -> bool:
        """Whether this tier answers rightly: P over prompts of equal difficulty is the workload's curve."""
        parts = {"prompt": "", "tier": tier, "sample": f"{tier}:{sample}"}
        normal = NormalDist()
        luck = sum(
            math.sqrt(share) * normal.inv_cdf(self._uniform(case.prompt, f"{name}:{parts[name]}"))
            for name, share in _SHARES
        )
        return normal.cdf(luck) < WORKLOADS[case.workload].curves[tier].at(case.difficulty)

    def answer(self, ask: Ask) -> Answer:
        """The tier's answer."""
        verdict = judged(ask, self._uniform)
        if verdict is not None:
            return verdict
        case = recognise(ask.prompt)
        if case is None:
            return self._other(ask)
        rng = Random(int(2**53 * self._uniform(ask.prompt, f"draft:{ask.tier}:{ask.sample}")))
        right = self.is_right(case, ask.tier, ask.sample)
        workload = WORKLOADS[case.workload]
        draft = workload.draft(case, ask.tier, rng, right=right)
        text = draft.final if workload.only_answer else _words(draft, ask.tier, rng, right=right)
        if ask.schema is not None:
            text = json.dumps(instance(ask.schema, _hints(draft, text)))
        return Answer(text=text, thinking_tokens=_thinking_tokens(ask, text, case.difficulty, rng))

    def _other(self, ask: Ask) -> Answer:
        """A prompt that is of no workload."""
        rng = Random(int(2**53 * self._uniform(ask.prompt, f"other:{ask.tier}:{ask.sample}")))
        called = [tool for tool in ask.may_call if ask.must_call or str(tool["name"]) in ask.prompt]
        if called:
            tool = called[0]
            call = ToolCall(str(tool["name"]), instance(tool["input_schema"], {}))
            return Answer(calls=(call,), thinking_tokens=_thinking_tokens(ask, "x" * 80, 0.3, rng))
        if ask.schema is not None:
            text = json.dumps(instance(ask.schema, {}))
        else:
            words = len(ask.prompt.split())
            text = f"This is a simulated reply of the {ask.tier} tier to a prompt of {words} words."
            if rng.random() < 0.5:
                text += " No model was asked."
        return Answer(text=text, thinking_tokens=_thinking_tokens(ask, text, 0.3, rng))

    def _uniform(self, prompt: str, purpose: str) -> float:
        """In 0..1 without the ends, fixed by the arguments and the seed."""
        key = f"{self._seed}\0{purpose}\0{prompt}".encode("utf-8", "surrogatepass")
        return (int.from_bytes(blake2b(key, digest_size=8).digest(), "big") + 0.5) / 2**64


def _words(draft: Draft, tier: str, rng: Random, *, right: bool) -> str:
    lines = list(draft.lines)
    share, opening = _OPENING[tier]
    if rng.random() < (0.06 if right else 0.30):
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_HEDGES))
    if rng.random() < (0.05 if right else 0.25) and lines:
        at = rng.randrange(len(lines))
        lines[at + 1 : at + 1] = [rng.choice(_DOUBTS), lines[at]]
    if rng.random() < share:
        lines.insert(0, opening)
    return "\n".join([*lines, f"Answer: {draft.final}"])


def _hints(draft: Draft, text: str) -> dict[str, Any]:
    """Values for properties of a wanted JSON reply, by the usual names."""
    try:
        value = json.loads(draft.final)
    except ValueError:
        value = draft.final
    if isinstance(value, dict):
        return value
    reasoning = text.rpartition("\n")[0]
    names = dict.fromkeys(("answer", "label", "result"), value)
    return {**names, "reasoning": reasoning, "explanation": reasoning}


def _thinking_tokens(ask: Ask, text: str, difficulty: float, rng: Random) -> int:
    if not ask.thinking:
        return 0
    typical = (12 + count_tokens(text)) * _THINKING[ask.tier] * _EFFORT[ask.effort] * (0.5 + difficulty)
    return max(1, round(typical * rng.uniform(0.7, 1.4)))
