"""A script of what goes wrong, as a plain value: Python, JSON or TOML.

    [[rules]]
    model = "haiku"                       # a tier or a model id; any where left out
    endpoint = "/eu"                      # how the base URL's path begins; any where left out
    route = "messages"                    # or "count_tokens", "models"
    after = 10                            # the first 10 requests that the rule concerns are spared
    first = 5                             # then it works 5 times at most
    probability = 0.2
    from_s = 30.0                         # seconds since the script was put in place
    until_s = 60.0
    action = { kind = "status", status = 529, retry_after = { seconds = 2.0 } }

Rules are tried in order. A `latency` rule delays and lets the next rules be tried; any other ends the search.
Which requests a probability picks depends on the seed, the rule and the request's number, not on timing.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fallback.emulator.api_errors import STATUS_OF_TYPE
from fallback.emulator.latency import Latency as LatencyDraw
from fallback.emulator.models import MODELS, TIERS

Route = Literal["messages", "count_tokens", "models"]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class FaultScriptError(ValueError):
    """The script is wrong; the message names the field."""


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RetryAfter(_Value):
    """How long to wait, said in one of the ways servers say it. `raw` is sent as it is, sense or not."""

    seconds: float | None = None  # retry-after, as seconds
    ms: float | None = None  # retry-after-ms
    date_in_s: float | None = None  # retry-after, as an HTTP date so many seconds from now
    raw: str | None = None  # retry-after, verbatim

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.seconds, self.ms, self.date_in_s, self.raw)) != 1:
            raise ValueError("expected exactly one of seconds, ms, date_in_s, raw")
        if self.raw is not None and any(ord(char) < 32 for char in self.raw):
            raise ValueError("raw must not contain control characters")
        return self


class Status(_Value):
    """Answers with this status and the API's error body; `html` sends a proxy's page instead."""

    kind: Literal["status"]
    status: int = Field(ge=400, le=599)
    error_type: str = ""
    error_code: str = ""
    message: str = "Emulated fault."
    headers: dict[str, str] = {}
    retry_after: RetryAfter | None = None
    should_retry: bool | None = None
    html: bool = False

    @field_validator("headers")
    @classmethod
    def _plain(cls, value: dict[str, str]) -> dict[str, str]:
        if any(ord(char) < 32 for item in value.items() for text in item for char in text):
            raise ValueError("header names and values must not contain control characters")
        return value


class Hang(_Value):
    """Accepts the request and never answers."""

    kind: Literal["hang"]


class SlowHeaders(_Value):
    """Nothing at all for `delay_s`, then the normal answer."""

    kind: Literal["slow_headers"]
    delay_s: Seconds


class Trickle(_Value):
    """The headers at once, then the body in small pieces with a pause after each."""

    kind: Literal["trickle"]
    chunk_bytes: int = Field(default=16, ge=1)
    interval_s: Seconds = 1.0


class Cut(_Value):
    """Closes the connection: before the headers, in the middle of the body, or after so many stream events.

    The middle of a stream is after `after_events`, and `mid_stream` cuts a body that is no stream in its middle.
    """

    kind: Literal["cut"]
    when: Literal["before_headers", "mid_body", "mid_stream"]
    after_events: int = Field(default=3, ge=0)


class Malformed(_Value):
    """200 with a body that is no message."""

    kind: Literal["malformed"]
    body: Literal["not_json", "not_a_message", "truncated", "empty"] = "not_json"


class Refusal(_Value):
    """200 with stop reason `refusal`."""

    kind: Literal["refusal"]
    category: Literal["cyber", "bio", "frontier_llm", "reasoning_extraction", "general_harms"] | None = None


class Truncate(_Value):
    """200 with stop reason `max_tokens` after so many tokens."""

    kind: Literal["truncate"]
    max_tokens: int = Field(default=16, ge=0)


class StreamError(_Value):
    """An error event after so many events of a stream; without a stream, the status of that error."""

    kind: Literal["stream_error"]
    error_type: str = "overloaded_error"
    after_events: int = Field(default=3, ge=0)

    @field_validator("error_type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in STATUS_OF_TYPE:
            raise ValueError(f"expected one of {', '.join(STATUS_OF_TYPE)}")
        return value


class Slow(_Value):
    """An added latency in seconds: fixed, or lognormal with a median and a 99th percentile."""

    kind: Literal["latency"]
    fixed_s: Seconds | None = None
    p50_s: Seconds | None = None
    p99_s: Seconds | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        lognormal = (self.p50_s is not None) + (self.p99_s is not None)
        if (self.fixed_s is None, lognormal) not in ((False, 0), (True, 2)):
            raise ValueError("expected either fixed_s, or both p50_s and p99_s")
        self.draw_from()
        return self

    def draw_from(self) -> LatencyDraw:
        """The distribution."""
        if self.fixed_s is not None:
            return LatencyDraw.fixed(self.fixed_s)
        return LatencyDraw.lognormal(self.p50_s or 0.0, self.p99_s or 0.0)


Action = Annotated[
    Status | Hang | SlowHeaders | Trickle | Cut | Malformed | Refusal | Truncate | StreamError | Slow,
    Field(discriminator="kind"),
]


class Rule(_Value):
    """When an action happens. Counts are of the requests that `model`, `endpoint` and `route` concern."""

    name: str = ""
    model: str | None = None
    endpoint: str = ""
    route: Route = "messages"
    nth: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)] | None = None
    every: Annotated[int, Field(ge=1)] | None = None
    after: int = Field(default=0, ge=0)
    first: Annotated[int, Field(ge=0)] | None = None
    probability: float = Field(default=1.0, ge=0, le=1)
    from_s: Seconds = 0.0
    until_s: Seconds | None = None
    action: Action

    @field_validator("model")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in TIERS and value not in MODELS:
            raise ValueError(f"expected one of {', '.join([*TIERS, *MODELS])}")
        return value

    @model_validator(mode="after")
    def _window(self) -> Self:
        if self.until_s is not None and self.until_s <= self.from_s:
            raise ValueError("until_s must be above from_s")
        return self


class FaultScript(_Value):
    """The rules, in the order in which they are tried."""

    rules: Annotated[tuple[Rule, ...], Field(strict=False)] = ()

    @classmethod
    def parse(cls, value: object) -> FaultScript:
        """From a plain value: None, a list of rules, or `{"rules": [...]}`. Raises FaultScriptError."""
        if isinstance(value, FaultScript):
            return value
        if value is None:
            return cls()
        try:
            return cls.model_validate({"rules": value} if isinstance(value, (list, tuple)) else value)
        except ValidationError as error:
            raise FaultScriptError("; ".join(_explain(item) for item in error.errors()[:5])) from None

    @classmethod
    def load(cls, path: str | Path) -> FaultScript:
        """From a .toml or .json file. Raises FaultScriptError."""
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
            value: Any = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError) as error:
            raise FaultScriptError(f"{path}: {error}") from error
        try:
            return cls.parse(value)
        except FaultScriptError as error:
            raise FaultScriptError(f"{path}: {error}") from None


def _explain(item: Any) -> str:
    """`rules[0].action.status: Input should be less than or equal to 599`."""
    path = ""
    skip = False  # the discriminator's value follows `action` in the location; it is no field
    for step in item["loc"]:
        if skip and isinstance(step, str):
            skip = False
            continue
        skip = step == "action"
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    return f"{path.lstrip('.') or 'script'}: {item['msg'].removeprefix('Value error, ')}"
