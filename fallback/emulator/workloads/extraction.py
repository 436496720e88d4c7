"""JSON extraction from order messages.

Hard is what real messages are hard by: corrections further down, other people and older orders that are
mentioned too, fields that are asked for and not there. Haiku copes with most; the gap to the others is in the
corrected and crowded ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from random import Random
from types import MappingProxyType
from typing import Any

import jsonschema_rs

from fallback.emulator.workloads.base import Case, Curve, Draft, clip, hidden, pick, sure
from fallback.emulator.workloads.grammar import NAMES, NUMBER, PLACES, Grammar, Sentence, either, words

_HEADER = "Read the message and return one JSON object with exactly these keys: "
_MIDDLE = ". Dates are YYYY-MM-DD; use null for what is not stated. Return the JSON object only.\n\nMessage:\n"
_KEYS = words("customer company order_id item quantity unit_price delivery_date city phone email")
_ALWAYS = ("customer", "order_id", "item", "quantity")
_KINDS: Mapping[str, str] = MappingProxyType({"quantity": "integer", "unit_price": "number"})
_COMPANIES = words("Nordlicht Albatros Kestrel Meridian Quillon Vantage Tidewater Brightwell Oakmere Solenne")
_SURNAMES = words("Berg Costa Dahl Eriksen Fontaine Grau Horvat Iversen Jansen Kovac Lindqvist Moreau Novak Ortiz")
_GOODS = ("desk lamps", "office chairs", "filing cabinets", "whiteboards", "monitor arms", "label printers")
_MONTHS = words("January February March April May June July August September October November December")
_GRAMMAR = Grammar(
    {
        "who": (
            "My name is {customer} and I write for {company}.",
            "{customer} from {company} here.",
            "This is {customer}, purchasing, {company}.",
        ),
        "who_alone": ("My name is {customer}.", "{customer} here, writing privately."),
        "order": ("This is about order {order_id}.", "Our reference is {order_id}."),
        "goods": (
            "We would like {quantity} {item} at {unit_price} euros each.",
            "Please put us down for {quantity} {item}; the agreed price is {unit_price} euros apiece.",
        ),
        "goods_bare": ("We need {quantity} {item}.", "Please send {quantity} {item} as discussed."),
        "ship": (
            "Please deliver to {city} by {when}.",
            "The goods should reach our site in {city} on {when}, if that is at all possible.",
        ),
        "phone": ("You can reach me on {phone}.",),
        "email": ("Write to {email} with any questions.",),
        "fix_quantity": (
            "Sorry, please make that {quantity} instead.",
            "On second thoughts we should rather say {quantity}, since two rooms were added.",
        ),
        "fix_date": ("Scratch that date: {when} would suit us better.",),
        "old_order": ("Last year we bought {n} {item} under order {old}, which went fine.",),
        "colleague": ("My colleague {other} handles the invoices, not the orders.",),
        "chat": (
            "I hope this finds you well.",
            "The last catalogue was a pleasure to read.",
            "As you may or may not have heard, we are moving offices soon.",
        ),
    },
    {
        "customer": r"[A-Z][a-z]+ [A-Z][a-z]+",
        "other": r"[A-Z][a-z]+ [A-Z][a-z]+",
        "company": either([f"{name} {form}" for name in _COMPANIES for form in ("GmbH", "Ltd", "SA")]),
        "order_id": r"[A-Z]{2}-\d{5}",
        "old": r"[A-Z]{2}-\d{5}",
        "item": either(_GOODS),
        "quantity": NUMBER,
        "n": NUMBER,
        "unit_price": r"\d{1,4}\.\d{2}",
        "city": either(PLACES),
        "when": r"\d{1,2} (?:" + either(_MONTHS) + r") \d{4}",
        "phone": r"\+\d{2} \d{3} \d{6}",
        "email": r"[a-z.]+@[a-z]+\.example",
    },
)


class Extraction:
    """One JSON object from a message."""

    name = "order-extraction"
    only_answer = True
    curves: Mapping[str, Curve] = MappingProxyType(
        {
            "haiku": Curve(0.985, 0.42, 0.62, 8.0),
            "sonnet": Curve(0.99, 0.80, 0.78, 8.0),
            "opus": Curve(0.995, 0.90, 0.82, 8.0),
        }
    )

    def case(self, seed: int, index: int) -> Case:
        """The case of that number."""
        rng = Random(f"{self.name}:{seed}:{index}")
        message, stated = _message(rng)
        more = [key for key in _KEYS if key not in _ALWAYS and rng.random() < (0.7 if key in stated else 0.25)]
        keys = [key for key in _KEYS if key in _ALWAYS or key in more]
        return sure(self.recognise(f"{_HEADER}{', '.join(keys)}{_MIDDLE}{message}"))

    def recognise(self, prompt: str) -> Case | None:
        """Read the message back; what is said later corrects what was said before."""
        parsed = _parse(prompt)
        if parsed is None:
            return None
        keys, sentences = parsed
        stated = _stated(sentences)
        answer = {key: stated.get(key) for key in keys}
        difficulty = _difficulty(prompt, keys, sentences, answer)
        return Case(self.name, prompt, json.dumps(answer), difficulty, output_schema=_schema(keys))

    def draft(self, case: Case, tier: str, rng: Random, *, right: bool) -> Draft:
        """A stale, swapped, altered, invented or missing value, or prose around the object."""
        answer: dict[str, Any] = json.loads(case.answer)
        if right:
            return Draft((), json.dumps(answer, indent=1 if tier == "haiku" else None))
        parsed = _parse(case.prompt)
        options = _mistakes(answer, parsed[1] if parsed else [])
        heavy = {"haiku": 1.0, "sonnet": 0.6, "opus": 0.4}[tier]
        weights = {
            "stale": 1.0,
            "swapped": 0.7,
            "altered": heavy,
            "invented": 0.8,
            "missing": heavy,
            "prose": 0.4 * heavy,
        }
        mistake = pick(rng, {kind: weights[kind] for kind in options})
        if mistake == "prose":
            return Draft(
                (), f"Here is the object you asked for:\n{json.dumps(answer)}\nLet me know if it fits.", mistake
            )
        key, value = rng.choice(options[mistake])
        if mistake == "missing":
            del answer[key]
        else:
            answer[key] = value
        return Draft((), json.dumps(answer), mistake)

    def grade(self, case: Case, reply_text: str) -> bool:
        """Exactly the right object, and nothing else but a code fence."""
        text = re.sub(r"\A```(?:json)?\s*|\s*```\Z", "", reply_text.strip())
        try:
            return bool(json.loads(text) == json.loads(case.answer))
        except (ValueError, RecursionError):
            return False


def verify(prompt: str, reply_text: str) -> bool:
    """The schema holds and each value occurs in the message. Blind to values taken from the wrong place in it."""
    head, found, message = prompt.partition(_MIDDLE)
    if not found or not head.startswith(_HEADER):
        return False
    try:
        value = json.loads(reply_text)
    except (ValueError, RecursionError):
        return False
    if not jsonschema_rs.is_valid(_schema(head[len(_HEADER) :].split(", ")), value):
        return False
    return all(item is None or _occurs(key, item, message) for key, item in value.items())


def _occurs(key: str, value: Any, message: str) -> bool:
    if key == "delivery_date":
        try:
            day = date.fromisoformat(value)
        except ValueError:
            return False
        return _spoken(day) in message
    shown = f"{value:.2f}" if key == "unit_price" else str(value)
    return re.search(rf"(?<![\w.]){re.escape(shown)}(?![\w])", message) is not None


def _schema(keys: list[str]) -> dict[str, Any]:
    properties = {key: {"anyOf": [{"type": _KINDS.get(key, "string")}, {"type": "null"}]} for key in keys}
    return {"type": "object", "properties": properties, "required": list(keys), "additionalProperties": False}


def _parse(prompt: str) -> tuple[list[str], list[Sentence]] | None:
    head, found, message = prompt.partition(_MIDDLE)
    if not found or not head.startswith(_HEADER):
        return None
    keys = head[len(_HEADER) :].split(", ")
    sentences = _GRAMMAR.read(message.rstrip())
    if not sentences or any(key not in _KEYS for key in keys):
        return None
    return keys, sentences


def _stated(sentences: list[Sentence]) -> dict[str, Any]:
    """What the message says of the order that it is about."""
    found: dict[str, Any] = {}
    for sentence in sentences:
        if sentence.kind in ("old_order", "colleague", "chat"):
            continue
        for slot, text in sentence.values.items():
            if slot == "when":
                found["delivery_date"] = _day(text).isoformat()
            elif slot == "quantity":
                found[slot] = int(text)
            else:
                found[slot] = float(text) if slot == "unit_price" else text
    return found


def _mistakes(answer: Mapping[str, Any], sentences: list[Sentence]) -> dict[str, list[tuple[str, Any]]]:
    """Which mistakes this message invites: by kind, the key and the wrong value."""
    stale: list[tuple[str, Any]] = []
    swapped: list[tuple[str, Any]] = []
    for sentence in sentences:
        if sentence.kind in ("goods", "goods_bare") and int(sentence.values["quantity"]) != answer["quantity"]:
            stale.append(("quantity", int(sentence.values["quantity"])))
        if sentence.kind == "ship" and answer.get("delivery_date"):
            day = _day(sentence.values["when"]).isoformat()
            stale += [("delivery_date", day)] if day != answer["delivery_date"] else []
        if sentence.kind == "old_order":
            swapped += [("order_id", sentence.values["old"]), ("quantity", int(sentence.values["n"]))]
        if sentence.kind == "colleague":
            swapped.append(("customer", sentence.values["other"]))
    number = answer["quantity"]
    order = answer["order_id"]
    altered: list[tuple[str, Any]] = [("quantity", number + 10), ("order_id", f"{order[:-2]}{order[-1]}{order[-2]}")]
    if answer.get("delivery_date"):
        off = date.fromisoformat(answer["delivery_date"]) + timedelta(days=30)
        altered.append(("delivery_date", off.isoformat()))
    made_up = {"company": "Acme Ltd", "city": "Berlin", "phone": "+49 030 000000", "email": "info@acme.example"}
    made_up |= {"delivery_date": "2026-01-31"}
    invented = [(key, made_up[key]) for key, value in answer.items() if value is None and key in made_up]
    swapped = [(key, value) for key, value in swapped if value != answer[key]]
    altered = [(key, value) for key, value in altered if value != answer[key]]
    missing = [(key, None) for key in answer]
    found = {"stale": stale, "swapped": swapped, "altered": altered, "invented": invented, "missing": missing}
    return {kind: options for kind, options in found.items() if options} | {"prose": [("", None)]}


def _difficulty(prompt: str, keys: list[str], sentences: list[Sentence], answer: Mapping[str, Any]) -> float:
    kinds = [sentence.kind for sentence in sentences]
    fixes = kinds.count("fix_quantity") + kinds.count("fix_date")
    others = kinds.count("old_order") + kinds.count("colleague")
    absent = sum(value is None for value in answer.values())
    visible = 0.05 + 0.19 * fixes + 0.14 * others + 0.07 * absent + 0.02 * len(keys) + 0.02 * kinds.count("chat")
    return clip(visible + hidden(prompt, 0.1) - 0.05)


def _message(rng: Random) -> tuple[str, set[str]]:
    """A message, and the keys that it states."""
    first = rng.choice(NAMES)
    firm = rng.choice(_COMPANIES)
    when = date(2026, 1, 5) + timedelta(days=rng.randrange(700))
    values = {
        "customer": f"{first} {rng.choice(_SURNAMES)}",
        "company": f"{firm} {rng.choice(('GmbH', 'Ltd', 'SA'))}",
        "order_id": f"{rng.choice(('AB', 'KX', 'QT'))}-{rng.randrange(10_000, 100_000)}",
        "item": rng.choice(_GOODS),
        "quantity": str(rng.randrange(2, 90)),
        "unit_price": f"{rng.randrange(900, 60_000) / 100:.2f}",
        "city": rng.choice(PLACES),
        "when": _spoken(when),
        "phone": f"+{rng.randrange(30, 50)} {rng.randrange(100, 999)} {rng.randrange(100_000, 999_999)}",
        "email": f"{first.lower()}@{firm.lower()}.example",
        "n": str(rng.randrange(2, 90)),
        "old": f"{rng.choice(('AB', 'KX', 'QT'))}-{rng.randrange(10_000, 100_000)}",
        "other": f"{rng.choice(NAMES)} {rng.choice(_SURNAMES)}",
    }
    kinds = ["who" if rng.random() < 0.75 else "who_alone", "order", "goods" if rng.random() < 0.75 else "goods_bare"]
    kinds += [kind for kind, share in (("ship", 0.75), ("phone", 0.4), ("email", 0.5)) if rng.random() < share]
    kinds += [kind for kind, share in (("old_order", 0.3), ("colleague", 0.3)) if rng.random() < share]
    rng.shuffle(middle := kinds[1:])
    kinds = ["chat"] * (rng.random() < 0.3) + kinds[:1] + middle + ["chat"] * (rng.random() < 0.3)
    kinds += ["fix_quantity"] * (rng.random() < 0.35)
    kinds += ["fix_date"] * ("ship" in kinds and rng.random() < 0.3)
    sentences: list[str] = []
    for kind in kinds:
        if kind.startswith("fix_"):  # a correction has a value of its own
            values |= {
                "quantity": str(rng.randrange(2, 90)),
                "when": _spoken(when + timedelta(days=rng.randrange(2, 40))),
            }
        sentences.append(_GRAMMAR.write(kind, rng.randrange(_GRAMMAR.variants(kind)), values))
    stated = {"customer", "order_id", "item", "quantity"}
    for kind, keys in (("who", ["company"]), ("goods", ["unit_price"]), ("ship", ["city", "delivery_date"])):
        stated |= set(keys) if kind in kinds else set()
    return " ".join(sentences), stated | ({"phone", "email"} & set(kinds))


def _spoken(day: date) -> str:
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year}"


def _day(spoken: str) -> date:
    number, month, year = spoken.split()
    return date(int(year), _MONTHS.index(month) + 1, int(number))
