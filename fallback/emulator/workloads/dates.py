"""Dates and units: a parcel moves on by days, weeks, hours, months and business days.

Sonnet and opus are about equally good, so the dearest tier buys nothing; haiku is good at plain days and poor at
months, business days and weekdays.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from random import Random
from types import MappingProxyType

from fallback.emulator.workloads.base import Case, Curve, Draft, clip, final_answer, hidden, pick, sure
from fallback.emulator.workloads.grammar import NUMBER, PLACES, WEEKDAYS, Grammar, Sentence, either, words

_HEADER = (
    "Work out the date question. A month later means the same day of the next month, or its last day where that day "
    "does not exist; business days are Monday to Friday. Show each step on a line of its own in the form "
    "'<date> + <what> -> <date>' with dates as YYYY-MM-DD, then give the result on a last line in the form "
    "'Answer: <result>'.\n\nQuestion: "
)
_MONTHS = words("January February March April May June July August September October November December")
_GRAMMAR = Grammar(
    {
        "start": ("A parcel leaves {place} on {when}.", "On {when} a crate is handed over in {place}."),
        "days": ("It travels for {n} days.", "It stays in {place} for {n} days."),
        "weeks": ("Customs in {place} hold it for {n} weeks.", "A strike costs another {n} weeks."),
        "fortnight": ("A fortnight passes before anybody notices it.",),
        "hours": ("It then stands in a warehouse for {n} hours.",),
        "months": ("Exactly {n} months later it is moved on.",),
        "business": (
            "The paperwork takes {n} business days.",
            "After {n} business days, give or take none, it is free.",
        ),
        "back": ("The carrier then finds out that it is {n} days ahead of that plan.",),
        "noise": ("The carrier has {n} vans.", "The crate weighs {n} kilograms.", "Its label shows the number {n}."),
        "ask_date": ("On which date does it arrive (YYYY-MM-DD)?",),
        "ask_weekday": ("On which day of the week does it arrive?",),
        "ask_days": ("How many days lie between departure and arrival?",),
        "ask_hours": ("How many hours lie between departure and arrival, counting whole days?",),
    },
    {"n": NUMBER, "place": either(PLACES), "when": r"\d{1,2} (?:" + either(_MONTHS) + r") \d{4}"},
)
_STEP = re.compile(r"(\d{4}-\d{2}-\d{2}) [+-] [\w ]+ -> (\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True, slots=True)
class Move:
    """One shift of the date. `slip_days` is a mistake made in it."""

    kind: str
    n: int
    slip_days: int = 0
    as_days: bool = False  # business days or months counted as if they were days (30 to a month): a mistake


class Dates:
    """Date arithmetic with units."""

    name = "date-reasoning"
    only_answer = False
    curves: Mapping[str, Curve] = MappingProxyType(
        {
            "haiku": Curve(0.97, 0.15, 0.42, 9.0),
            "sonnet": Curve(0.985, 0.84, 0.72, 9.0),
            "opus": Curve(0.985, 0.83, 0.72, 9.0),
        }
    )

    def case(self, seed: int, index: int) -> Case:
        """The case of that number."""
        rng = Random(f"{self.name}:{seed}:{index}")
        return sure(self.recognise(_HEADER + _question(rng)))

    def recognise(self, prompt: str) -> Case | None:
        """Read the question back and work it out."""
        parsed = _parse(prompt)
        if parsed is None:
            return None
        start, moves, ask, sentences = parsed
        _, end = _walk(start, moves)
        return Case(self.name, prompt, _answer(start, end, ask), _difficulty(prompt, sentences, start, end))

    def draft(self, case: Case, tier: str, rng: Random, *, right: bool) -> Draft:
        """Off by a day or a month, business days or months counted as days, or no valid result at all."""
        start, moves, ask, _ = sure(_parse(case.prompt))
        lines, end = _walk(start, moves)
        if right:
            return Draft(lines, case.answer)
        odd = {"haiku": 0.25, "sonnet": 0.15, "opus": 0.15}[tier]
        mistake = pick(rng, {"off_by_one": 0.4, "unit": 0.35, "month": 0.25 - odd / 2, "no_result": odd})
        if mistake == "no_result":
            return Draft(lines, _no_result(end, ask), mistake)
        at = rng.randrange(len(moves))
        wrong = list(moves)
        long = [n for n, move in enumerate(moves) if move.kind in ("business", "months", "hours")]
        if mistake == "unit" and long:
            at = rng.choice(long)
            wrong[at] = Move(moves[at].kind, moves[at].n, as_days=True)
        else:
            slip = rng.choice((-30, 31)) if mistake == "month" else rng.choice((-1, 1))
            wrong[at] = Move(moves[at].kind, moves[at].n, slip_days=slip)
        shown, off = _walk(start, tuple(wrong))
        if _answer(start, off, ask) == case.answer:
            shown, off, mistake = lines, end + timedelta(days=rng.choice((-1, 1))), "mismatch"
        return Draft(shown, _answer(start, off, ask), mistake)

    def grade(self, case: Case, reply_text: str) -> bool:
        """The date, weekday or number."""
        return final_answer(reply_text).lower().rstrip(".") == case.answer.lower()


def verify(prompt: str, reply_text: str) -> bool:
    """Light: dates shown are dates, each step starts where the last one ended, the answer has the right form."""
    answer = final_answer(reply_text)
    if "day of the week" in prompt:
        formed = answer in WEEKDAYS
    elif "How many" in prompt:
        formed = bool(re.fullmatch(r"\d{1,6}", answer))
    else:
        formed = _is_date(answer)
    steps = list(dict.fromkeys(_STEP.findall(reply_text)))  # a step said twice is no mistake
    if not formed or not steps or not all(_is_date(day) for step in steps for day in step):
        return False
    if any(before[1] != after[0] for before, after in pairwise(steps)):
        return False
    return "On which date" not in prompt or steps[-1][1] == answer


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("2026-01-31")


def _parse(prompt: str) -> tuple[date, tuple[Move, ...], str, list[Sentence]] | None:
    if not prompt.startswith(_HEADER):
        return None
    sentences = _GRAMMAR.read(prompt[len(_HEADER) :].rstrip())
    if not sentences or sentences[0].kind != "start" or not sentences[-1].kind.startswith("ask_"):
        return None
    day, month, year = sentences[0].values["when"].split()
    moves = tuple(
        Move(sentence.kind, int(sentence.values.get("n", "1")))
        for sentence in sentences[1:-1]
        if sentence.kind != "noise"
    )
    try:
        start = date(int(year), _MONTHS.index(month) + 1, int(day))
    except ValueError:
        return None
    # Bounded, so that a hand-made prompt cannot walk out of the calendar.
    if not moves or len(moves) > 20 or any(move.n > 2_000 or move.kind.startswith("ask_") for move in moves):
        return None
    return (start, moves, sentences[-1].kind, sentences) if 1900 <= start.year <= 2200 else None


def _walk(start: date, moves: tuple[Move, ...]) -> tuple[tuple[str, ...], date]:
    """The steps, one a line, and where they end."""
    lines: list[str] = []
    day = start
    for move in moves:
        after = _moved(day, move) + timedelta(days=move.slip_days)
        sign = "-" if move.kind == "back" else "+"
        unit = {"business": "business days", "back": "days", "fortnight": "fortnight"}.get(move.kind, move.kind)
        lines.append(f"{day} {sign} {move.n} {unit} -> {after}")
        day = after
    return tuple(lines), day


def _moved(day: date, move: Move) -> date:
    match move.kind:
        case "weeks":
            return day + timedelta(weeks=move.n)
        case "fortnight":
            return day + timedelta(weeks=2)
        case "hours":
            return day + timedelta(days=move.n // (12 if move.as_days else 24))
        case "months":
            if move.as_days:
                return day + timedelta(days=30 * move.n + 1)
            months = day.year * 12 + day.month - 1 + move.n
            year, month = months // 12, months % 12 + 1
            return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
        case "business" if not move.as_days:
            weeks, rest = divmod(move.n, 5)
            day += timedelta(weeks=weeks)
            for _ in range(rest or 5):
                day += timedelta(days=1)
                while day.weekday() > 4:
                    day += timedelta(days=1)
            return day if rest else day - timedelta(weeks=1)
        case "back":
            return day - timedelta(days=move.n)
        case _:
            return day + timedelta(days=move.n)


def _answer(start: date, end: date, ask: str) -> str:
    match ask:
        case "ask_weekday":
            return WEEKDAYS[end.weekday()]
        case "ask_days":
            return str(abs((end - start).days))
        case "ask_hours":
            return str(abs((end - start).days) * 24)
        case _:
            return end.isoformat()


def _no_result(end: date, ask: str) -> str:
    match ask:
        case "ask_weekday":
            return f"the {end.day}th"
        case "ask_days" | "ask_hours":
            return "about a month"
        case _:
            return f"{end.year}-{end.month:02d}-32"


def _difficulty(prompt: str, sentences: list[Sentence], start: date, end: date) -> float:
    kinds = [sentence.kind for sentence in sentences]
    hard = 0.13 * kinds.count("business") + 0.1 * kinds.count("months") + 0.05 * kinds.count("hours")
    moves = len(kinds) - 2 - kinds.count("noise")
    asked = 0.08 if sentences[-1].kind in ("ask_weekday", "ask_hours") else 0.0
    crossing = 0.05 * (end.year != start.year)
    visible = 0.09 * (moves - 1) + hard + 0.04 * kinds.count("back") + 0.05 * kinds.count("noise") + asked + crossing
    return clip(visible + hidden(prompt, 0.09))


def _question(rng: Random) -> str:
    start = date(2023, 1, 1) + timedelta(days=rng.randrange(1_400))
    when = f"{start.day} {_MONTHS[start.month - 1]} {start.year}"
    values = {"when": when, "place": rng.choice(PLACES)}
    sentences = [_GRAMMAR.write("start", rng.randrange(2), values)]
    for n in range(rng.choice((1, 1, 2, 2, 3, 3, 4, 5))):
        weights = {
            "days": 3,
            "weeks": 2,
            "fortnight": 1,
            "hours": 1.5,
            "months": 2,
            "business": 2,
            "back": 1.0 if n else 0,
        }
        kind = pick(rng, weights)
        top = {"days": 40, "weeks": 6, "months": 7, "business": 19, "back": 4}.get(kind, 2)
        number = rng.randrange(2, 9) * 24 if kind == "hours" else rng.randrange(2, top + 1)
        sentences.append(_say(rng, kind, str(number)))
        if rng.random() < 0.2:
            sentences.append(_say(rng, "noise", str(rng.randrange(3, 400))))
    sentences.append(_say(rng, pick(rng, {"ask_date": 5, "ask_weekday": 2, "ask_days": 2, "ask_hours": 1}), ""))
    return " ".join(sentences)


def _say(rng: Random, kind: str, number: str) -> str:
    values = {"n": number, "place": rng.choice(PLACES)}
    return _GRAMMAR.write(kind, rng.randrange(_GRAMMAR.variants(kind)), values)
