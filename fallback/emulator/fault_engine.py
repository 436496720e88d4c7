"""Decides which fault, if any, a request gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from fallback.emulator.faults import (
    Cut,
    FaultScript,
    Hang,
    Malformed,
    Refusal,
    Route,
    Rule,
    Slow,
    SlowHeaders,
    Status,
    StreamError,
    Trickle,
    Truncate,
)
from fallback.emulator.models import ModelSpec

Terminal = Status | Hang | SlowHeaders | Trickle | Cut | Malformed | Refusal | Truncate | StreamError


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong with one request: seconds to wait first, and an action or none."""

    delay_s: float = 0.0
    action: Terminal | None = None
    fired: tuple[str, ...] = ()  # names of the rules


_NOTHING = Plan()


class FaultEngine:
    """A script with its counters, started at the time it is made."""

    def __init__(self, script: FaultScript, seed: int, clock: Callable[[], float]) -> None:
        self.script = script
        self._seed = seed
        self._clock = clock
        self._started = clock()
        self._seen = [0] * len(script.rules)
        self._worked = [0] * len(script.rules)

    def plan(self, route: Route, endpoint: str, spec: ModelSpec | None) -> Plan:
        """The plan for a request that has just arrived; counts it."""
        if not self.script.rules:
            return _NOTHING
        elapsed = self._clock() - self._started
        delay_s = 0.0
        action: Terminal | None = None
        fired: list[str] = []
        for n, rule in enumerate(self.script.rules):
            if not _concerns(rule, route, endpoint, spec):
                continue
            # Every rule counts every request that it concerns, also after another rule has taken it, so that
            # adding a rule does not shift the others.
            self._seen[n] += 1
            if action is not None or not self._works(n, rule, elapsed):
                continue
            self._worked[n] += 1
            fired.append(rule.name or f"rules[{n}]")
            if isinstance(rule.action, Slow):
                delay_s += rule.action.draw_from().draw(Random(f"{self._seed}:slow:{n}:{self._seen[n]}"))
            else:
                action = rule.action
        return Plan(delay_s, action, tuple(fired))

    def _works(self, n: int, rule: Rule, elapsed: float) -> bool:
        number = self._seen[n] - rule.after
        if number < 1 or (rule.first is not None and self._worked[n] >= rule.first):
            return False
        if rule.nth is not None and number not in rule.nth:
            return False
        if rule.every is not None and number % rule.every:
            return False
        if elapsed < rule.from_s or (rule.until_s is not None and elapsed >= rule.until_s):
            return False
        return rule.probability >= 1.0 or Random(f"{self._seed}:{n}:{number}").random() < rule.probability


def _concerns(rule: Rule, route: Route, endpoint: str, spec: ModelSpec | None) -> bool:
    if rule.route != route or not endpoint.startswith(rule.endpoint):
        return False
    return rule.model is None or (spec is not None and rule.model in (spec.tier, spec.id))
