"""What can be known of a reply without asking anyone, given the request: the learned scorer's input.

Named dense features (`REPLY_NAMES`) on length, structure, arithmetic, the answer's form and whether it
agrees with the reasoning, hedging and what the reply takes from the prompt; and hashed word 1-2-grams of the
reply, of its answer and, where the prompt lists options, of the option chosen. Where the prompt relates named
things to each other (`router.relations`), the answer's words stand there once more beside the shape of the link.
Pure, bounded work.
"""

from __future__ import annotations

import ast
import math
import re
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fallback.answers import KINDS, Answer, find_answer, number_in, numbers_in, squeezed, unescaped
from fallback.arithmetic import check_sums
from fallback.types import Reply, Request, StopReason
from router.features import TEXT_CAP_CHARS, Features, bucketed, capped, hashed, log1p, masked, request_text, tokens
from router.relations import LINK_NAMES, Link, find_link, link_features, shape_of

REPLY_FEATURES_VERSION = "2"

_STOPS = (StopReason.END_TURN, StopReason.MAX_TOKENS, StopReason.TOOL_USE, StopReason.REFUSAL)
# In the order in which the functions below give their values.
REPLY_NAMES: tuple[str, ...] = (
    "log_chars", "log_words", "log_lines", "log_length_ratio", "log_reasoning_chars", "log_tail_chars", "log_steps",
    "log_output_tokens", "tool_calls",
    "log_numbers", "log_distinct_numbers", "log_largest_number", "log_decimals", "prompt_numbers_used",
    "log_new_numbers", "log_sums_right", "log_sums_wrong", "sums_wrong_share", "log_equals",
    "answer_is_number", "answer_log_size", "answer_negative", "answer_whole", "answer_is_last_sum",
    "answer_is_not_last_sum", "answer_is_last_number", "answer_in_prompt", "log_answer_repeats",
    "answer_first_seen", "log_answer_chars", "answer_lines", "answer_list", "answer_dict", "answer_tuple",
    "answer_quoted", "answer_constant", "answer_tex", "log_answer_commas", "log_answer_spaces", "answer_distinct",
    "answer_vs_literal_length", "answer_vs_literal_letters", "answer_literal", "answer_canonical",
    "answer_lower_constant", "answer_escaped", "answer_position",
    "log_hedges", "second_thoughts", "log_conclusions", "verifies", "log_causes", "speaks_of_errors",
    "prompt_words_covered", "new_words_share", "distinct_words_share", "prompt_lines_covered",
    "option_chosen", "option_stated", "other_options_stated", "option_position",
    "log_bold", "log_backslashes", "log_questions",
    *LINK_NAMES,
    *(f"answer_by_{kind}" for kind in KINDS), *(f"stopped_{reason.value}" for reason in _STOPS),
)  # fmt: skip

# For texts with a line break before them: with ^ the engine would try at every character.
_OPTION = re.compile(r"\n[ \t]*\(?([A-Z]|\d{1,2})[.):][ \t]+(\S.{0,300})$", re.MULTILINE)
_STEP = re.compile(r"\n\s{0,12}(?:\d{1,3}[.)]|[-*]|Step)")
_QUOTED = re.compile(r"'[^'\n]{0,400}'|\"[^\"\n]{0,400}\"")
_HEDGES = (
    "however", "wait", "actually", "assum", "approximately", "about ", "maybe", "perhaps", "seems", "likely",
    "unclear", "probably", "mistake", "correction", "recheck", "let's", "not given", "cannot", "sorry",
)  # fmt: skip
_REPLY_SALT, _ANSWER_SALT, _CHOICE_SALT = crc32(b"reply"), crc32(b"answer"), crc32(b"choice")
_LINK_SALT, _LOUD = crc32(b"link"), 255
_OPTIONS = 26
_LITERAL_CHARS = 400
_LITERAL_START = re.compile(r"[-+.\d'\"(\[{#]|True|False|None|set|[bBrRuU]{1,2}['\"]")
_LINES = 200
_SECOND_THOUGHTS = ("wait", "mistake", "actually")


class Prompt(NamedTuple):
    """What the features of every reply to one prompt need of the prompt."""

    chars: int
    words: list[str]  # in lower case
    distinct_words: frozenset[str]
    lines: list[str]  # those that say something, in lower case
    numbers: frozenset[float]
    options: dict[str, str]
    longest_quoted: str
    link: Link | None


def prompt_of(request: Request, *, text_cap_chars: int = TEXT_CAP_CHARS) -> Prompt:
    """The request's side of `reply_features`, computed once for several replies."""
    text = request_text(request, text_cap_chars).decode("utf-8", "replace")
    words = text.lower().split()
    quoted = _QUOTED.findall(text) if "'" in text or '"' in text else ()
    return Prompt(
        chars=len(text),
        words=words,
        distinct_words=frozenset(words),
        lines=[line.strip(" \t*-").lower() for line in text.split("\n") if len(line.strip()) > 8][:_LINES],
        numbers=frozenset(numbers_in(text)),
        options=dict(_OPTION.findall("\n" + text)[:_OPTIONS]),
        longest_quoted=max(quoted, key=len, default="")[1:-1],
        link=find_link(text),
    )


def reply_features(
    request: Request, reply: Reply, *, text_cap_chars: int = TEXT_CAP_CHARS, prompt: Prompt | None = None
) -> Features:
    """The reply's features given its request; indices are in a name space of their own (see `router.model`).

    `prompt`, where the caller has it, is `prompt_of` the same request with the same cap.
    """
    prompt = prompt or prompt_of(request, text_cap_chars=text_cap_chars)
    text = capped(reply.text, text_cap_chars)
    answer = find_answer(text)
    lower = text.lower()
    words = lower.split()
    dense = (
        *_shape(prompt, text, answer, reply, len(words)),
        *_numbers(prompt, text, answer),
        *_answer_form(prompt, answer),
        answer.start / max(1, len(text)),
        *_wording(prompt, lower, words),
        *_choice(prompt, lower, answer),
        log1p(text.count("**")),
        log1p(text.count("\\")),
        log1p(text.count("?")),
        *link_features(prompt.link, text, lower),
        *(kind == answer.kind for kind in KINDS),
        *(stop is reply.stop_reason for stop in _STOPS),
    )
    hashes = _hashed(text, _REPLY_SALT) + _hashed(answer.raw[:80], _ANSWER_SALT)
    chosen = prompt.options.get(answer.exact.upper())
    if chosen:
        hashes += _hashed(chosen, _CHOICE_SALT)
    indices, counts = bucketed(hashes)
    if prompt.link is not None:
        key = shape_of(prompt.link)
        beside, _ = bucketed([crc32(key, _LINK_SALT), *_hashed(chosen or answer.raw[:80], crc32(key))])
        indices, counts = _loud(indices, counts, beside)
    return Features(indices, counts, np.array(dense, dtype=np.float32))


def _loud(
    indices: NDArray[np.int32], counts: NDArray[np.uint8], loud: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Buckets and counts with `loud` among them at the greatest count: a few that must be heard beside hundreds."""
    both = np.union1d(indices, loud)
    found = np.zeros(len(both), dtype=np.uint8)
    found[np.searchsorted(both, indices)] = counts
    found[np.searchsorted(both, loud)] = _LOUD
    return both, found


def _hashed(text: str, salt: int) -> list[int]:
    return hashed(masked(tokens(text.encode("utf-8", "replace"))).words, salt=salt)


def _shape(prompt: Prompt, text: str, answer: Answer, reply: Reply, words: int) -> tuple[float, ...]:
    tail = len(text) - answer.start - len(answer.raw) - 10
    chars = log1p(len(text))
    return (
        chars,
        log1p(words),
        log1p(text.count("\n")),
        chars - log1p(prompt.chars),
        log1p(answer.start),
        log1p(max(0, tail)),
        log1p(len(_STEP.findall("\n" + text))),
        log1p(reply.usage.output_tokens),
        min(len(reply.tool_uses), 20),
    )


def _numbers(prompt: Prompt, text: str, answer: Answer) -> tuple[float, ...]:
    reasoned = numbers_in(text, 0, answer.start)  # no number reaches across the start of an answer
    found = reasoned + numbers_in(text, answer.start)
    given, distinct = prompt.numbers, set(found)
    sums = check_sums(text)
    about_all = (
        log1p(len(found)),
        log1p(len(distinct)),
        log1p(max(map(abs, found), default=0.0)),
        log1p(sum(number != int(number) for number in found)),
        len(distinct & given) / max(1, len(given)),
        log1p(len(distinct - given)),
        log1p(sums.right),
        log1p(sums.wrong),
        sums.wrong / max(1, sums.right + sums.wrong),
        log1p(text.count("=")),
    )
    value = number_in(answer.exact)
    if value is None:
        reasoning, needle = squeezed(text[: answer.start].lower()), answer.loose
        at = reasoning.find(needle) if needle else -1
        in_prompt = bool(needle) and needle in squeezed("".join(prompt.words))
        repeats = log1p(reasoning.count(needle)) if at >= 0 else 0.0
        first_seen = at / max(1, len(reasoning)) if at >= 0 else 1.5
        return (*about_all, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.0, in_prompt, repeats, first_seen)
    same = [i for i, number in enumerate(found) if abs(number - value) < 1e-9]
    last = sums.last_result
    return (
        *about_all,
        1.0,
        log1p(abs(value)),
        value < 0,
        value == int(value),
        last is not None and abs(value - last) < 1e-6,
        last is not None and abs(value - last) >= 1e-6,
        bool(reasoned) and abs(reasoned[-1] - value) < 1e-6,
        value in given,
        log1p(len(same)),
        same[0] / len(found) if same else 1.0,
    )


def _answer_form(prompt: Prompt, answer: Answer) -> tuple[float, ...]:
    raw, exact, longest = answer.raw, answer.exact, prompt.longest_quoted
    plain = unescaped(raw).strip()
    opening = exact[:1]
    gap, likeness = 0, -1.0
    if longest:
        gap = len(raw.strip("'\"")) - len(longest)
        letters, given = set(raw.lower()), set(longest.lower())
        likeness = len(letters & given) / max(1, len(letters | given))
    return (
        log1p(len(raw)),
        "\n" in raw,
        opening == "[",
        opening == "{",
        opening == "(",
        plain[:1] in ("'", '"'),
        exact in ("true", "false", "none"),
        "\\" in raw,
        log1p(raw.count(",")),
        log1p(raw.count(" ")),
        len(set(raw)) / max(1, len(raw)),
        math.copysign(log1p(abs(gap)), gap),
        likeness,
        *_as_literal(plain),
        plain in ("true", "false", "none", "null"),
        '\\"' in raw,
    )


def _wording(prompt: Prompt, lower: str, words: list[str]) -> tuple[float, ...]:
    used, asked = set(words), prompt.distinct_words
    both = len(asked & used)
    return (
        log1p(sum(map(lower.count, _HEDGES))),
        any(word in lower for word in _SECOND_THOUGHTS),
        log1p(lower.count("therefore") + lower.count("so,") + lower.count("thus")),
        "verify" in lower or "check" in lower,
        log1p(lower.count("since") + lower.count("because")),
        "error" in lower or "incorrect" in lower,
        both / max(1, len(asked)),
        (len(used) - both) / max(1, len(used)),
        len(used) / max(1, len(words)),
        sum(line in lower for line in prompt.lines) / max(1, len(prompt.lines)),
    )


def _choice(prompt: Prompt, lower: str, answer: Answer) -> tuple[float, float, float, float]:
    """(an option was chosen, its text is stated too, how many others' are, and where it is)."""
    if not prompt.options:
        return 0.0, 0.0, 0.0, -1.0
    stated = {key: lower.find(option.strip(" .").lower()) for key, option in prompt.options.items()}
    at = stated.pop(answer.exact.upper(), None)
    others = sum(other >= 0 for other in stated.values())
    if at is None:
        return 0.0, 0.0, others, -1.0
    return 1.0, at >= 0, others, at / max(1, len(lower)) if at >= 0 else 1.5


def _as_literal(text: str) -> tuple[float, float]:
    """(is a Python literal, and is written as Python would write it), each 0 or 1. Nothing is run."""
    if len(text) > _LITERAL_CHARS or "\\" in text:  # a wrong escape makes the parser print a warning with text in it
        return 0.0, 0.0
    if text.isdigit() and text.isascii() and text[0] != "0":
        return 1.0, 1.0
    if not _LITERAL_START.match(text):  # a parser that fails takes longer than all else here
        return 0.0, 0.0
    try:
        shown = repr(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return 0.0, 0.0
    return 1.0, float(text in (shown, shown.replace("'", '"')))
