"""What a reply's answer is, and when two are the same; and sums that come out."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.answers import agreement, find_answer, normalised, number_in, numbers_in, squeezed
from fallback.arithmetic import calculate, check_sums


@pytest.mark.parametrize(
    ("reply", "kind", "exact"),
    [
        ("I think <ANSWER>3</ANSWER> is right", "tag", "3"),
        ('```json\n{"reasoning": "2 + 2", "answer": "$1,200.00"}\n```', "json", "1200"),
        ('{"reasoning": "a "quoted" word", "answer": "yes"}', "json", "yes"),
        ('{"answer": 42, "more": "text"', "json", "42"),
        (r"so \boxed{\frac{1}{2}}", "box", "0.5"),
        ("It costs 3 dollars, in all $17.50", "number", "17.5"),
        ("The label is\nspam", "line", "spam"),
        ("", "none", ""),
    ],
)
def test_answers_are_found_by_their_form(reply: str, kind: str, exact: str) -> None:
    answer = find_answer(reply)
    assert (answer.kind, answer.exact) == (kind, exact)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,200", "1200.0"), ("'abc'", '\\"abc\\"'), ("[1,2, 3]", "[ 1, 2,3 ]"), ("{'a': 1}", '{"a":1}'),
        ("True", "true"), ("1/2", r"\dfrac{1}{2}"), ("50\\%", "50"), (r"\text{east}", "east"), ("18 apples", "18"),
    ],
)  # fmt: skip
def test_equal_answers_agree_however_written(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("1", "2"), ("'a b'", "'ab'"), ("Abc", "abC"), ("[1, 2]", "[12]")])
def test_different_answers_do_not_agree(one: str, other: str) -> None:
    assert normalised(one) != normalised(other)


def test_agreement_is_a_vote_and_a_likeness() -> None:
    def compared(one: str, other: str) -> tuple[float, float]:
        return agreement(find_answer(f"<answer>{one}</answer>"), find_answer(f"<answer>{other}</answer>"))

    assert compared("12", "12.0") == (1.0, 1.0)
    assert compared("Spam", "spam") == (0.0, 1.0)
    same, alike = compared("abcdef", "abcxef")
    assert same == 0.0
    assert 0.7 < alike < 1.0


def test_numbers_are_read_or_refused() -> None:
    assert number_in("$1,000.5") == 1000.5
    assert number_in("1e999") == 1e12
    assert number_in("nan") is None
    assert number_in("ten") is None


def test_the_numbers_of_a_text_are_found() -> None:
    assert numbers_in("-$5, $1,200.50 a-7 b8 1.2.3 v1.0 (9) ٣") == [-5, 1200.5, 7, 1.2, 9, 3]
    assert numbers_in("9" * 24) == [1e12]
    assert numbers_in("1 2 3", 2) == [2, 3]
    assert numbers_in("1 2 3", 0, 3) == [1, 2]
    assert numbers_in("none") == []


@given(st.text(st.sampled_from("12,.$- a_\n٣"), max_size=30))
def test_numbers_are_those_of_the_plain_pattern(text: str) -> None:
    plain = re.compile(r"(?<![\w.])-?\$?\d[\d,]{0,24}(?:\.\d{1,24})?")  # what the faster one must find
    assert numbers_in(text) == [number_in(found) for found in plain.findall(text)]


@given(st.text(max_size=50))
def test_squeezing_takes_spacing_and_quotes(text: str) -> None:
    assert squeezed(text) == re.sub(r"[\s\"']+", "", text)


@given(st.text(max_size=400))
def test_any_text_has_an_answer_and_agrees_with_itself_or_has_none(reply: str) -> None:
    answer = find_answer(reply)
    same, alike = agreement(answer, answer)
    assert 0.0 <= same <= alike <= 1.0


@pytest.mark.parametrize(
    "text", ["<answer>" * 3000, '"answer":' * 3000, "\\boxed{" * 3000, "{" * 20_000, "1," * 10_000, "1+" * 10_000]
)
def test_no_reply_makes_a_pattern_run_away(text: str) -> None:
    started = time.perf_counter()
    find_answer(text)
    check_sums(text)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize(
    ("expression", "value"),
    [("2 + 3 * 4", 14.0), ("(2 + 3) * 4", 20.0), ("-2 - -3", 1.0), ("7 / 2", 3.5), ("2 * (3", 6.0)],
)
def test_the_calculator_calculates(expression: str, value: float) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize("expression", ["1 / 0", "2 +", "import os", "1 2", "", "()", "__class__"])
def test_the_calculator_refuses(expression: str) -> None:
    assert calculate(expression) is None


def test_sums_in_a_text_are_checked() -> None:
    sums = check_sums("3 x $4 = $12. Then 12 + 5 = 18. A half is 1/4 = 25%. So 20 apples + 2 apples = 22 apples")
    assert (sums.right, sums.wrong, sums.last_result) == (3, 1, 22.0)


def test_a_text_without_sums_has_none() -> None:
    sums = check_sums("nothing to add")
    assert (sums.right, sums.wrong, sums.last_result) == (0, 0, None)
