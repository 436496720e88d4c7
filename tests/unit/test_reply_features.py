"""Reply features: what a reply shows of itself."""

from __future__ import annotations

import time
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.types import Message, Reply, Request, StopReason, TextBlock, ToolUseBlock, Usage
from router.features import Features
from router.reply_features import REPLY_NAMES, prompt_of, reply_features


def seen(prompt: str, text: str, stop: StopReason = StopReason.END_TURN) -> dict[str, float]:
    features = features_of(prompt, text, stop)
    return dict(zip(REPLY_NAMES, features.dense.tolist(), strict=True))


def features_of(prompt: str, text: str, stop: StopReason = StopReason.END_TURN) -> Features:
    request = Request("maths", (Message("user", (TextBlock(prompt),)),), 100, 100)
    return reply_features(request, Reply((TextBlock(text),), stop, Usage(output_tokens=12), "m"))


def test_arithmetic_that_does_not_come_out_is_seen() -> None:
    good = seen("3 boxes of 4?", '3 x 4 = 12 so {"answer": "12"}')
    bad = seen("3 boxes of 4?", '3 x 4 = 13 so {"answer": "12"}')
    assert (good["sums_wrong_share"], bad["sums_wrong_share"]) == (0.0, 1.0)
    assert (good["answer_is_last_sum"], bad["answer_is_last_sum"]) == (1.0, 0.0)
    assert bad["answer_is_not_last_sum"] == 1.0
    assert good["answer_by_json"] == 1.0


def test_the_option_chosen_is_read_from_the_prompt() -> None:
    prompt = "Who is Ann?\n1. Ann is an aunt.\n2. Ann is a sister."
    stated = seen(prompt, "Ann is a sister.\n<ANSWER>2</ANSWER>")
    contradicted = seen(prompt, "Ann is a sister.\n<ANSWER>1</ANSWER>")
    assert (stated["option_chosen"], stated["option_stated"], stated["other_options_stated"]) == (1, 1, 0)
    assert (contradicted["option_stated"], contradicted["other_options_stated"]) == (0, 1)
    one, other = features_of(prompt, "<ANSWER>2</ANSWER>"), features_of(prompt, "<ANSWER>1</ANSWER>")
    assert set(one.indices.tolist()) != set(other.indices.tolist())


def test_the_form_of_the_answer_is_seen() -> None:
    canonical = seen("f([1]) ==", '{"answer": "[1, 2]"}')
    crowded = seen("f([1]) ==", '{"answer": "[1,2]"}')
    assert (canonical["answer_canonical"], crowded["answer_canonical"]) == (1.0, 0.0)
    assert canonical["answer_list"] == crowded["answer_literal"] == 1.0
    assert seen("?", '{"answer": "true"}')["answer_lower_constant"] == 1.0
    assert seen("say 'hello'", "<answer>olleh</answer>")["answer_vs_literal_letters"] == 1.0


def test_how_it_ended_is_seen() -> None:
    assert seen("?", "cut", StopReason.MAX_TOKENS)["stopped_max_tokens"] == 1.0
    assert seen("?", "no", StopReason.REFUSAL)["stopped_refusal"] == 1.0


def test_hedges_and_second_thoughts_are_seen() -> None:
    doubtful = seen("?", "Wait, actually that seems wrong, so perhaps 4")
    assert doubtful["second_thoughts"] == 1.0
    assert doubtful["log_hedges"] > 1.0


def test_a_reply_of_tool_calls_alone_has_features() -> None:
    request = Request("tools", (Message("user", (TextBlock("look"),)),), 100, 100)
    reply = Reply((ToolUseBlock("1", "lookup", {"q": 1}),), StopReason.TOOL_USE, Usage(), "m")
    dense = dict(zip(REPLY_NAMES, reply_features(request, reply).dense.tolist(), strict=True))
    assert (dense["tool_calls"], dense["stopped_tool_use"], dense["answer_by_none"]) == (1.0, 1.0, 1.0)


def test_every_name_is_used_and_none_is_made_up() -> None:
    # A misspelt name in the code would leave a column of zeros.
    prompt = (
        "Eva leads Tom. Max leads Tom. Zoe leads Max. Zoe leads Eva. Who is Eva to Max?\n"
        "Do it for $3 and 'word':\n1. Ann is tall.\n2. Bob is small."
    )
    replies = [
        "1. Step\n**Since** 3 + 4 = 7, check: therefore error? Wait.\nAnn is tall. <answer>1</answer> and a tail text",
        '{"answer": "{\'a\': 1}"} 2 + 2 = 5.5',
        "<answer>-3</answer>",
        "3 + 4 = 7 <answer>8</answer>",
        "3 + 5 = 8, do it for $3 and 'word': <answer>8</answer>",
        "Bob is small.",
        "<answer>(1, 2)\n</answer>",
        "<answer>true</answer>",
        "<answer>a\nb</answer>",
        "",
        r"\boxed{x}",
        "word",
        "12 12",
        '{"answer": "\\"q w\\""}',
        "<answer>['a', 'b']</answer>",
        "<answer>3</answer> word",
        "Zoe leads Max. Eva leads Tom. Tom and Zoe <answer>2</answer>",
    ]
    used = sum(np.abs(features_of(prompt, reply).dense) for reply in replies)
    silent = {name for name, value in zip(REPLY_NAMES, np.asarray(used).tolist(), strict=True) if value == 0}
    assert silent == {"tool_calls", "stopped_max_tokens", "stopped_tool_use", "stopped_refusal"}


def test_there_is_a_value_for_every_name() -> None:
    for text in ("", "7", "word"):
        assert len(features_of("Pick:\n1. a\n2. b", text).dense) == len(REPLY_NAMES)


def test_a_prompt_that_is_there_already_changes_nothing() -> None:
    request = Request("maths", (Message("user", (TextBlock("Is 'abc' or 3 it?\n1. Ann\n2. Bob said so"),)),), 9, 9)
    prompt = prompt_of(request)
    for text in ("Bob said so: 2", "'abc'", "3"):
        reply = Reply((TextBlock(text),), StopReason.END_TURN, Usage(), "m")
        one, other = reply_features(request, reply), reply_features(request, reply, prompt=prompt)
        assert one.to_bytes() == other.to_bytes()


def test_the_features_are_the_same_on_every_machine() -> None:
    # Golden: a change of these is a change of REPLY_FEATURES_VERSION.
    features = features_of(
        "3 boxes of 4 at $1,200?\n1. Ann\n2. Bob", "3 x 4 = 12, so Bob has -7.5.\n<answer>2</answer>"
    )
    assert crc32(features.indices.astype("<i4").tobytes()) == 2639807150
    assert round(float(features.dense.sum()), 3) == 41.389


@pytest.mark.parametrize(
    ("text", "literal", "canonical"),
    [
        ("7", 1, 1), ("007", 0, 0), ("00", 1, 0), ("-7", 1, 1), ("1.50", 1, 0), ("None", 1, 1), ("set()", 1, 1),
        ("b'a'", 1, 1), ("[1,2]", 1, 0), ("word", 0, 0), ("7 apples", 0, 0), ("٣", 0, 0),
    ],
)  # fmt: skip
def test_literals_are_told_from_words(text: str, literal: int, canonical: int) -> None:
    form = seen("?", f"<answer>{text}</answer>")
    assert (form["answer_literal"], form["answer_canonical"]) == (literal, canonical)


@given(st.text(max_size=200), st.text(max_size=300))
def test_any_reply_has_finite_features_that_survive_bytes(prompt: str, text: str) -> None:
    features = features_of(prompt, text)
    assert np.isfinite(features.dense).all()
    again = Features.from_bytes(features.to_bytes())
    assert np.array_equal(again.dense, features.dense)
    assert np.array_equal(again.counts, features.counts)


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "9" * 20_000, "'" * 20_000, "1 + 1 = " * 3000, "so, " * 5000, "-1" * 10_000]
)
def test_no_reply_takes_long(text: str) -> None:
    started = time.perf_counter()
    features_of(text, text)
    assert time.perf_counter() - started < 2.0
