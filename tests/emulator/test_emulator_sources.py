"""Where answers come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import pyarrow as pa
import pytest
from pyarrow import parquet

from fallback.emulator.answers import Ask
from fallback.emulator.api_errors import ApiError
from fallback.emulator.recorded import RecordedError, RecordedSource
from fallback.emulator.samples import Samples
from fallback.emulator.schema import check_output_schema, instance
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.static import StaticSource
from fallback.emulator.workloads import WORKLOADS, grade
from tests.support.emulator import running


def row(prompt: str, tier: str, response: str, sample: int = 1, generation: str = "new") -> dict[str, Any]:
    return {
        "generation": generation,
        "prompt": prompt,
        "tier": tier,
        "sample": sample,
        "response": response,
        "output_tokens": 11,
        "correct": 1.0,
    }


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    rows = [
        row("What?", "haiku", "first"),
        row("What?", "haiku", "second", sample=2),
        row("What?", "opus", "dear"),
        row("Be kind.\n\nWhy?", "haiku", "with system"),
        row("What?", "haiku", "old", generation="old"),
    ]
    path = tmp_path / "recorded.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


async def test_recorded_answers_by_prompt_and_tier(recorded: Path) -> None:
    source = RecordedSource.load(recorded, "new")
    assert len(source) == 3
    async with running(source) as bench:
        texts = [(await bench.ask("What?")).content[0].text for _ in range(3)]
        dear = await bench.raw("What?", "opus")
        kind = await bench.ask("Why?", system="Be kind.")
        bench.emulator.reset()
        again = await bench.ask("What?")
        for prompt, tier in (("Unknown?", "haiku"), ("What?", "sonnet")):
            with pytest.raises(anthropic.NotFoundError, match="no recorded answer"):
                await bench.ask(prompt, tier)
    assert texts == ["first", "second", "second"]
    assert dear.headers["x-tierwise-emulated"] == "recorded"
    assert (await dear.parse()).usage.output_tokens == 11
    assert kind.content[0].text == "with system"
    assert again.content[0].text == "first"


def test_wrong_recordings_are_refused(recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordedError, match="no generation 'newer'; it has new, old"):
        RecordedSource.load(recorded, "newer")
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    with pytest.raises(RecordedError, match="not a readable Parquet file"):
        RecordedSource.load(text, "new")
    with pytest.raises(RecordedError, match="not a readable Parquet file"):
        RecordedSource.load(tmp_path / "missing.parquet", "new")
    lacking = tmp_path / "lacking.parquet"
    parquet.write_table(pa.table({"prompt": ["a"], "tier": ["haiku"]}), lacking)
    with pytest.raises(RecordedError, match="lacks the columns generation, sample, response, output_tokens"):
        RecordedSource.load(lacking, "new")


async def test_simulated_replies_differ_by_sample_and_repeat_after_a_reset() -> None:
    cases = [WORKLOADS["date-reasoning"].case(1, n) for n in range(12)]
    async with running(SimulatedSource(2)) as bench:
        first = [(await bench.ask(case.prompt)).content[-1].text for case in cases]
        second = [(await bench.ask(case.prompt)).content[-1].text for case in cases]
        bench.emulator.reset()
        again = [(await bench.ask(case.prompt)).content[-1].text for case in cases]
    assert first == again
    assert first != second
    # What the emulator says over HTTP is what the pure function says.
    source = SimulatedSource(2)
    assert first == [source.answer(Ask(tier="haiku", model="m", prompt=case.prompt)).text for case in cases]


def test_samples_of_one_prompt_agree_more_than_chance() -> None:
    source = SimulatedSource(1)
    workload = WORKLOADS["word-arithmetic"]
    pairs = []
    for n in range(600):
        case = workload.case(2, n)
        pairs.append((source.is_right(case, "haiku", 1), source.is_right(case, "haiku", 2)))
    share = sum(a for a, _ in pairs) / len(pairs)
    both = sum(a and b for a, b in pairs) / len(pairs)
    assert both > share * share + 0.05
    assert any(a != b for a, b in pairs)


async def test_a_wanted_schema_shapes_workload_replies_too() -> None:
    case = WORKLOADS["program-trace"].case(1, 1)
    schema = {
        "type": "object",
        "properties": {"reasoning": {"type": "string"}, "answer": {"type": "string"}, "sure": {"type": "boolean"}},
        "required": ["reasoning", "answer", "sure"],
        "additionalProperties": False,
    }
    source = SimulatedSource(0)
    answer = source.answer(Ask(tier="opus", model="m", prompt=case.prompt, schema=schema))
    value = json.loads(answer.text)
    assert value.keys() == {"reasoning", "answer", "sure"}
    assert grade(case, answer.text) == source.is_right(case, "opus")


def test_an_extraction_under_its_own_schema_keeps_the_schema_even_when_wrong() -> None:
    source = SimulatedSource(0)
    workload = WORKLOADS["order-extraction"]
    for n in range(150):
        case = workload.case(3, n)
        assert case.output_schema is not None
        check_output_schema(dict(case.output_schema))
        answer = source.answer(Ask(tier="haiku", model="m", prompt=case.prompt, schema=case.output_schema))
        assert list(json.loads(answer.text)) == list(case.output_schema["properties"])


def test_thinking_off_and_effort_change_the_tokens_only() -> None:
    case = WORKLOADS["word-arithmetic"].case(1, 3)
    source = SimulatedSource(0)
    off = source.answer(Ask(tier="haiku", model="m", prompt=case.prompt, thinking=False))
    medium = source.answer(Ask(tier="haiku", model="m", prompt=case.prompt))
    high = source.answer(Ask(tier="haiku", model="m", prompt=case.prompt, effort="max"))
    assert off.thinking_tokens == 0 < medium.thinking_tokens < high.thinking_tokens
    assert off.text == medium.text == high.text


def test_other_prompts_get_a_short_reply_that_says_what_it_is() -> None:
    answer = SimulatedSource(0).answer(Ask(tier="opus", model="m", prompt="What is the capital of France?"))
    assert "simulated" in answer.text
    assert answer.thinking_tokens > 0


def test_static_answers_ignore_the_question() -> None:
    source = StaticSource("Yes.", output_tokens=3)
    asked = [source.answer(Ask(tier="haiku", model="m", prompt=prompt)) for prompt in ("a", "b")]
    assert asked[0] == asked[1]
    assert (asked[0].text, asked[0].output_tokens, source.label) == ("Yes.", 3, "simulated")


def test_samples_are_counted_per_tier_and_prompt() -> None:
    samples = Samples()
    assert [samples.next("haiku", "a"), samples.next("haiku", "a"), samples.next("opus", "a")] == [1, 2, 1]
    samples.clear()
    assert samples.next("haiku", "a") == 1


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "simulated"),
        ({"type": "string", "maxLength": 3}, "sim"),
        ({"type": "integer", "minimum": 4}, 4),
        ({"type": "boolean"}, False),
        ({"type": ["null", "string"]}, None),
        ({"enum": ["x", "y"]}, "x"),
        ({"const": 5}, 5),
        ({"anyOf": [{"type": "number"}, {"type": "null"}]}, 0),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [0]),
        ({"$defs": {"a": {"type": "integer"}}, "$ref": "#/$defs/a"}, 0),
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
    ],
)
def test_instances_satisfy_their_schema(schema: dict[str, Any], expected: object) -> None:
    assert instance(schema, {}) == expected


def test_hints_are_taken_where_they_fit() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]}
    assert instance(schema, {"a": 3, "b": 4}) == {"a": 3, "b": "4"}
    assert instance(schema, {"a": "x", "b": []}) == {"b": "simulated"}


def test_deep_schemas_are_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ApiError, match="deeply"):
        check_output_schema(schema)
