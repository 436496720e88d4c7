"""Groundedness: a reply that must rest on a given text says nothing that is not in it. Lexical, free, deterministic.

It compares words, not meaning: it finds what was made up (numbers, names, quotes, whole topics) and not what was
twisted. `tierwise-training checks` says how far that goes for a workload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from fallback.answers import numbers_in
from fallback.checks import Case, Judgement
from fallback.checks.schema import json_in
from fallback.types import Accept, DocumentBlock, Reject, Request, TextBlock, ToolResultBlock, Unjudged

_MAX_SOURCE_CHARS = 200_000
_MAX_REPLY_CHARS = 20_000
_FEW_WORDS = 4  # content words, below which their share says nothing
_WORD = re.compile(r"[^\W\d_][^\W_]{0,63}(?:['’][^\W\d_]{1,4})?")
_LISTED = re.compile(r"^\s{0,8}(?:\d{1,3}[.)]|[-*#]+)\s", re.MULTILINE)
_QUOTED = re.compile(r"[\"“„«]([^\"“”„«»\n]{8,400})[\"”“»]")
_AFTER_STOP = re.compile(r"(?:^|[.!?:;\n\"“(*#-])\s*$")
_ENDINGS = ("ingly", "edly", "ing", "ies", "ied", "ed", "es", "ly", "s")
_STOP_WORDS = frozenset(
    [
        "about",
        "above",
        "after",
        "again",
        "against",
        "also",
        "although",
        "always",
        "among",
        "another",
        "answer",
        "because",
        "been",
        "before",
        "being",
        "below",
        "between",
        "both",
        "cannot",
        "could",
        "does",
        "doing",
        "down",
        "during",
        "each",
        "either",
        "else",
        "even",
        "ever",
        "every",
        "first",
        "from",
        "further",
        "given",
        "gives",
        "have",
        "having",
        "hence",
        "here",
        "however",
        "into",
        "itself",
        "just",
        "least",
        "less",
        "like",
        "made",
        "make",
        "many",
        "might",
        "more",
        "most",
        "much",
        "must",
        "neither",
        "never",
        "none",
        "only",
        "other",
        "others",
        "ought",
        "over",
        "rather",
        "same",
        "says",
        "shall",
        "should",
        "show",
        "since",
        "some",
        "such",
        "text",
        "than",
        "that",
        "their",
        "them",
        "then",
        "there",
        "therefore",
        "these",
        "they",
        "this",
        "those",
        "though",
        "through",
        "thus",
        "under",
        "until",
        "upon",
        "used",
        "using",
        "very",
        "was",
        "were",
        "what",
        "when",
        "where",
        "whether",
        "which",
        "while",
        "whom",
        "whose",
        "will",
        "with",
        "within",
        "without",
        "would",
        "your",
        "yours",
        "according",
        "based",
        "document",
        "documents",
        "context",
        "source",
        "passage",
        "provided",
        "following",
        "mentioned",
        "stated",
        "information",
    ]
)


@dataclass(frozen=True, slots=True)
class GroundedCheck:
    """Rejects a reply that does not rest on the text that the request gives.

    The text is that between `begin` and `end` in the prompt where both are set, else the request's plain-text
    documents and tool results. Rejected are: a number (`ungrounded_number`), a name (a capitalised word inside a
    sentence, `ungrounded_name`) or a quotation (`ungrounded_quote`) that stands neither in the text nor elsewhere
    in the request, unless `ignore` names it; and a reply of whose content words less than `min_share` stand in the
    text. The score is that share.
    """

    name: ClassVar[str] = "grounded"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    begin: str = ""
    end: str = ""
    min_share: float = 0.5
    ignore: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.begin) != bool(self.end):
            raise ValueError("begin and end must both be set or both be empty")
        if not 0 <= self.min_share <= 1:
            raise ValueError("min_share must be in [0, 1]")
        if unknown := sorted(set(self.ignore) - {"numbers", "names", "quotes"}):
            raise ValueError(f"ignore: expected numbers, names or quotes, got {unknown[0]!r}")

    async def judge(self, case: Case) -> Judgement:
        """By what stands where."""
        source = self._source(case.request)
        if not source.strip():
            return Judgement(Unjudged("no_source"))
        if len(source) > _MAX_SOURCE_CHARS:
            return Judgement(Unjudged("source_too_long"))
        said = _values(case.reply.text[:_MAX_REPLY_CHARS])
        asked = "\n".join(case.request.texts())[:_MAX_SOURCE_CHARS]
        stems = _stems(source)
        content = {stem for stem in _stems(said) if len(stem) > 3} - _stems(asked).difference(stems)
        share = len(content & stems) / len(content) if content else 1.0
        reason = self._made_up(said, f"{source}\n{asked}")
        if not reason and len(content) >= _FEW_WORDS and share < self.min_share:
            reason = "ungrounded"
        return Judgement(Reject(reason) if reason else Accept(), score=share)

    def _source(self, request: Request) -> str:
        if self.begin:
            return "\n".join(part for text in request.texts() for part in _between(text, self.begin, self.end))
        return "\n".join(_given(request))

    def _made_up(self, said: str, known: str) -> str:
        """What kind of thing stands in the reply and nowhere in the request; empty for none."""
        if "numbers" not in self.ignore:
            numbers = set(map(abs, numbers_in(_LISTED.sub("", said))))
            if numbers - set(map(abs, numbers_in(known))):
                return "ungrounded_number"
        if "names" not in self.ignore and set(_names(said)) - _stems(known):
            return "ungrounded_name"
        if "quotes" not in self.ignore:
            flat = _flat(known)
            if any(_flat(quote) not in flat for quote in _QUOTED.findall(said)):
                return "ungrounded_quote"
        return ""


def _given(request: Request) -> Iterator[str]:
    for message in request.messages:
        for block in message.content:
            match block:
                case DocumentBlock(media_type="text/plain", data=data):
                    yield data.decode("utf-8", "replace")
                case ToolResultBlock(content=content):
                    yield from (part.text for part in content if isinstance(part, TextBlock))
                case _:
                    pass


def _between(text: str, begin: str, end: str) -> Iterator[str]:
    for piece in text.split(begin)[1:]:
        inside, found, _ = piece.partition(end)
        if found:
            yield inside


def _values(text: str) -> str:
    """The reply's words; of a JSON value its leaves alone, because field names are the caller's."""
    if text.lstrip()[:1] not in ("{", "[", "`"):
        return text
    try:
        return "\n".join(map(str, _leaves(json_in(text))))
    except (ValueError, RecursionError):
        return text


def _leaves(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield value


def _stems(text: str) -> set[str]:
    return {stem for word in set(_WORD.findall(text)) if (stem := _stem(word))}


def _stem(word: str) -> str:
    """The word's root, roughly; empty for a stop word."""
    word = word.casefold().partition("'")[0].partition("’")[0]
    if word in _STOP_WORDS:
        return ""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending).rstrip("e")
    return word.rstrip("e")


def _names(text: str) -> Iterator[str]:
    """Stems of capitalised words that do not begin a sentence, a line or a quotation."""
    for match in _WORD.finditer(text):
        word = match.group()
        if (
            word[0].isupper()
            and len(word) > 2
            and not _AFTER_STOP.search(text, max(0, match.start() - 4), match.start())
        ):
            stem = _stem(word)
            if stem:
                yield stem


def _flat(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))
