"""Tracing small programs: loops, branches, remainders.

Haiku loses its place in nearly all of them, sonnet in more than half, opus in few: the kind of work where starting
at the cheapest tier does not pay. Programs are read and run by the small interpreter below; nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from fallback.emulator.workloads.base import Case, Curve, Draft, clip, final_answer, hidden, pick, sure

_HEADER = (
    "What does this program print? Trace it: one line for each pass of the outer loop in the form "
    "'i = <value>: x = <value>, y = <value>', with the values at the end of that pass. Then give the printed number "
    "on a last line in the form 'Answer: <number>'.\n\n```python\n"
)
_FOOTER = "\n```"
_MAX_LINES = 40
_MAX_STEPS = 2_000
_MAX_VALUE = 10**9
_MAX_DRAWS = 20
_SET = re.compile(r"([xyz]) = (?:(\w+) ([+*-]) (\w+)|\((\w+) ([+*-]) (\w+)\) % (\d{1,3})|(\d{1,4}))\Z")
_LOOP = re.compile(r"for ([ij]) in range\((\d{1,2})\):\Z")
_BRANCH = re.compile(r"if (\w+) (?:% (\d{1,2}) == (\d{1,2})|> (\w+)):\Z")
_PRINT = re.compile(r"print\(([xyz])\)\Z")
_ATOM = re.compile(r"[xyzij]\Z|\d{1,4}\Z")
_TRACE = re.compile(r"^\s*i = (\d+): (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Node:
    """A line of a program with the lines indented below it; `match` are the groups of its pattern."""

    kind: str  # set, loop, if, else, print
    match: tuple[str | None, ...]
    body: tuple[Node, ...] = ()


class LimitError(Exception):
    """The program goes beyond the limits on steps or on values."""


class Machine:
    """Runs a program. `slip` (pass of the outer loop, variable, amount) makes one mistake and carries it on."""

    def __init__(self, slip: tuple[int, str, int] | None = None, stop_after: int | None = None) -> None:
        self.values: dict[str, int] = {}
        self.trace: list[str] = []
        self.printed = ""
        self.steps = 0
        self._slip = slip
        self._stop_after = stop_after

    def run(self, nodes: tuple[Node, ...], depth: int = 0) -> None:
        """Run these lines. Raises LimitError, and KeyError for an unset variable."""
        taken = False
        for node in nodes:
            self.steps += 1
            if self.steps > _MAX_STEPS:
                raise LimitError
            match node.kind:
                case "set":
                    self._set(node.match)
                case "loop":
                    self._loop(node, depth)
                case "if":
                    if taken := self._holds(node.match):
                        self.run(node.body, depth)
                case "else":
                    if not taken:
                        self.run(node.body, depth)
                case _:
                    self.printed = str(self.values[str(node.match[0])])

    def _loop(self, node: Node, depth: int) -> None:
        name, count = str(node.match[0]), int(str(node.match[1]))
        if depth == 0 and self._stop_after is not None:
            count = self._stop_after
        for turn in range(count):
            self.values[name] = turn
            self.run(node.body, depth + 1)
            if depth == 0:
                if self._slip and self._slip[0] == turn:
                    self.values[self._slip[1]] += self._slip[2]
                shown = ", ".join(f"{key} = {self.values[key]}" for key in "xyz" if key in self.values)
                self.trace.append(f"{name} = {turn}: {shown}")

    def _set(self, match: tuple[str | None, ...]) -> None:
        target, a, sign, b, c, sign2, d, modulus, literal = match
        if literal is not None:
            value = int(literal)
        else:
            left, right = self._atom(str(a or c)), self._atom(str(b or d))
            value = {"+": left + right, "-": left - right, "*": left * right}[str(sign or sign2)]
            value = value % int(modulus) if modulus else value
            if abs(value) > _MAX_VALUE:
                raise LimitError
        self.values[str(target)] = value

    def _holds(self, match: tuple[str | None, ...]) -> bool:
        left = self._atom(str(match[0]))
        if match[1] is not None:
            return left % int(match[1]) == int(str(match[2]))
        return left > self._atom(str(match[3]))

    def _atom(self, text: str) -> int:
        return int(text) if text.isdigit() else self.values[text]


class Programs:
    """Programs with one outer loop that print one number."""

    name = "program-trace"
    only_answer = False
    curves: Mapping[str, Curve] = MappingProxyType(
        {
            "haiku": Curve(0.14, 0.0, 0.25, 9.0),
            "sonnet": Curve(0.90, 0.06, 0.44, 10.0),
            "opus": Curve(0.985, 0.80, 0.80, 8.0),
        }
    )

    def case(self, seed: int, index: int) -> Case:
        """The case of that number: the first program drawn that stays within the limits; few do not."""
        rng = Random(f"{self.name}:{seed}:{index}")
        drawn = (self.recognise(f"{_HEADER}{_source(rng)}{_FOOTER}") for _ in range(_MAX_DRAWS))
        return sure(next((case for case in drawn if case is not None), None))

    def recognise(self, prompt: str) -> Case | None:
        """Read the program and run it."""
        nodes = _parse(prompt)
        machine = Machine()
        try:
            machine.run(nodes or ())
        except (LimitError, KeyError, ZeroDivisionError):
            return None
        if not machine.printed or not machine.trace:
            return None
        return Case(self.name, prompt, machine.printed, _difficulty(prompt, machine))

    def draft(self, case: Case, tier: str, rng: Random, *, right: bool) -> Draft:
        """A pass too few, passes skipped over, another variable's value, or a slip that is carried on."""
        nodes = _parse(case.prompt) or ()
        machine = Machine()
        machine.run(nodes)
        lines = tuple(machine.trace)
        if right:
            return Draft(lines, case.answer)
        shown = str(nodes[-1].match[0])
        slips = {"haiku": 0.08, "sonnet": 0.22, "opus": 0.45}[tier]
        mistake = pick(rng, {"short": 0.2, "skipped": 0.75 - slips, "mismatch": 0.15, "slip": slips})
        if mistake == "short" and len(lines) > 1:
            short = Machine(stop_after=len(lines) - 1)
            short.run(nodes)
            if short.printed != case.answer:
                return Draft(tuple(short.trace), short.printed, mistake)
        wrong = str(int(case.answer) + rng.choice((-7, -3, -1, 1, 2, 6)))
        if mistake == "skipped" and len(lines) > 2:
            return Draft((*lines[:2], "The following passes go on in the same way."), wrong, mistake)
        if mistake == "slip":
            for turn in rng.sample(range(len(lines)), len(lines)):
                off = Machine(slip=(turn, shown, rng.choice((-3, -2, -1, 1, 2, 3))))
                off.run(nodes)
                if off.printed != case.answer:
                    return Draft(tuple(off.trace), off.printed, mistake)
        return Draft(lines, wrong, "mismatch")

    def grade(self, case: Case, reply_text: str) -> bool:
        """The printed number."""
        return final_answer(reply_text) == case.answer


def verify(prompt: str, reply_text: str) -> bool:
    """Light: every pass of the outer loop is shown, and the answer is what the last one says. Runs nothing."""
    loop = re.search(r"for i in range\((\d+)\)", prompt)
    shown = re.search(r"print\((\w)\)", prompt)
    answer = final_answer(reply_text)
    if loop is None or shown is None or not re.fullmatch(r"-?\d+", answer):
        return False
    lines = list(dict.fromkeys(_TRACE.findall(reply_text)))  # a line said twice is no mistake
    if [int(turn) for turn, _ in lines] != list(range(int(loop[1]))):
        return False
    return f"{shown[1]} = {answer}" in lines[-1][1].split(", ")


def _parse(prompt: str) -> tuple[Node, ...] | None:
    if not prompt.startswith(_HEADER) or not prompt.rstrip().endswith(_FOOTER):
        return None
    lines = prompt.rstrip()[len(_HEADER) : -len(_FOOTER)].split("\n")
    if len(lines) > _MAX_LINES:
        return None
    nodes, used = _block(lines, 0, 0)
    return nodes if used == len(lines) and nodes and nodes[-1].kind == "print" else None


def _block(lines: list[str], at: int, indent: int) -> tuple[tuple[Node, ...], int]:
    nodes: list[Node] = []
    while at < len(lines):
        line = lines[at]
        if len(line) - len(line.lstrip(" ")) != indent:
            break
        node = _line(line.strip(" "), nodes[-1].kind if nodes else "")
        if node is None:
            break
        at += 1
        if node.kind in ("loop", "if", "else"):
            body, end = _block(lines, at, indent + 4)
            if not body:
                break
            node, at = Node(node.kind, node.match, body), end
        nodes.append(node)
    return tuple(nodes), at


def _line(text: str, before: str) -> Node | None:
    if text == "else:":
        return Node("else", ()) if before == "if" else None
    for kind, pattern in (("set", _SET), ("loop", _LOOP), ("if", _BRANCH), ("print", _PRINT)):
        match = pattern.match(text)
        if match:
            groups = match.groups()
            operands = groups[1:2] + groups[3:5] + groups[6:7] if kind == "set" else ()
            operands = (groups[0], groups[3]) if kind == "if" else operands
            return Node(kind, groups) if all(word is None or _ATOM.match(word) for word in operands) else None
    return None


def _difficulty(prompt: str, machine: Machine) -> float:
    nested, branches, remainders = prompt.count("for j"), prompt.count("if "), prompt.count("%")
    visible = 0.004 * machine.steps + 0.025 * len(machine.trace) + 0.12 * nested + 0.09 * branches + 0.05 * remainders
    return clip(visible + 0.1 * ("z = " in prompt) + hidden(prompt, 0.09))


def _source(rng: Random) -> str:
    names = "xyz" if rng.random() < 0.4 else "xy"
    lines = [f"{name} = {rng.randrange(1, 12)}" for name in names]
    lines.append(f"for i in range({rng.randrange(3, 9)}):")
    lines += _body(rng, names, "    ", "i")
    if rng.random() < 0.5:
        lines.append(f"    if {rng.choice(names)} % {(m := rng.randrange(2, 4))} == {rng.randrange(m)}:")
        lines += _body(rng, names, "        ", "i", 1)
        if rng.random() < 0.6:
            lines += ["    else:", *_body(rng, names, "        ", "i", 1)]
    if rng.random() < 0.35:
        lines.append(f"    for j in range({rng.randrange(2, 4)}):")
        lines += _body(rng, names, "        ", "ij", 1)
    lines.append(f"print({rng.choice(names)})")
    return "\n".join(lines)


def _body(rng: Random, names: str, indent: str, counters: str, count: int | None = None) -> list[str]:
    found: list[str] = []
    for _ in range(count or rng.randrange(1, 4)):
        target = rng.choice(names)
        other = rng.choice(names + counters)
        match rng.randrange(4):
            case 0:
                found.append(f"{indent}{target} = {target} + {other}")
            case 1:
                found.append(f"{indent}{target} = {target} - {rng.randrange(1, 6)}")
            case 2:
                found.append(f"{indent}{target} = ({target} * {rng.randrange(2, 5)}) % {rng.randrange(7, 60)}")
            case _:
                found.append(f"{indent}{target} = ({target} + {other}) % {rng.randrange(7, 60)}")
    return found
