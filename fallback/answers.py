"""What a reply's answer is, and whether two replies give the same one. Pure, bounded work.

A workload's notion of an answer is found by form, most explicit first: a tagged answer, the `answer`
field of a JSON object (also of one that does not parse), a boxed formula, the last number, the last line.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

_TAIL_CHARS = 20_000  # the answer stands near the end
_ANSWER_CHARS = 2_000
_LARGEST = 1e12
_ALL = 2**31
_COMPARED_CHARS = 120  # the matcher's work grows with the square

Kind = Literal["tag", "json", "box", "number", "line", "none"]
KINDS: tuple[Kind, ...] = ("tag", "json", "box", "number", "line", "none")

# A number: -, $, digits with thousands separators, a fraction; not within a word or another number. It starts
# with a set of characters because the engine then skips over all others in one loop.
_NUMBER = re.compile(r"[-$\d](?<![\w.].)(?:(?<=-)\$?\d|(?<=\$)\d|(?<=\d))[\d,]{0,24}(?:\.\d{1,24})?")
_TAG = re.compile(r"<(answer|result|label|final)>(.{0,2000}?)</\1>", re.DOTALL | re.IGNORECASE)
_FIELD_TO_END = re.compile(
    r'"(?:final_)?answer"\s{0,20}:\s{0,20}"?(.{0,2000}?)"?\s{0,20}\}\s{0,20}(?:```|$)', re.DOTALL
)
_FIELD = re.compile(r'"(?:final_)?answer"\s{0,20}:\s{0,20}("(?:[^"\\]|\\.){0,2000}"|[^,}\n]{1,2000})')
_BOXED = re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]{0,200}\}){0,200})\}")
_PLAIN_NUMBER = re.compile(r"(-?\d{1,24}(?:\.\d{1,24})?)(?:\s[a-zA-Z ]{0,40})?")
_RATIO = re.compile(r"(-?\d{1,12})\s{0,3}/\s{0,3}(\d{1,12})")
_TEX_RATIO = re.compile(r"(-?)\\frac\{(-?\d{1,12})\}\{(\d{1,12})\}")
_TEX_TEXT = re.compile(r"\\text\{([^{}]{0,200})\}")
_AROUND_SIGNS = re.compile(r"\s*([,:\[\](){}])\s*")
_TEX_NOISE = ("\\$", "$", "\\!", "\\,", "\\left", "\\right", "^\\circ", "\\%", "%", "°")
_CONSTANTS = frozenset({"true", "false", "none", "null", "yes", "no"})


@dataclass(frozen=True, slots=True)
class Answer:
    """`raw` as it stands in the reply from `start` on, and `exact` and `loose`, made comparable.

    `exact` forgives quoting, number format and spacing of lists; `loose` letter case and all spacing too.
    """

    kind: Kind
    raw: str
    start: int
    exact: str
    loose: str


def find_answer(reply: str) -> Answer:
    """The reply's answer; kind `none` for an empty reply."""
    offset = max(0, len(reply) - _TAIL_CHARS)
    kind, raw, start = _locate(reply[offset:])
    exact = normalised(raw)
    loose = squeezed(exact.lower())
    return Answer(kind, raw, start + offset, exact, loose)


def agreement(one: Answer, other: Answer) -> tuple[float, float]:
    """(1 when the answers are the same else 0, similarity of the two in [0, 1])."""
    if one.exact == other.exact and one.exact:
        return 1.0, 1.0
    if one.loose == other.loose:
        return 0.0, 1.0
    matcher = SequenceMatcher(None, one.loose[:_COMPARED_CHARS], other.loose[:_COMPARED_CHARS], autojunk=False)
    return 0.0, matcher.ratio()


def numbers_in(text: str, start: int = 0, end: int = _ALL) -> list[float]:
    """The numbers that stand in text[start:end], as `number_in` reads them."""
    found = _NUMBER.findall(text, start, end) if may_have_numbers(text) else ()
    if not found:
        return []
    joined = " ".join(found)
    if "," in joined or "$" in joined:
        found = joined.replace(",", "").replace("$", "").split(" ")
    return [max(-_LARGEST, min(_LARGEST, float(number))) for number in found]


def may_have_numbers(text: str) -> bool:
    """False for a text without a digit: ten searches for a character take less than one for a number."""
    return not text.isascii() or any(map(text.__contains__, "0123456789"))


def number_in(text: str) -> float | None:
    """The text as a number, thousands separators and a dollar sign forgiven; None when it is none."""
    try:
        found = float(text.replace(",", "").replace("$", ""))
    except ValueError:
        return None
    return max(-_LARGEST, min(_LARGEST, found)) if not math.isnan(found) else None


def squeezed(text: str) -> str:
    """The text without spacing and quotes."""
    return "".join(text.split()).replace('"', "").replace("'", "")


def unescaped(text: str) -> str:
    """JSON's commonest escapes undone, also in text that is not quite JSON."""
    if "\\" not in text:
        return text
    return text.replace('\\"', '"').replace("\\n", "\n").replace("\\\\", "\\")


def normalised(raw: str) -> str:
    """The answer without quotes, number formats and spacing that carry no meaning."""
    text = unescaped(raw[:_ANSWER_CHARS]).strip().strip("`")
    while len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]:
        text = text[1:-1]
    bare = text
    if "\\" in text:
        bare = bare.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
        for noise in _TEX_NOISE:
            bare = bare.replace(noise, "")
    else:
        bare = bare.replace("$", "").replace("%", "").replace("°", "")
    bare = bare.strip().rstrip(".")
    if "\\" in bare:
        if match := _TEX_TEXT.fullmatch(bare):
            text = bare = match.group(1)
        if match := _TEX_RATIO.fullmatch(bare.replace(" ", "")):
            bare = f"{match.group(1)}{match.group(2)}/{match.group(3)}"
    return _as_number(bare.replace(",", "")) or _as_text(text, bare)


def _as_number(text: str) -> str:
    if match := _PLAIN_NUMBER.fullmatch(text):
        digits = match.group(1)
        return f"{float(digits):g}" if len(digits) < 14 else digits
    if (match := _RATIO.fullmatch(text)) and int(match.group(2)):
        return f"{int(match.group(1)) / int(match.group(2)):.6g}"
    return ""


def _as_text(text: str, bare: str) -> str:
    if "\\" in bare:
        return squeezed(bare.lower())
    if bare.lower() in _CONSTANTS:
        return bare.lower()
    if text[:1] in ("[", "(", "{"):
        return _AROUND_SIGNS.sub(r"\1", text).replace('"', "'")
    return text


def _locate(reply: str) -> tuple[Kind, str, int]:
    if "</" in reply and (tag := _last(_TAG, reply)):
        return "tag", tag.group(2).strip(), tag.start()
    if 'answer"' in reply and (named := _last(_FIELD_TO_END, reply) or _last(_FIELD, reply)):
        return "json", named.group(1).strip(), named.start()
    if "\\boxed" in reply and (box := _last(_BOXED, reply)):
        return "box", box.group(1), box.start()
    if may_have_numbers(reply) and (number := _last(_NUMBER, reply)):
        return "number", number.group(), number.start()
    lines = reply.strip().splitlines()
    return ("line", lines[-1].strip()[:_ANSWER_CHARS], reply.rfind(lines[-1])) if lines else ("none", "", 0)


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    match = None
    for match in pattern.finditer(text):  # noqa: B007
        pass
    return match
