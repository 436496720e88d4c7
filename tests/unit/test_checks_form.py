"""Degenerate output, stop reasons, fields, patterns and labels: what passes and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from fallback.checks import Check
from fallback.checks.degenerate import DegenerateCheck
from fallback.checks.form import FieldsCheck, LabelsCheck, RegexCheck
from fallback.checks.stop_reason import StopReasonCheck
from fallback.types import Accept, Reject, Remedy, Reply, StopReason, TextBlock, ToolUseBlock, Usage
from tests.support.fakes import case, reply


async def _reason(check: Check, text: str) -> str:
    verdict = (await check.judge(case(reply(text)))).verdict
    return verdict.reason if isinstance(verdict, Reject) else ""


# --- stop reason -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "check", "verdict"),
    [
        (StopReason.END_TURN, StopReasonCheck(), Accept()),
        (StopReason.STOP_SEQUENCE, StopReasonCheck(), Accept()),
        (StopReason.TOOL_USE, StopReasonCheck(), Accept()),
        (StopReason.PAUSE_TURN, StopReasonCheck(), Accept()),
        (StopReason.UNKNOWN, StopReasonCheck(), Accept()),
        (StopReason.MAX_TOKENS, StopReasonCheck(), Reject("truncated", Remedy.RAISE_LIMIT, Remedy.ESCALATE)),
        (
            StopReason.MAX_TOKENS,
            StopReasonCheck(truncated="hand_back"),
            Reject("truncated", Remedy.RAISE_LIMIT, Remedy.HAND_BACK),
        ),
        (StopReason.REFUSAL, StopReasonCheck(), Reject("refused", Remedy.HAND_BACK)),
        (StopReason.REFUSAL, StopReasonCheck(refused="escalate"), Reject("refused", Remedy.ESCALATE)),
        (StopReason.CONTEXT_EXCEEDED, StopReasonCheck(), Reject("context_exceeded", Remedy.HAND_BACK)),
    ],
)
async def test_stop_reasons(stop: StopReason, check: StopReasonCheck, verdict: Any) -> None:
    assert (await check.judge(case(reply("x", stop=stop)))).verdict == verdict


# --- degenerate ------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u3000"])
async def test_nothing_at_all_is_empty(text: str) -> None:
    assert await _reason(DegenerateCheck(), text) == "empty"
    assert (await DegenerateCheck().judge(case(Reply((), StopReason.END_TURN, Usage(), "")))).verdict == Reject("empty")


@pytest.mark.parametrize("text", ["7", "no", ".", "é", "ha ha ha", "1 1 1 1 1 1 1 1 1 1 1 1", "a b " * 11])
async def test_short_and_mildly_repetitive_answers_pass(text: str) -> None:
    assert await _reason(DegenerateCheck(), text) == ""


@pytest.mark.parametrize("phrase", ["word", "two words", "I am sorry, but", "one two three four five six seven eight"])
async def test_a_phrase_over_and_over_at_the_end_is_stuck(phrase: str) -> None:
    length = len(phrase.split())
    times = 36 if length == 1 else 12
    assert await _reason(DegenerateCheck(), f"It began well. {(phrase + ' ') * times}") == "repetition"
    assert await _reason(DegenerateCheck(), f"It began well. {(phrase + ' ') * (times - 1)}") == ""
    assert await _reason(DegenerateCheck(), f"{(phrase + ' ') * times} and then it ended well.") == ""


async def test_nine_words_are_no_phrase_and_the_number_of_repeats_is_a_setting() -> None:
    assert await _reason(DegenerateCheck(), "1 2 3 4 5 6 7 8 9 " * 50) == ""
    assert await _reason(DegenerateCheck(repeats=2), "a b a b") == "repetition"


async def test_a_tool_call_needs_no_text() -> None:
    use = ToolUseBlock("u", "t", {})
    assert (await DegenerateCheck().judge(case(reply(blocks=(use,))))).verdict == Accept()
    assert (await DegenerateCheck().judge(case(reply(blocks=(TextBlock(""), use))))).verdict == Accept()


# --- fields ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"id": 1, "name": "x"}', ""),
        ('{"id": 0, "name": false, "more": null}', ""),
        ('Sure:\n```json\n{"id": 1, "name": "x"}\n```\nDone.', ""),
        ('{"id": 1}', "missing_field"),
        ('{"id": 1, "name": null}', "missing_field"),
        ('{"id": 1, "name": ""}', "missing_field"),
        ('{"id": [], "name": "x"}', "missing_field"),
        ('{"id": {}, "name": "x"}', "missing_field"),
        ('["id", "name"]', "not_an_object"),
        ("id name", "not_json"),
        ("", "not_json"),
    ],
)
async def test_fields(text: str, reason: str) -> None:
    assert await _reason(FieldsCheck(("id", "name")), text) == reason


# --- regex -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"\d+", "it is 42", True),
        (r"^\d+$", "so:\n42\nthat is it", True),
        (r"^\d+$", "it is 42", False),
        (r"(?i)^yes\b", "no\nYES, it is", True),
        (r"[é語]", "語", True),
        ("x", "a" * 20_000 + "x", False),
        ("x", "a" * 19_999 + "x", True),
        (r"a.c", "a\nc", False),
        ("", "", True),
    ],
)
async def test_a_pattern_anywhere_in_the_first_characters(pattern: str, text: str, *, found: bool) -> None:
    assert await _reason(RegexCheck(pattern), text) == ("" if found else "no_match")


@pytest.mark.parametrize("pattern", ["[", "(", "*", "(?=a)", "(?<!a)b", r"(a)\1", r"(\w{1000}){1000}"])
def test_what_is_no_pattern_or_would_need_backtracking_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        RegexCheck(pattern)


async def test_a_pattern_that_would_stall_a_backtracking_engine_does_not() -> None:
    assert await _reason(RegexCheck(r"^(a+)+$"), "a" * 19_000 + "!") == "no_match"
    assert await _reason(RegexCheck(r"(x+x+)+y"), "x" * 20_000) == "no_match"


# --- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("billing", ""),
        ("  Billing.\n", ""),
        ("**billing**", ""),
        ('"BILLING"', ""),
        ("`technical issue`", ""),
        ("N/A.", ""),
        ("n/a", ""),
        ("billing please", "not_a_label"),
        ("billing, technical issue", "not_a_label"),
        ("technical", "not_a_label"),
        ("", "not_a_label"),
        ("...", "not_a_label"),
    ],
)
async def test_labels(text: str, reason: str) -> None:
    assert await _reason(LabelsCheck(("billing", " Technical Issue ", "N/A.")), text) == reason


async def test_labels_compare_by_case_folding() -> None:
    assert await _reason(LabelsCheck(("STRASSE",)), "straße") == ""


@pytest.mark.parametrize("labels", [(), ("",), ("billing", " "), ("*",), ("...",)])
def test_labels_that_nothing_could_match_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="at least one label"):
        LabelsCheck(labels)
