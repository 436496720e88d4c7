"""The form of an answer: required fields, a pattern, a closed set of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fallback.checks import Case, Judgement
from fallback.checks.schema import SchemaError, compile_schema, fits, json_in, with_pattern
from fallback.types import Accept, Reject

_LOOKED_AT_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class FieldsCheck:
    """The reply is a JSON object with these fields, none of them null or empty."""

    name: ClassVar[str] = "fields"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    required: tuple[str, ...]

    async def judge(self, case: Case) -> Judgement:
        """By the object's own keys."""
        try:
            value = json_in(case.reply.text)
        except ValueError:
            return Judgement(Reject("not_json"))
        if not isinstance(value, dict):
            return Judgement(Reject("not_an_object"))
        if any(value.get(field) in (None, "", [], {}) for field in self.required):
            return Judgement(Reject("missing_field"))
        return Judgement(Accept())


@dataclass(frozen=True, slots=True)
class RegexCheck:
    """A pattern occurs in the reply's first 20,000 characters.

    Patterns are matched in linear time, so that none can stall the service; look-around and
    back-references, which would need backtracking, are refused.
    """

    name: ClassVar[str] = "regex"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    pattern: str

    def __post_init__(self) -> None:
        try:
            compile_schema(with_pattern(self.pattern))
        except SchemaError:
            raise ValueError("pattern is not a regular expression without look-around and back-references") from None

    async def judge(self, case: Case) -> Judgement:
        """By search, multi-line."""
        found = fits(case.reply.text[:_LOOKED_AT_CHARS], with_pattern(self.pattern))
        return Judgement(Accept() if found else Reject("no_match"))


@dataclass(frozen=True, slots=True)
class LabelsCheck:
    """The reply is one of a closed set of labels, case and surrounding punctuation aside."""

    name: ClassVar[str] = "labels"
    version: ClassVar[str] = "1"
    paid: ClassVar[bool] = False

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.labels or not all(map(_trimmed, self.labels)):
            raise ValueError("labels must name at least one label, none of them empty or punctuation alone")

    async def judge(self, case: Case) -> Judgement:
        """By exact match after trimming."""
        known = set(map(_trimmed, self.labels))
        return Judgement(Accept() if _trimmed(case.reply.text) in known else Reject("not_a_label"))


def _trimmed(text: str) -> str:
    return text.strip().strip(".\"'`* ").casefold()
