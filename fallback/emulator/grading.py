"""A simulated judge: it knows the right answers of the simulated workloads, and misjudges at known rates.

The rates are made up; they measure no real judge.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from fallback.emulator.answers import Answer, Ask, count_tokens
from fallback.emulator.workloads import grade, recognise

# P(a verdict is turned round), P(no verdict), and P(a comparison follows the place alone), by tier.
MISJUDGES: Mapping[str, float] = MappingProxyType({"haiku": 0.15, "sonnet": 0.08, "opus": 0.05})
ABSTAINS = 0.05
FOLLOWS_PLACE = 0.10

_PART = re.compile(r"<<([0-9a-f]{16}) ([A-Z]+)>>\n(.*?)\n<<\1 END>>", re.DOTALL)
_TURN = "[user] "

Uniform = Callable[[str, str], float]  # (prompt, purpose) → [0, 1)


def judged(ask: Ask, uniform: Uniform) -> Answer | None:
    """The answer to a judge's question (`fallback.checks.judge`); None for any other prompt."""
    parts = {name: text for _, name, text in _PART.findall(ask.prompt)}
    asked_for = (ask.schema or {}).get("properties", {})
    if "REQUEST" not in parts or not {"points", "better"} & set(asked_for):
        return None
    case = recognise(parts.pop("REQUEST").rpartition(_TURN)[2])
    draw = {name: uniform(ask.prompt, f"judge:{ask.tier}:{name}") for name in ("error", "abstain", "place", "points")}
    unsure = case is None or draw["abstain"] < ABSTAINS
    turned = draw["error"] < MISJUDGES[ask.tier]
    good = {} if case is None else {name: grade(case, text) for name, text in parts.items()}
    if "points" in asked_for:
        seems_good = good.get("REPLY", False) is not turned
        points = int(draw["points"] * 3) + 8 if seems_good else int(draw["points"] * 5)
        said: dict[str, object] = {"points": points, "can_tell": not unsure}
    else:
        said = {
            "better": "cannot_tell" if unsure else _better(good, by_place=draw["place"] < FOLLOWS_PLACE, turned=turned)
        }
    text = json.dumps({"findings": "Simulated findings of the emulator's judge.", **said})
    return Answer(text=text, thinking_tokens=count_tokens(text) if ask.thinking else 0)


def _better(good: Mapping[str, bool], *, by_place: bool, turned: bool) -> str:
    first, second = good.get("FIRST", False), good.get("SECOND", False)
    if by_place:
        return "first"
    if first is second:
        return "equal"
    return "first" if first is not turned else "second"
