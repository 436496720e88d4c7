"""Support tickets to one of eight labels.

What the customer asks for decides; other topics are mentioned on the way. Haiku is nearly always right, so
anything dearer is waste.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from types import MappingProxyType

from fallback.emulator.workloads.base import Case, Curve, Draft, clip, hidden, sure
from fallback.emulator.workloads.grammar import NAMES, NUMBER, PLACES, WEEKDAYS, Grammar, Sentence, either

LABELS = ("billing", "refund", "shipping", "login", "bug_report", "feature_request", "cancellation", "security")
_HEADER = "Sort the support ticket under exactly one of these labels: "
_MIDDLE = ". What the customer wants done decides. Answer with the label only.\n\nTicket:\n"
_NEIGHBOUR: Mapping[str, str] = MappingProxyType(
    {
        "billing": "refund",
        "refund": "billing",
        "shipping": "refund",
        "login": "security",
        "bug_report": "login",
        "feature_request": "bug_report",
        "cancellation": "billing",
        "security": "login",
    }
)
_NO_LABEL: Mapping[str, str] = MappingProxyType({label: f"{label}, {other}" for label, other in _NEIGHBOUR.items()})
_PRODUCTS = ("Fieldbook", "Ledgerline", "Packtrack", "Roomplan", "Staffboard")
_GRAMMAR = Grammar(
    {
        "ask_billing": (
            "Please send me a corrected invoice for order {n}.",
            "Two charges of {n} euros stand on one statement, and I should like to see them explained.",
        ),
        "ask_refund": (
            "I want my money back for order {n}.",
            "It would only be fair if the {n} euros found their way back to my account.",
        ),
        "ask_shipping": (
            "Where is my parcel with order {n}?",
            "The box for {place} has been on its way since {day} and somebody should look into it.",
        ),
        "ask_login": (
            "I cannot sign in to {product}; please reset my password.",
            "Since {day} {product} and I no longer agree about who I am when I knock at the door.",
        ),
        "ask_bug_report": (
            "{product} crashes when I open report {n}; please fix it.",
            "Whenever page {n} comes up in {product} the totals quietly change, which cannot be meant that way.",
        ),
        "ask_feature_request": (
            "Please add an export to spreadsheets to {product}.",
            "How much easier life would be if {product} could sort by {day} all by itself!",
        ),
        "ask_cancellation": (
            "Please cancel my subscription to {product}.",
            "After the end of this month {product} and I shall go separate ways, so please see to it.",
        ),
        "ask_security": (
            "Somebody else has used my account; please lock it.",
            "There are sessions from {place} in my {product} history, and I have never been there.",
        ),
        "say_billing": ("The invoice of {day} looked odd, but that has been settled.",),
        "say_refund": ("A refund last year took {n} days, by the way.",),
        "say_shipping": ("The last parcel to {place} came {n} days late, which I can live with.",),
        "say_login": ("I had to sign in twice on {day}, nothing unusual.",),
        "say_bug_report": ("There was an error message on {day}, now gone.",),
        "say_feature_request": ("The new dashboard that I once asked for is nice.",),
        "say_cancellation": ("My brother cancelled his plan, but I am staying, perhaps.",),
        "say_security": ("I have switched on the second factor as you advised.",),
        "chat": (
            "Hello, {name} here from {place}.",
            "I have used {product} for {n} months.",
            "Thank you for your patience with me.",
            "I am not quite sure whether this is the right address.",
        ),
    },
    {
        "n": NUMBER,
        "day": either(WEEKDAYS),
        "place": either(PLACES),
        "name": either(NAMES),
        "product": either(_PRODUCTS),
    },
)


class Triage:
    """Closed labels."""

    name = "ticket-triage"
    only_answer = True
    curves: Mapping[str, Curve] = MappingProxyType(
        {
            "haiku": Curve(0.995, 0.88, 0.75, 9.0),
            "sonnet": Curve(0.995, 0.94, 0.80, 9.0),
            "opus": Curve(0.996, 0.95, 0.80, 9.0),
        }
    )

    def case(self, seed: int, index: int) -> Case:
        """The case of that number."""
        rng = Random(f"{self.name}:{seed}:{index}")
        return sure(self.recognise(f"{_HEADER}{', '.join(LABELS)}{_MIDDLE}{_ticket(rng)}"))

    def recognise(self, prompt: str) -> Case | None:
        """Read the ticket back; its one request decides."""
        head, found, ticket = prompt.partition(_MIDDLE)
        if not found or not head.startswith(_HEADER):
            return None
        sentences = _GRAMMAR.read(ticket.rstrip())
        asks = [sentence for sentence in sentences or () if sentence.kind.startswith("ask_")]
        if sentences is None or len(asks) != 1:
            return None
        label = asks[0].kind.removeprefix("ask_")
        return Case(self.name, prompt, label, _difficulty(prompt, sentences, asks[0]), labels=LABELS)

    def draft(self, case: Case, tier: str, rng: Random, *, right: bool) -> Draft:
        """A neighbouring label or a topic mentioned in passing; now and then none of the labels."""
        if right:
            return Draft((), case.answer)
        mentioned = re.findall(r"say_(\w+)", " ".join(_kinds(case.prompt)))
        others = [label for label in mentioned if label != case.answer]
        if rng.random() < {"haiku": 0.25, "sonnet": 0.1, "opus": 0.08}[tier]:
            return Draft((), _NO_LABEL[case.answer], "no_label")
        if others and rng.random() < 0.5:
            return Draft((), rng.choice(others), "mentioned")
        return Draft((), _NEIGHBOUR[case.answer], "neighbour")

    def grade(self, case: Case, reply_text: str) -> bool:
        """The right label and nothing else."""
        return reply_text.strip().strip(".").lower() == case.answer


def verify(prompt: str, reply_text: str) -> bool:
    """One of the labels that the prompt allows."""
    head, found, _ = prompt.partition(_MIDDLE)
    return bool(found) and reply_text.strip() in head[len(_HEADER) :].split(", ")


def _kinds(prompt: str) -> list[str]:
    return [sentence.kind for sentence in _GRAMMAR.read(prompt.partition(_MIDDLE)[2].rstrip()) or ()]


def _difficulty(prompt: str, sentences: list[Sentence], ask: Sentence) -> float:
    label = ask.kind.removeprefix("ask_")
    mentioned = {s.kind.removeprefix("say_") for s in sentences if s.kind.startswith("say_")} - {label}
    close = _NEIGHBOUR[label] in mentioned
    visible = 0.05 + 0.3 * ask.variant + 0.15 * len(mentioned) + 0.15 * close + 0.02 * len(sentences)
    return clip(visible + hidden(prompt, 0.1))


def _ticket(rng: Random) -> str:
    ask = f"ask_{rng.choice(LABELS)}"
    kinds = [f"say_{rng.choice(LABELS)}" for _ in range(rng.choice((0, 0, 1, 1, 2, 3)))]
    kinds += ["chat"] * rng.randrange(0, 4) + [ask]
    rng.shuffle(kinds)
    sentences: list[str] = []
    for kind in kinds:
        values = {
            "n": str(rng.randrange(3, 9_000)),
            "day": rng.choice(WEEKDAYS),
            "place": rng.choice(PLACES),
            "name": rng.choice(NAMES),
            "product": rng.choice(_PRODUCTS),
        }
        sentences.append(_GRAMMAR.write(kind, rng.randrange(_GRAMMAR.variants(kind)), values))
    return " ".join(sentences)
