"""Money to the cent: prices, steps, caches, bounds and the break-even line."""

from __future__ import annotations

import copy
import math
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fallback.economics import (
    PriceBook,
    PriceError,
    break_even_rate,
    most_prompt_tokens,
    parse_price_book,
    prompt_tokens,
)
from fallback.types import (
    DocumentBlock,
    ImageBlock,
    Message,
    TextBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
    Usage,
)
from router.config import BUILT_IN_PRICES
from tests.support.fakes import prices, request

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        # the vendor's list, per million tokens: in, out, cache write 5m and 1h, cache read
        ("claude-haiku-5-5", Usage(100_000), 0.01),
        ("claude-haiku-5-5", Usage(0, MILLION), 0.50),
        ("claude-haiku-5-5", Usage(0, 0, 80_000), 0.01),
        ("claude-haiku-5-5", Usage(0, 0, 0, 50_000), 0.01),
        ("claude-haiku-5-5", Usage(0, 0, 0, 0, 100_000), 0.001),
        ("claude-sonnet-5-5", Usage(MILLION), 2.0),
        ("claude-sonnet-5-5", Usage(0, MILLION), 10.0),
        ("claude-sonnet-5-5", Usage(0, 0, MILLION), 2.5),
        ("claude-sonnet-5-5", Usage(0, 0, 0, MILLION), 4.0),
        ("claude-sonnet-5-5", Usage(0, 0, 0, 0, MILLION), 0.10),
        ("claude-opus-5-5", Usage(MILLION, MILLION, MILLION, MILLION, MILLION), 4 + 20 + 5 + 8 + 0.2),
        ("claude-haiku-4-5", Usage(MILLION, MILLION), 6.0),
        ("claude-opus-5", Usage(200, 50), 0.00225),
        ("claude-sonnet-5-5", Usage(), 0.0),
        ("claude-sonnet-5-5", Usage(137, 912, 40, 7, 3_001), (274 + 9_120 + 100 + 28 + 300.1) / MILLION),
    ],
)
def test_exact_dollars(model: str, usage: Usage, usd: float) -> None:
    assert prices().cost_usd(model, usage) == pytest.approx(usd, rel=1e-12)
    assert prices().cost_usd(model, usage, multiplier=1.1) == pytest.approx(usd * 1.1, rel=1e-12)


@pytest.mark.parametrize(
    ("usage", "usd"),
    [
        (Usage(100_000, 1_000), (100_000 * 0.1 + 1_000 * 0.5) / MILLION),
        (Usage(100_001, 1_000), (100_001 * 0.5 + 1_000 * 2.5) / MILLION),
        (Usage(1, 1_000, cache_read_tokens=99_999), (0.1 + 99_999 * 0.01 + 500) / MILLION),
        (Usage(2, 1_000, cache_read_tokens=99_999), (1.0 + 99_999 * 0.05 + 2_500) / MILLION),
        (Usage(1, 0, 50_000, 50_000), (0.5 + 50_000 * 0.625 + 50_000 * 1.0) / MILLION),
    ],
)
def test_haikus_step_is_for_the_whole_call_and_counts_cached_tokens(usage: Usage, usd: float) -> None:
    assert prices().cost_usd("claude-haiku-5-5", usage) == pytest.approx(usd, rel=1e-12)


def test_the_others_have_no_step() -> None:
    assert prices().cost_usd("claude-sonnet-5-5", Usage(900_000)) == pytest.approx(1.8)


@pytest.mark.parametrize(
    "ask",
    [
        lambda book, model: book.price(model),
        lambda book, model: book.cost_usd(model, Usage()),
        lambda book, model: book.bound_usd(model, request(), 1),
        lambda book, model: book.expected_usd(model, request(), 1),
    ],
    ids=["price", "cost", "bound", "expected"],
)
def test_an_unknown_model_is_an_error_and_never_free(ask: Callable[[PriceBook, str], object]) -> None:
    with pytest.raises(PriceError, match=r"claude-haiku-9.*2026-11-12"):
        ask(prices(), "claude-haiku-9")


tokens = st.integers(0, 2_000_000)


@given(st.builds(Usage, tokens, tokens, tokens, tokens, tokens), st.sampled_from(["haiku", "sonnet", "opus"]))
def test_cost_is_never_negative_and_free_only_for_nothing(usage: Usage, name: str) -> None:
    usd = prices().cost_usd(f"claude-{name}-5-5", usage)
    assert math.isfinite(usd)
    assert (usd > 0) == (usage.prompt_tokens + usage.output_tokens > 0)


@given(st.text(max_size=300), st.integers(1, 128_000))
def test_the_bound_is_above_what_any_split_of_its_tokens_can_cost(text: str, most: int) -> None:
    asked = request(text)
    n = most_prompt_tokens(asked)
    for usage in (Usage(n, most), Usage(0, most, n), Usage(0, most, 0, n), Usage(0, most, 0, 0, n)):
        for name in ("haiku", "sonnet", "opus"):
            model = f"claude-{name}-5-5"
            assert prices().cost_usd(model, usage) <= prices().bound_usd(model, asked, most) * (1 + 1e-12)


def test_bounds_and_expectations_in_dollars() -> None:
    asked = request("x" * 400)
    assert prices().bound_usd("claude-sonnet-5-5", asked, 100) == pytest.approx((200 * 4 + 1_000) / MILLION)
    assert prices().bound_usd("claude-sonnet-5-5", asked, 100, multiplier=1.1) == pytest.approx(1_800 * 1.1 / MILLION)
    assert prices().expected_usd("claude-sonnet-5-5", asked, 50) == pytest.approx((100 * 2 + 500) / MILLION)
    long = request("x" * 500_000)
    assert prices().bound_usd("claude-haiku-5-5", long, 0) == pytest.approx(250_000 * 1.0 / MILLION), "on the step"
    assert prices().expected_usd("claude-haiku-5-5", long, 0) == pytest.approx(125_000 * 0.5 / MILLION)


def test_everything_that_is_sent_is_counted() -> None:
    plain = request("x" * 40)
    assert (prompt_tokens(plain), most_prompt_tokens(plain)) == (10, 20)
    assert most_prompt_tokens(request("語" * 40)) == 60, "a script with more tokens than characters"
    schema = {"type": "object"}
    more: dict[str, Any] = {
        "system": (TextBlock("y" * 4),),
        "tools": (Tool("t" * 4, "d" * 4, schema),),
        "output_schema": schema,
        "messages": (
            Message("user", (TextBlock("x" * 40), ImageBlock("image/png", b"1"), DocumentBlock(url="https://a"))),
            Message("assistant", (ToolUseBlock("i", "n", {"a": 1}),)),
            Message("user", (ToolResultBlock("i", (TextBlock("r" * 4), ImageBlock("image/png", b"1"))),)),
        ),
    }
    chars = 40 + 4 + 8 + 2 * len(str(schema)) + len(str({"a": 1})) + 4
    assert prompt_tokens(request(**more)) == math.ceil(chars / 4) + 3 * 1_600


@pytest.mark.parametrize(
    ("cheap", "dear", "rate"), [(1, 20, 0.95), (1, 2, 0.5), (1.5, 2, 0.25), (3, 2, 0.0), (1, 0, 0.0), (0, 1, 1.0)]
)
def test_break_even(cheap: float, dear: float, rate: float) -> None:
    assert break_even_rate(cheap, dear) == pytest.approx(rate)


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_trying_the_cheap_tier_first_pays_exactly_below_the_line(
    a: float, b: float, check_a: float, check_b: float, p: float
) -> None:
    """Every reply is checked, the first tier's and the second's: the line is of costs with their checks."""
    line = break_even_rate(a + check_a, b + check_b)
    gain = b + check_b - (a + check_a + p * (b + check_b))
    assert (gain > 1e-9) <= (p < line)
    assert (gain < -1e-9) <= (p > line or line == 0)


# --- the book --------------------------------------------------------------------------------

BOOK = tomllib.loads(BUILT_IN_PRICES.read_text(encoding="utf-8"))
FIELDS = ("input", "output", "cache_write_5m", "cache_write_1h", "cache_read", "batch_input", "batch_output")


def test_the_shipped_book() -> None:
    book = parse_price_book(BOOK)
    assert book.as_of == "2026-11-12"
    assert len(book.models) == 6
    for name in ("haiku", "sonnet", "opus"):
        price = book.price(f"claude-{name}-5-5").base
        assert price.batch_input == pytest.approx(price.input / 2)
        assert price.batch_output == pytest.approx(price.output / 2)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, 0, -1, math.nan, math.inf, "1", True, [1]])
@pytest.mark.parametrize("where", ["model", "step"])
def test_every_malformed_price_is_refused_by_model_and_field(field: str, value: Any, where: str) -> None:
    document = copy.deepcopy(BOOK)
    entry = document["model"][0] if where == "model" else document["model"][0]["step"][0]
    entry.pop(field)
    if value is not None:
        entry[field] = value
    with pytest.raises(PriceError, match=f"claude-haiku-5-5: {field} must be a positive"):
        parse_price_book(document)


@pytest.mark.parametrize("above", [None, 0, -5, 1.5, "100", True])
def test_a_step_needs_a_whole_number_of_tokens(above: Any) -> None:
    document = copy.deepcopy(BOOK)
    document["model"][0]["step"][0]["above_prompt_tokens"] = above
    with pytest.raises(PriceError, match=r"claude-haiku-5-5: step\.above_prompt_tokens"):
        parse_price_book(document)


def test_steps_apply_in_order_of_length_however_they_stand() -> None:
    document = copy.deepcopy(BOOK)
    first = document["model"][0]["step"][0]
    document["model"][0]["step"].insert(0, first | {"above_prompt_tokens": 500_000, "input": 9.0})
    price = parse_price_book(document).price("claude-haiku-5-5")
    assert [price.at(n).input for n in (100_000, 100_001, 500_000, 500_001)] == [0.1, 0.5, 0.5, 9.0]
    document["model"][0]["step"].append(first)
    with pytest.raises(PriceError, match="stands once"):
        parse_price_book(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"model": []},
        {"model": 3},
        {"model": {"id": "x"}},
        {"model": ["x"]},
        {"model": [{"id": ""}]},
        {"model": [{"id": 7}]},
        {"model": [{}]},
        {"model": [BOOK["model"][1], BOOK["model"][1]]},
        {"model": [BOOK["model"][1] | {"step": 3}]},
        {"model": [BOOK["model"][1] | {"step": [3]}]},
    ],
)
def test_a_book_that_is_none_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(PriceError):
        parse_price_book(document)
