"""Money: the price book, what an attempt cost, and what it may cost. Pure.

All money is in US dollars; prices are in US dollars per million tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fallback.types import DocumentBlock, ImageBlock, Request, ToolResultBlock, ToolUseBlock, Usage

_MTOK = 1_000_000
# A text of n UTF-8 bytes is at most about n/2 tokens in any script, and one of n characters about n/4
# in English. The first bounds a cost cap, the second predicts a cost.
_BYTES_PER_TOKEN_BOUND = 2.0
_CHARS_PER_TOKEN_TYPICAL = 4.0
_TOKENS_PER_ATTACHMENT = 1_600  # a full-size image; a document page costs about the same


class PriceError(ValueError):
    """The price book is incomplete or wrong; the message names the model and field."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float
    cache_write_5m: float
    cache_write_1h: float
    cache_read: float
    batch_input: float
    batch_output: float


@dataclass(frozen=True, slots=True)
class ModelPrice:
    """A model's price, with the steps that apply to the whole call above a prompt length."""

    base: Price
    steps: tuple[tuple[int, Price], ...] = ()

    def at(self, prompt_tokens: int) -> Price:
        """The price of a call whose prompt, cached parts included, has `prompt_tokens`."""
        chosen = self.base
        for above, price in self.steps:
            if prompt_tokens > above:
                chosen = price
        return chosen


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Prices by model id. A model that is not in it is an error, never free."""

    as_of: str
    models: Mapping[str, ModelPrice]

    def price(self, model: str) -> ModelPrice:
        """The model's price; PriceError when unknown."""
        try:
            return self.models[model]
        except KeyError:
            raise PriceError(f"no price for model {model!r} in the price book of {self.as_of}") from None

    def cost_usd(self, model: str, usage: Usage, *, multiplier: float = 1.0) -> float:
        """What a call cost by its returned usage; `multiplier` is the endpoint's surcharge."""
        price = self.price(model).at(usage.prompt_tokens)
        micro = (
            usage.input_tokens * price.input
            + usage.output_tokens * price.output
            + usage.cache_write_5m_tokens * price.cache_write_5m
            + usage.cache_write_1h_tokens * price.cache_write_1h
            + usage.cache_read_tokens * price.cache_read
        )
        return micro / _MTOK * multiplier

    def bound_usd(self, model: str, request: Request, max_tokens: int, *, multiplier: float = 1.0) -> float:
        """The most that one attempt may cost: a cautious prompt length and every output token used."""
        prompt = most_prompt_tokens(request)
        price = self.price(model).at(prompt)
        dearest_input = max(price.input, price.cache_write_5m, price.cache_write_1h)
        return (prompt * dearest_input + max_tokens * price.output) / _MTOK * multiplier

    def expected_usd(self, model: str, request: Request, output_tokens: float) -> float:
        """What one attempt will probably cost, before anything has been measured for its workload."""
        prompt = prompt_tokens(request)
        price = self.price(model).at(prompt)
        return (prompt * price.input + output_tokens * price.output) / _MTOK


def prompt_tokens(request: Request) -> int:
    """Estimated prompt length in tokens; the SDK has no offline tokenizer."""
    chars = sum(map(len, _counted(request)))
    return math.ceil(chars / _CHARS_PER_TOKEN_TYPICAL) + _attachments(request) * _TOKENS_PER_ATTACHMENT


def most_prompt_tokens(request: Request) -> int:
    """A cautious prompt length in tokens."""
    size = sum(len(text) if text.isascii() else len(text.encode("utf-8", "replace")) for text in _counted(request))
    return math.ceil(size / _BYTES_PER_TOKEN_BOUND) + _attachments(request) * _TOKENS_PER_ATTACHMENT


def _counted(request: Request) -> Iterator[str]:
    yield from request.texts()
    for tool in request.tools:
        yield from (tool.name, tool.description, str(tool.input_schema))
    if request.output_schema is not None:
        yield str(request.output_schema)
    for message in request.messages:
        yield from (str(block.input) for block in message.content if isinstance(block, ToolUseBlock))


def _attachments(request: Request) -> int:
    blocks = [block for message in request.messages for block in message.content]
    inner = [part for block in blocks if isinstance(block, ToolResultBlock) for part in block.content]
    return sum(isinstance(block, ImageBlock | DocumentBlock) for block in (*blocks, *inner))


def break_even_rate(cheap_usd: float, dear_usd: float) -> float:
    """The escalation rate above which trying the cheap tier first costs more than starting higher.

    Both costs are of a reply with its checks. Trying tier i before j costs cᵢ + P(escalate)·cⱼ against cⱼ, so it
    pays iff P < 1 − cᵢ/cⱼ.
    """
    return max(0.0, 1.0 - cheap_usd / dear_usd) if dear_usd > 0 else 0.0


def parse_price_book(document: Mapping[str, Any]) -> PriceBook:
    """A PriceBook from parsed TOML; PriceError names what is missing or not a positive number."""
    models: dict[str, ModelPrice] = {}
    for entry in _tables(document, "model", "price book"):
        model = entry.get("id")
        if not isinstance(model, str) or not model or model in models:
            raise PriceError(f"price book: model id {model!r} is missing or stands twice")
        steps: dict[int, Price] = {}
        for step in _tables(entry, "step", f"price book: {model}"):
            above = step.get("above_prompt_tokens")
            if isinstance(above, bool) or not isinstance(above, int) or above <= 0 or above in steps:
                raise PriceError(
                    f"price book: {model}: step.above_prompt_tokens must be a positive whole number that stands once"
                )
            steps[above] = _price(model, step)
        models[model] = ModelPrice(_price(model, entry), tuple(sorted(steps.items(), key=lambda step: step[0])))
    if not models:
        raise PriceError("price book: no [[model]] in it")
    return PriceBook(as_of=str(document.get("as_of", "undated")), models=models)


def _tables(document: Mapping[str, Any], name: str, where: str) -> list[Mapping[str, Any]]:
    tables = document.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise PriceError(f"{where}: {name} must be tables, [[{name}]]")
    return tables


def _price(model: str, entry: Mapping[str, Any]) -> Price:
    numbers: dict[str, float] = {}
    for name in Price.__slots__:
        number = entry.get(name)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 < number < math.inf:
            raise PriceError(f"price book: {model}: {name} must be a positive number of US dollars per million tokens")
        numbers[name] = float(number)
    return Price(**numbers)
