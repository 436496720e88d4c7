"""Multi-step word problems about a stock that grows and shrinks.

What makes them hard is visible in part: the number of steps, fractions and percentages, numbers that do not
matter, hedged wording. The ladder is graded: haiku is good at the short ones, sonnet at most, opus at nearly all.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from types import MappingProxyType

from fallback.emulator.workloads.base import Case, Curve, Draft, clip, final_answer, hidden, pick, sure
from fallback.emulator.workloads.grammar import NAMES, NUMBER, PLACES, WEEKDAYS, Grammar, Sentence, either, words

_HEADER = (
    "Solve the word problem. Write each calculation as an equation on a line of its own, then give the result on a "
    "last line in the form 'Answer: <number>'.\n\nProblem: "
)
_ITEMS = words("loaves tickets crates books seedlings bottles tiles jars bolts lanterns postcards mugs candles ropes")
_SHOPS = words("bakery nursery kiosk workshop museum shop farm stand cellar brewery depot studio")
_TIMES: Mapping[str, int] = MappingProxyType({"doubled": 2, "tripled": 3, "quadrupled": 4})
_FRACTIONS: Mapping[str, int] = MappingProxyType({"Half": 2, "A third": 3, "A quarter": 4, "A fifth": 5})
_GRAMMAR = Grammar(
    {
        "start": (
            "{name} runs a small {shop} and begins the week with {n} {item}.",
            "At the start of the month {name} counts {n} {item} in the {shop}.",
        ),
        "add": (
            "A delivery brings {n} more {item}.",
            "Later {n} {item} come back from {place}.",
            "As far as anybody can tell, {n} further {item} turn up in the back room.",
        ),
        "boxes": ("Then {b} boxes with {k} {item} each arrive.", "{b} customers return {k} {item} each."),
        "sub": (
            "On {day} {n} {item} are sold.",
            "{n} of the {item} turn out to be damaged and are thrown away.",
            "It seems that {n} {item} were given away, though nobody wrote it down.",
        ),
        "mul": ("By {day} the stock has {times}.",),
        "frac": ("{frac} of the remaining {item} goes to {place}.",),
        "pct": ("{p}% of the {item} on hand are set aside for {place} and not counted any more.",),
        "noise": (
            "The shop next door has {n} {item} of its own.",
            "{name}, who is {n} years old, helps out on {day}.",
            "The journey to {place} takes {n} minutes.",
        ),
        "ask_left": ("How many {item} are left?",),
        "ask_money": ("Each of the {item} that are left sells for {n} dollars; how many dollars do they bring in?",),
    },
    {
        "n": NUMBER,
        "b": NUMBER,
        "k": NUMBER,
        "p": r"\d{1,2}",
        "name": either(NAMES),
        "place": either(PLACES),
        "day": either(WEEKDAYS),
        "item": either(_ITEMS),
        "shop": either(_SHOPS),
        "times": either(list(_TIMES)),
        "frac": either(list(_FRACTIONS)),
    },
)
_SIGNS: Mapping[str, Callable[[float, float], float]] = MappingProxyType(
    {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
)
_EQUATION = re.compile(r"(-?\d+(?:\.\d+)?) ([+*/-]) (-?\d+(?:\.\d+)?) = (-?\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens to the stock. `remove` is False where a fraction is kept by mistake."""

    kind: str
    n: int
    k: int = 0
    remove: bool = True


def solve(steps: tuple[Step, ...], *, slip_at: int = -1, slip: int = 0) -> tuple[tuple[str, ...], float]:
    """The equations, one a line, and the result. With `slip_at`, that step's result is off by `slip`."""
    total = 0.0
    lines: list[str] = []

    def equation(what: str, left: float, sign: str, right: float, *, off: int = 0) -> float:
        value = round(_SIGNS[sign](left, right) + off, 2)
        lines.append(f"{what}: {left:.10g} {sign} {right:.10g} = {value:.10g}")
        return value

    for at, step in enumerate(steps):
        off = slip if at == slip_at else 0
        match step.kind:
            case "start":
                total = step.n
                lines.append(f"Start: {step.n}")
            case "add":
                total = equation("Added", total, "+", step.n, off=off)
            case "boxes":
                total = equation("Added", total, "+", equation("Arriving", step.n, "*", step.k), off=off)
            case "sub":
                total = equation("Taken away", total, "-", step.n, off=off)
            case "mul":
                total = equation("Grown", total, "*", step.n, off=off)
            case "frac":
                part = equation("The part", total, "/", step.n, off=off)
                total = equation("What remains", total, "-", part) if step.remove else part
            case "pct":
                part = equation(f"{step.n}%", total, "*", step.n / 100, off=off)
                total = equation("What remains", total, "-", part) if step.remove else part
            case "ask_money":
                total = equation("Sales", total, "*", step.n, off=off)
            case _:
                pass
    return tuple(lines), total


class Arithmetic:
    """Word problems with an exact number as their answer."""

    name = "word-arithmetic"
    only_answer = False
    curves: Mapping[str, Curve] = MappingProxyType(
        {
            "haiku": Curve(0.985, 0.06, 0.46, 9.0),
            "sonnet": Curve(0.99, 0.62, 0.74, 9.0),
            "opus": Curve(0.995, 0.86, 0.82, 9.0),
        }
    )

    def case(self, seed: int, index: int) -> Case:
        """The case of that number."""
        rng = Random(f"{self.name}:{seed}:{index}")
        return sure(self.recognise(_HEADER + _story(rng)))

    def recognise(self, prompt: str) -> Case | None:
        """Read the story back and solve it."""
        if not prompt.startswith(_HEADER):
            return None
        sentences = _GRAMMAR.read(prompt[len(_HEADER) :].rstrip())
        if not sentences or sentences[0].kind != "start" or not sentences[-1].kind.startswith("ask_"):
            return None
        _, total = solve(_steps(sentences))
        return Case(self.name, prompt, f"{total:.10g}", _difficulty(prompt, sentences))

    def draft(self, case: Case, tier: str, rng: Random, *, right: bool) -> Draft:
        """A slip in one equation (carried on), a wrong set-up (all equations hold), or a wrong last line."""
        steps = _steps(_GRAMMAR.read(case.prompt[len(_HEADER) :].rstrip()) or [])
        lines, total = solve(steps)
        if right:
            return Draft(lines, f"{total:.10g}")
        slips = {"haiku": 0.65, "sonnet": 0.5, "opus": 0.35}[tier]
        mistake = pick(rng, {"slip": slips, "setup": 0.9 - slips, "mismatch": 0.1})
        if mistake == "setup":
            lines, wrong = solve(_wrong_setup(steps, rng))
            if wrong != total:
                return Draft(lines, f"{wrong:.10g}", mistake)
        if mistake != "mismatch":
            places = [at for at, step in enumerate(steps) if step.kind not in ("start", "noise", "ask_left")]
            if places:
                lines, wrong = solve(steps, slip_at=rng.choice(places), slip=rng.choice((-10, -2, -1, 1, 2, 10)))
                if wrong != total:
                    return Draft(lines, f"{wrong:.10g}", "slip")
        return Draft(lines, f"{total + rng.choice((-10, -1, 1, 10)):.10g}", "mismatch")

    def grade(self, case: Case, reply_text: str) -> bool:
        """The number on the answer line, whatever is written around it."""
        number = _number(final_answer(reply_text))
        return number is not None and abs(number - float(case.answer)) < 0.005


def verify(reply_text: str) -> bool:
    """Each equation shown holds, and the last one gives the answer. Blind to a wrong set-up of right sums."""
    answer = _number(final_answer(reply_text))
    equations = _EQUATION.findall(reply_text)
    if answer is None or not equations:
        return False
    for left, sign, right, result in equations:
        a, b = float(left), float(right)
        if sign == "/" and b == 0:
            return False
        value = {"+": a + b, "-": a - b, "*": a * b}[sign] if sign != "/" else a / b
        if abs(value - float(result)) > 0.0051:
            return False
    return abs(float(equations[-1][3]) - answer) < 0.005


def _number(text: str) -> float | None:
    match = re.search(r"-?\d[\d,]*(?:\.\d+)?", text)
    return float(match[0].replace(",", "")) if match and len(match[0]) < 20 else None


def _steps(sentences: list[Sentence]) -> tuple[Step, ...]:
    steps: list[Step] = []
    for sentence in sentences:
        values = sentence.values
        match sentence.kind:
            case "boxes":
                steps.append(Step("boxes", int(values["b"]), int(values["k"])))
            case "mul":
                steps.append(Step("mul", _TIMES[values["times"]]))
            case "frac":
                steps.append(Step("frac", _FRACTIONS[values["frac"]]))
            case "pct":
                steps.append(Step("pct", int(values["p"])))
            case "ask_left":
                steps.append(Step("ask_left", 0))
            case kind:
                steps.append(Step(kind, int(values["n"])))
    return tuple(steps)


def _difficulty(prompt: str, sentences: list[Sentence]) -> float:
    kinds = [sentence.kind for sentence in sentences]
    hard = kinds.count("frac") + kinds.count("pct") + 0.5 * kinds.count("boxes") + kinds.count("ask_money")
    hedged = sum(sentence.kind in ("add", "sub") and sentence.variant == 2 for sentence in sentences)
    steps = len(kinds) - kinds.count("noise") - 2
    return clip(0.085 * (steps - 1) + 0.06 * hard + 0.07 * kinds.count("noise") + 0.03 * hedged + hidden(prompt, 0.08))


def _wrong_setup(steps: tuple[Step, ...], rng: Random) -> tuple[Step, ...]:
    """The same story misread: a step left out or turned round, a part kept, a number that does not matter used."""
    changed = list(steps)
    at = rng.choice([n for n, step in enumerate(steps) if step.kind not in ("start", "ask_left")] or [0])
    match steps[at].kind:
        case "frac" | "pct":
            changed[at] = replace(steps[at], remove=False)
        case "noise":
            changed[at] = replace(steps[at], kind=rng.choice(("add", "sub")))
        case "add" | "sub" if rng.random() < 0.5:
            changed[at] = replace(steps[at], kind="sub" if steps[at].kind == "add" else "add")
        case "start":
            pass
        case _:
            del changed[at]
    return tuple(changed)


def _story(rng: Random) -> str:
    fixed = {"name": rng.choice(NAMES), "item": rng.choice(_ITEMS), "shop": rng.choice(_SHOPS)}
    total = rng.randrange(24, 240)
    sentences = [_say(rng, "start", {**fixed, "n": total})]
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4, 5, 6, 7, 8))):
        kind = _possible(rng, total)
        values: dict[str, object] = {**fixed, "day": rng.choice(WEEKDAYS), "place": rng.choice(PLACES)}
        match kind:
            case "add":
                total += (n := rng.randrange(3, 160))
                values["n"] = n
            case "boxes":
                b, k = rng.randrange(2, 13), rng.randrange(3, 25)
                total += b * k
                values |= {"b": b, "k": k}
            case "sub":
                total -= (n := rng.randrange(1, total))
                values["n"] = n
            case "mul":
                values["times"] = times = rng.choice(list(_TIMES))
                total *= _TIMES[times]
            case "frac":
                values["frac"] = frac = rng.choice([f for f, n in _FRACTIONS.items() if total % n == 0])
                total -= total // _FRACTIONS[frac]
            case _:
                values["p"] = p = rng.choice([p for p in (10, 15, 20, 25, 40, 60) if total * p % 100 == 0])
                total -= total * p // 100
        sentences.append(_say(rng, kind, values))
        if rng.random() < 0.22:
            noise = {**fixed, "n": rng.randrange(5, 90), "day": rng.choice(WEEKDAYS), "place": rng.choice(PLACES)}
            sentences.append(_say(rng, "noise", {**noise, "name": rng.choice(NAMES)}))
    ask = "ask_money" if rng.random() < 0.3 else "ask_left"
    sentences.append(_say(rng, ask, {**fixed, "n": rng.randrange(2, 20)}))
    return " ".join(sentences)


def _possible(rng: Random, total: int) -> str:
    kinds = {"add": 3.0, "boxes": 2.0}
    if total > 8:
        kinds["sub"] = 3.0
    if total < 2_000:
        kinds["mul"] = 1.0
    if total > 3 and any(total % n == 0 for n in _FRACTIONS.values()):
        kinds["frac"] = 1.6
    if total > 19 and any(total * p % 100 == 0 for p in (10, 15, 20, 25, 40, 60)):
        kinds["pct"] = 1.6
    return pick(rng, kinds)


def _say(rng: Random, kind: str, values: Mapping[str, object]) -> str:
    weights = (5, 5, 2)[: _GRAMMAR.variants(kind)]
    variant = rng.choices(range(_GRAMMAR.variants(kind)), weights=weights)[0]
    return _GRAMMAR.write(kind, variant, {name: str(value) for name, value in values.items()})
