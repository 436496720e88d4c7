"""Request features: pure, bounded, the same everywhere, and safe to read back."""

from __future__ import annotations

import math
import struct
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.types import DocumentBlock, ImageBlock, Message, Request, TextBlock, Tool, ToolResultBlock, ToolUseBlock
from router.features import BUCKETS, DENSE_NAMES, Features, bucketed, capped, hashed, masked, request_features, tokens


def asked(text: str, workload: str = "triage", **fields: object) -> Request:
    return Request(workload, (Message("user", (TextBlock(text),)),), 100, 100, **fields)  # type: ignore[arg-type]


def named(features: Features) -> dict[str, float]:
    return dict(zip(DENSE_NAMES, features.dense.tolist(), strict=True))


def same(one: Features, other: Features) -> bool:
    return all(np.array_equal(getattr(one, part), getattr(other, part)) for part in ("indices", "counts", "dense"))


def test_the_same_request_gives_the_same_features_on_every_machine() -> None:
    # Golden: a change of these is a change of FEATURES_VERSION.
    features = request_features(asked("How many apples has Ann? 3 + 14."))
    assert features.indices[:4].tolist() == [1728, 2188, 3676, 9332]
    assert len(features.indices) == 19


def test_buckets_ascend_and_values_have_length_one() -> None:
    features = request_features(asked("to be or not to be, that is the question"))
    assert (np.diff(features.indices) > 0).all()
    assert features.indices.max() < BUCKETS
    assert features.counts.max() == 2
    assert math.isclose(float(features.values @ features.values), 1.0, rel_tol=1e-5)


def test_names_and_amounts_are_masked() -> None:
    words = masked(tokens(b"Yesterday Alice paid 1234 to BOB. Then 7 left"))
    assert words.words == [b"yesterday", b"Cc", b"paid", b"000", b"to", b"bob", b".", b"then", b"0", b"left"]
    assert words.names == [b"Yesterday", b"Alice", b"Then"]
    assert words.numbers == [b"1234", b"7"]


def test_an_empty_text_has_no_words_but_dense_features() -> None:
    features = request_features(asked(""))
    assert len(features.indices) == 0
    assert len(features.values) == 0
    assert np.isfinite(features.dense).all()


def test_dense_features_say_what_stands_there() -> None:
    text = (
        "Pick one:\n1. red\n2. blue\n- note\n\n```python\ndef f(x):\n    return x.upper()\n```\nWhat is 50% of $12.50?"
    )
    seen = named(request_features(asked(text)))
    assert seen["options"] == 2
    assert seen["log_bullets"] == pytest.approx(math.log(2))
    assert seen["code_fence"] == 1
    assert seen["log_method_calls"] == pytest.approx(math.log(2))
    assert seen["log_definitions"] == pytest.approx(math.log(2))
    assert seen["log_decimal_points"] == pytest.approx(math.log(2))
    assert seen["log_percent"] == pytest.approx(math.log(2))
    assert seen["log_currency"] == pytest.approx(math.log(2))
    assert seen["non_ascii_share"] == 0


def test_the_shape_of_a_conversation_is_seen() -> None:
    tool = Tool("lookup", "looks up", {"type": "object"})
    request = Request(
        "chat",
        (
            Message("user", (TextBlock("see"), ImageBlock(url="https://example.org/a.png"), DocumentBlock(url="d"))),
            Message("assistant", (ToolUseBlock("1", "lookup", {}),)),
            Message("user", (ToolResultBlock("1", (TextBlock("найдено"),)),)),
        ),
        100,
        100,
        system=(TextBlock("be brief"),),
        tools=(tool,),
        output_schema={"type": "object"},
    )
    seen = named(request_features(request))
    assert (seen["turns"], seen["tools"], seen["tool_results"], seen["images"], seen["documents"]) == (3, 1, 2, 1, 1)
    assert seen["output_schema"] == 1
    assert seen["log_system_chars"] == pytest.approx(math.log(9))
    assert seen["non_ascii_share"] > 0.4


def test_workloads_are_told_apart() -> None:
    one, other = (named(request_features(asked("same", workload))) for workload in ("triage", "maths"))
    assert sum(value for name, value in one.items() if name.startswith("workload_")) == 1
    assert {name for name in one if one[name] != other[name]} <= {name for name in one if name.startswith("workload_")}


def test_work_on_a_long_text_is_bounded() -> None:
    started = time.perf_counter()
    request_features(asked("word " * 2_000_000), text_cap_chars=20_000)
    assert time.perf_counter() - started < 1.0
    long, longer = (request_features(asked("a b " * n + "end"), text_cap_chars=1000) for n in (5_000, 50_000))
    assert np.array_equal(long.counts, longer.counts)


@pytest.mark.parametrize(
    "text", ["\n" + "1." * 9000, " " * 20_000, "-\n" * 9000, "." * 20_000, "(" * 20_000, "\n\t " * 6000]
)
def test_no_text_makes_a_pattern_run_away(text: str) -> None:
    started = time.perf_counter()
    request_features(asked(text))
    assert time.perf_counter() - started < 0.5


def test_a_cap_keeps_head_and_tail() -> None:
    assert capped("abcdefgh", 4) == "abch"
    assert capped("abcd", 4) == "abcd"


def test_pairs_differ_from_the_word_they_would_make() -> None:
    together, apart = hashed([b"ab", b"cd"]), hashed([b"abcd"])
    assert not set(apart) & set(together)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=63), st.integers(1, 9))
def test_buckets_are_the_same_for_few_and_for_many(hashes: list[int], times: int) -> None:
    # Fewer than 64 are counted without arrays.
    (few, counts), (many, more) = bucketed(hashes), bucketed(hashes * 64 * times)
    assert few.tolist() == many.tolist()
    assert np.minimum(counts.astype(int) * 64 * times, 255).tolist() == more.tolist()
    assert (few.dtype, counts.dtype) == (many.dtype, more.dtype) == (np.dtype(np.int32), np.dtype(np.uint8))


def test_a_count_stops_at_255() -> None:
    assert request_features(asked("a " * 300)).counts.tolist() == [255, 255]


@given(st.text(max_size=300), st.text(max_size=20))
def test_features_survive_the_journey_to_bytes(text: str, workload: str) -> None:
    features = request_features(asked(text, workload))
    assert same(features, Features.from_bytes(features.to_bytes()))
    assert np.isfinite(features.dense).all()


def corrupted() -> dict[str, bytes]:
    good = request_features(asked("one two three")).to_bytes()
    head = struct.Struct("<2sBBHI")
    magic, layout, zero, dense, n = head.unpack_from(good)
    body = good[head.size :]
    return {
        "empty": b"",
        "short": good[: head.size - 1],
        "other magic": b"XX" + good[2:],
        "other format": head.pack(magic, layout + 1, zero, dense, n) + body,
        "truncated": good[:-1],
        "longer": good + b"\0",
        "huge count": head.pack(magic, layout, zero, dense, 2**32 - 1) + body,
        "count beyond the buckets": head.pack(magic, layout, zero, 0, BUCKETS + 1) + b"\1" * (3 * (BUCKETS + 1)),
        "not ascending": head.pack(magic, layout, zero, 0, 2) + struct.pack("<2H2B", 7, 7, 1, 1),
        "count of zero": head.pack(magic, layout, zero, 0, 1) + struct.pack("<HB", 7, 0),
        "nan": head.pack(magic, layout, zero, 1, 0) + struct.pack("<f", math.nan),
        "infinite": head.pack(magic, layout, zero, 1, 0) + struct.pack("<f", math.inf),
    }


@pytest.mark.parametrize("damage", list(corrupted()))
def test_bytes_that_were_not_written_here_are_refused(damage: str) -> None:
    with pytest.raises(ValueError, match="features"):
        Features.from_bytes(corrupted()[damage])


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_read_never_worse(blob: bytes) -> None:
    try:
        features = Features.from_bytes(blob)
    except ValueError:
        return
    assert features.to_bytes() == blob
