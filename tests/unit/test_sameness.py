"""The same answer, by each notion of an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.sameness import Notion, same_answer, similarity
from fallback.types import ToolUseBlock
from tests.support.fakes import reply

NOTIONS: tuple[Notion, ...] = ("auto", "exact", "json_field", "number", "label", "similarity")


@pytest.mark.parametrize(
    ("notion", "one", "other", "same"),
    [
        ("auto", "So 6 * 7 = 42", "Answer: 42.0", True),
        ("auto", "Answer: 42", "Answer: 43", False),
        ("auto", "<answer>Paris</answer>", "<answer> paris</answer>", True),
        ("auto", "", "", False),
        ("exact", " $1,200 ", "1200", True),
        ("exact", "Paris", "Paris, France", False),
        ("exact", "", " ", False),
        ("json_field", '{"a": {"b": "X"}, "c": 1}', '{"c": 2, "a": {"b": "x"}}', True),
        ("json_field", '{"a": {"b": 1.0}}', '```json\n{"a": {"b": 1}}\n```', True),
        ("json_field", '{"a": {"b": [1, {"y": 1, "x": 2}]}}', '{"a": {"b": [1, {"x": 2, "y": 1}]}}', True),
        ("json_field", '{"a": {"b": true}}', '{"a": {"b": 1}}', False),
        ("json_field", '{"a": 1}', '{"a": 1}', False),
        ("json_field", "none", "none", False),
        ("number", "about 3.1415926", "pi is 3.1415927", True),
        ("number", "Total: $1,250.", "1250", True),
        ("number", "3.1", "3.2", False),
        ("number", "many", "many", False),
        ("label", "Label: Billing.", "billing", True),
        ("label", "I think so\n**refund**", "refund", True),
        ("label", "billing", "refund", False),
        ("label", "", "", False),
        ("similarity", "The bridge was closed for repairs.", "For repairs the bridge was closed.", True),
        ("similarity", "The bridge was closed for repairs.", "Wine exports rose in spring.", False),
        ("similarity", "", "", False),
    ],
)
def test_each_notion_of_an_answer(notion: Notion, one: str, other: str, *, same: bool) -> None:
    found = same_answer(notion, reply(one), reply(other), field="a.b", tolerance=1e-6, alike=0.6)
    assert found is same
    assert same_answer(notion, reply(other), reply(one), field="a.b", tolerance=1e-6, alike=0.6) is same


@pytest.mark.parametrize("notion", NOTIONS)
def test_tool_calls_are_the_same_by_name_and_arguments(notion: Notion) -> None:
    call = reply(blocks=(ToolUseBlock("1", "send", {"to": "a", "n": 1}),))
    same = reply(blocks=(ToolUseBlock("2", "send", {"n": 1, "to": "a"}),))
    other = reply(blocks=(ToolUseBlock("1", "send", {"to": "b", "n": 1}),))
    assert same_answer(notion, call, same, field="a")
    assert not same_answer(notion, call, other, field="a")
    assert not same_answer(notion, call, reply("42"), field="a")


@given(st.text(max_size=60), st.text(max_size=60))
def test_similarity_is_a_symmetric_share(one: str, other: str) -> None:
    found = similarity(one, other)
    assert 0 <= found <= 1
    assert found == pytest.approx(similarity(other, one))
    assert similarity(one, one) in (0.0, pytest.approx(1.0))
