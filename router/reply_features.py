"""What can be known of a reply without asking anyone, given the request: the learned scorer's input.

Named dense features (`REPLY_NAMES`) on length, structure, arithmetic, the answer's form and whether it
agrees with the reasoning, hedging and what the reply takes from the prompt; and hashed word 1-2-grams of the
reply, of its answer and, where the prompt lists options, of the option chosen. Pure, bounded work.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from fallback.answers import KINDS, NUMBER, Answer, find_answer, number_in, unescaped
from fallback.arithmetic import check_sums
from fallback.types import Reply, Request, StopReason
from router.features import TEXT_CAP_CHARS, Features, capped, hashed, log1p, masked, merged, request_text, tokens

REPLY_FEATURES_VERSION = "1"

_STOPS = (StopReason.END_TURN, StopReason.MAX_TOKENS, StopReason.TOOL_USE, StopReason.REFUSAL)
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
    *(f"answer_by_{kind}" for kind in KINDS), *(f"stopped_{reason.value}" for reason in _STOPS),
)  # fmt: skip

_OPTION = re.compile(r"^[ \t]*\(?([A-Z]|\d{1,2})[.):][ \t]+(\S.{0,300})$", re.MULTILINE)
_STEP = re.compile(r"^\s{0,12}(?:\d{1,3}[.)]|[-*]|Step)", re.MULTILINE)
_QUOTED = re.compile(r"'[^'\n]{0,400}'|\"[^\"\n]{0,400}\"")
_HEDGES = (
    "however", "wait", "actually", "assum", "approximately", "about ", "maybe", "perhaps", "seems", "likely",
    "unclear", "probably", "mistake", "correction", "recheck", "let's", "not given", "cannot", "sorry",
)  # fmt: skip
_REPLY_SALT, _ANSWER_SALT, _CHOICE_SALT = crc32(b"reply"), crc32(b"answer"), crc32(b"choice")
_OPTIONS = 26
_LITERAL_CHARS = 400
_SQUEEZE = re.compile(r"[\s\"']+")


def reply_features(request: Request, reply: Reply, *, text_cap_chars: int = TEXT_CAP_CHARS) -> Features:
    """The reply's features given its request; indices are in a name space of their own (see `router.model`)."""
    prompt = request_text(request, text_cap_chars).decode("utf-8", "replace")
    text = capped(reply.text, text_cap_chars)
    answer = find_answer(text)
    options = dict(_OPTION.findall(prompt)[:_OPTIONS])
    named: dict[str, float] = {}
    named |= _shape(prompt, text, answer, reply)
    named |= _numbers(prompt, text, answer)
    named |= _answer_form(prompt, answer)
    named |= _wording(prompt, text)
    named |= _choice(text, answer, options)
    dense = np.array([named.get(name, 0.0) for name in REPLY_NAMES], dtype=np.float32)
    chosen = options.get(answer.exact.upper(), "")
    return Features(
        *merged(
            _hashed(text, _REPLY_SALT),
            _hashed(answer.raw[:80], _ANSWER_SALT),
            _hashed(chosen, _CHOICE_SALT),
        ),
        dense,
    )


def _hashed(text: str, salt: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    return hashed(masked(tokens(text.encode("utf-8", "replace"))).words, salt=salt)


def _shape(prompt: str, text: str, answer: Answer, reply: Reply) -> Mapping[str, float]:
    tail = len(text) - answer.start - len(answer.raw) - 10
    return {
        "log_chars": log1p(len(text)),
        "log_words": log1p(len(text.split())),
        "log_lines": log1p(text.count("\n")),
        "log_length_ratio": log1p(len(text)) - log1p(len(prompt)),
        "log_reasoning_chars": log1p(answer.start),
        "log_tail_chars": log1p(max(0, tail)),
        "log_steps": log1p(len(_STEP.findall(text))),
        "log_output_tokens": log1p(reply.usage.output_tokens),
        "tool_calls": float(min(len(reply.tool_uses), 20)),
        "answer_position": answer.start / max(1, len(text)),
        "log_bold": log1p(text.count("**")),
        "log_backslashes": log1p(text.count("\\")),
        "log_questions": log1p(text.count("?")),
        f"answer_by_{answer.kind}": 1.0,
        f"stopped_{reply.stop_reason.value}": 1.0,
    }


def _numbers(prompt: str, text: str, answer: Answer) -> Mapping[str, float]:
    found, given = _all_numbers(text), set(_all_numbers(prompt))
    distinct = set(found)
    sums = check_sums(text)
    value = number_in(answer.exact)
    reasoned = _all_numbers(text[: answer.start])
    named = {
        "log_numbers": log1p(len(found)),
        "log_distinct_numbers": log1p(len(distinct)),
        "log_largest_number": log1p(max(map(abs, found), default=0.0)),
        "log_decimals": log1p(sum(number != int(number) for number in found)),
        "prompt_numbers_used": len(distinct & given) / max(1, len(given)),
        "log_new_numbers": log1p(len(distinct - given)),
        "log_sums_right": log1p(sums.right),
        "log_sums_wrong": log1p(sums.wrong),
        "sums_wrong_share": sums.wrong / max(1, sums.right + sums.wrong),
        "log_equals": log1p(text.count("=")),
        "answer_log_size": -1.0,
    }
    if value is None:
        squeezed, needle = _SQUEEZE.sub("", text[: answer.start].lower()), answer.loose
        at = squeezed.find(needle) if needle else -1
        return named | {
            "answer_in_prompt": float(bool(needle) and needle in _SQUEEZE.sub("", prompt.lower())),
            "log_answer_repeats": log1p(squeezed.count(needle)) if needle else 0.0,
            "answer_first_seen": at / max(1, len(squeezed)) if at >= 0 else 1.5,
        }
    same = [i for i, number in enumerate(found) if abs(number - value) < 1e-9]
    return named | {
        "answer_is_number": 1.0,
        "answer_log_size": log1p(abs(value)),
        "answer_negative": float(value < 0),
        "answer_whole": float(value == int(value)),
        "answer_is_last_sum": float(sums.last_result is not None and abs(value - sums.last_result) < 1e-6),
        "answer_is_not_last_sum": float(sums.last_result is not None and abs(value - sums.last_result) >= 1e-6),
        "answer_is_last_number": float(bool(reasoned) and abs(reasoned[-1] - value) < 1e-6),
        "answer_in_prompt": float(value in given),
        "log_answer_repeats": log1p(len(same)),
        "answer_first_seen": same[0] / len(found) if same else 1.0,
    }


def _answer_form(prompt: str, answer: Answer) -> Mapping[str, float]:
    raw, exact = answer.raw, answer.exact
    plain = unescaped(raw).strip()
    literal, canonical = _as_literal(plain)
    longest = max((match[1:-1] for match in _QUOTED.findall(prompt)), key=len, default="")
    gap = len(raw.strip("'\"")) - len(longest) if longest else 0
    letters, given = set(raw.lower()), set(longest.lower())
    return {
        "log_answer_chars": log1p(len(raw)),
        "answer_lines": float("\n" in raw),
        "answer_list": float(exact[:1] == "["),
        "answer_dict": float(exact[:1] == "{"),
        "answer_tuple": float(exact[:1] == "("),
        "answer_quoted": float(plain[:1] in ("'", '"')),
        "answer_constant": float(exact in ("true", "false", "none")),
        "answer_tex": float("\\" in raw),
        "log_answer_commas": log1p(raw.count(",")),
        "log_answer_spaces": log1p(raw.count(" ")),
        "answer_distinct": len(set(raw)) / max(1, len(raw)),
        "answer_vs_literal_length": math.copysign(log1p(abs(gap)), gap),
        "answer_vs_literal_letters": len(letters & given) / max(1, len(letters | given)) if longest else -1.0,
        "answer_literal": literal,
        "answer_canonical": canonical,
        "answer_lower_constant": float(plain in ("true", "false", "none", "null")),
        "answer_escaped": float('\\"' in raw),
    }


def _wording(prompt: str, text: str) -> Mapping[str, float]:
    lower = text.lower()
    asked = set(prompt.lower().split())
    words = lower.split()
    used = set(words)
    lines = [line.strip(" \t*-").lower() for line in prompt.split("\n") if len(line.strip()) > 8][:200]
    return {
        "log_hedges": log1p(sum(map(lower.count, _HEDGES))),
        "second_thoughts": float(any(word in lower for word in ("wait", "mistake", "actually"))),
        "log_conclusions": log1p(lower.count("therefore") + lower.count("so,") + lower.count("thus")),
        "verifies": float("verify" in lower or "check" in lower),
        "log_causes": log1p(lower.count("since") + lower.count("because")),
        "speaks_of_errors": float("error" in lower or "incorrect" in lower),
        "prompt_words_covered": len(asked & used) / max(1, len(asked)),
        "new_words_share": len(used - asked) / max(1, len(used)),
        "distinct_words_share": len(used) / max(1, len(words)),
        "prompt_lines_covered": sum(line in lower for line in lines) / max(1, len(lines)),
    }


def _choice(text: str, answer: Answer, options: Mapping[str, str]) -> Mapping[str, float]:
    lower = text.lower()
    stated = {key: lower.find(option.strip(" .").lower()) for key, option in options.items()}
    chosen = answer.exact.upper()
    if chosen not in stated:
        return {"option_position": -1.0, "other_options_stated": float(sum(at >= 0 for at in stated.values()))}
    at = stated.pop(chosen)
    return {
        "option_chosen": 1.0,
        "option_stated": float(at >= 0),
        "other_options_stated": float(sum(other >= 0 for other in stated.values())),
        "option_position": at / max(1, len(lower)) if at >= 0 else 1.5,
    }


def _all_numbers(text: str) -> list[float]:
    found = (number_in(match) for match in NUMBER.findall(text))
    return [number for number in found if number is not None]


def _as_literal(text: str) -> tuple[float, float]:
    """(is a Python literal, and is written as Python would write it), each 0 or 1. Nothing is run."""
    if len(text) > _LITERAL_CHARS or "\\" in text:  # a wrong escape makes the parser print a warning with text in it
        return 0.0, 0.0
    try:
        shown = repr(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return 0.0, 0.0
    return 1.0, float(text in (shown, shown.replace("'", '"')))
