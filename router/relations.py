"""How the two things that a question asks about are linked by what the prompt states. Pure, bounded work.

A prompt may state relations between named things (who reports to whom, what contains what, which service calls
which) and then ask about two of them. Each statement that names two is an edge from the first named to the
second; the *link* is the shortest way between the two asked about, and its *shape* says which edges are walked
forward and which back. What the relations mean is not known here, nor how they combine: only that a reply
should walk the link, and that the same shape should get the same kind of answer. Which answers go with which
shapes is learned from outcomes.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from math import log1p
from typing import NamedTuple

LINK_NAMES: tuple[str, ...] = (
    "linked", "link_steps", "link_forward", "link_turns", "link_named", "link_stated", "link_walked",
    "log_pairs_stated", "log_pairs_new", "log_named_beside_link",
)  # fmt: skip

_NAME = re.compile(r"(?<!\w)[A-Z]\w{1,40}")
_SENTENCE = re.compile(r"\n|(?<=[.?!;:]) ")
_CLAUSE = re.compile(r"\n|(?<=[.?!;:,]) ")
_NAMES, _STATEMENTS, _CLAUSES = 64, 300, 300
_SHAPE_STEPS = 6
_NONE = (0.0,) * len(LINK_NAMES)

Pair = tuple[str, str]


class Link(NamedTuple):
    """`names` that the prompt relates, `stated` pairs, and the way: its names, its statements, its shape (f, b)."""

    names: frozenset[str]
    stated: frozenset[Pair]
    way: tuple[str, ...]
    statements: tuple[str, ...]  # in lower case
    shape: str


def find_link(text: str) -> Link | None:
    """The link between the two names in the last question; None where there is no such question or no way."""
    if "?" not in text:
        return None
    often = [word for word, count in Counter(_NAME.findall(text)).items() if count > 1]
    if len(often) <= 1:
        return None
    plain = frozenset(text.split())  # a word that only begins a sentence stands inside one elsewhere
    names = frozenset([word for word in often if word.lower() not in plain][:_NAMES])
    sentences = _SENTENCE.split(text, _STATEMENTS)
    asked = [(number, _named(s, names)) for number, s in enumerate(sentences) if "?" in s]
    number, ends = next(((n, found) for n, found in reversed(asked) if len(found) > 1), (0, []))
    if not ends:
        return None
    stated: dict[Pair, str] = {}
    for sentence in sentences[:number]:
        pair = _named(sentence, names)
        if len(pair) == 2:
            stated.setdefault((pair[0], pair[1]), sentence.strip(" *-\t").lower())
    way = _way(stated, ends[0], ends[1])
    if not way:
        return None
    steps = list(pairwise(way))
    statements = tuple(stated.get((a, b)) or stated[b, a] for a, b in steps)
    shape = "".join("f" if step in stated else "b" for step in steps)
    return Link(names, frozenset(stated), way, statements, shape)


def link_features(link: Link | None, reply: str, lower: str) -> tuple[float, ...]:
    """LINK_NAMES of a reply: how long the link is, how much of it the reply walks, and what it pairs besides."""
    if link is None:
        return _NONE
    known = new = 0
    paired: set[frozenset[str]] = set()
    named: set[str] = set()
    for clause in _CLAUSE.split(reply, _CLAUSES):
        found = [name for name in _NAME.findall(clause) if name in link.names]
        named.update(found)
        for pair in pairwise(found):
            if pair[0] != pair[1]:
                paired.add(frozenset(pair))
                if pair in link.stated or pair[::-1] in link.stated:
                    known += 1
                else:
                    new += 1
    steps = {frozenset(step) for step in pairwise(link.way)}
    return (
        1.0,
        min(len(link.shape), 20),
        min(link.shape.count("f"), 20),
        min(sum(one != other for one, other in pairwise(link.shape)), 20),
        len(named & set(link.way)) / len(link.way),
        sum(statement in lower for statement in link.statements) / len(link.statements),
        len(steps & paired) / len(steps),
        log1p(known),
        log1p(new),
        log1p(len(named - set(link.way))),
    )


def shape_of(link: Link) -> bytes:
    """The shape as a key, of at most six steps."""
    return b"link " + link.shape[:_SHAPE_STEPS].encode()


def _named(sentence: str, names: frozenset[str]) -> list[str]:
    """Distinct names in order."""
    return list(dict.fromkeys(name for name in _NAME.findall(sentence) if name in names))


def _way(stated: dict[Pair, str], start: str, end: str) -> tuple[str, ...]:
    """The shortest way from start to end over the statements, either way round; empty without one."""
    beside: dict[str, list[str]] = {}
    for one, other in stated:
        beside.setdefault(one, []).append(other)
        beside.setdefault(other, []).append(one)
    before = {start: start}
    waiting = [start]
    for name in waiting:  # grows while it is walked: breadth first
        for next_name in beside.get(name, ()):
            if next_name not in before:
                before[next_name] = name
                waiting.append(next_name)
    if end not in before or end == start:
        return ()
    way = [end]
    while way[-1] != start:
        way.append(before[way[-1]])
    return tuple(reversed(way))
