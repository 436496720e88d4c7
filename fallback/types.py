"""The values that the chain speaks in. All frozen; nothing here does I/O.

Text, tool inputs and schemas live only in these values and in the provider: they never reach an
exception, a log line, a span or a metric, which is why no class here prints its content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from fallback.errors import Failure

CacheMark = Literal["5m", "1h"]
Role = Literal["user", "assistant"]
JsonObject = Mapping[str, Any]


# --- what the caller sends -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Plain text; `cache` marks the end of a prompt prefix to cache upstream."""

    text: str = field(repr=False)
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ImageBlock:
    """An image, either inline (`data` with its `media_type`) or by `url`."""

    media_type: str = ""
    data: bytes = field(default=b"", repr=False)
    url: str = field(default="", repr=False)
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class DocumentBlock:
    """A document: PDF bytes, plain text (`media_type` text/plain) or a `url`."""

    media_type: str = ""
    data: bytes = field(default=b"", repr=False)
    url: str = field(default="", repr=False)
    title: str = field(default="", repr=False)
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolUseBlock:
    """The assistant asks for a tool call."""

    id: str
    name: str
    input: JsonObject = field(repr=False)
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolResultBlock:
    """The caller's answer to a tool call."""

    tool_use_id: str
    content: tuple[TextBlock | ImageBlock, ...] = field(repr=False)
    is_error: bool = False
    cache: CacheMark | None = None


ContentBlock = TextBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock
ReplyBlock = TextBlock | ToolUseBlock


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation."""

    role: Role
    content: tuple[ContentBlock, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the tier may call; `input_schema` is a JSON schema of type object."""

    name: str
    description: str = field(repr=False)
    input_schema: JsonObject = field(repr=False)
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """How tools are chosen; `name` only with kind `tool`."""

    kind: Literal["auto", "any", "tool", "none"] = "auto"
    name: str = ""


Effort = Literal["low", "medium", "high", "xhigh", "max"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, independent of the tier that will answer it.

    `max_tokens_ceiling` is how far a truncated reply's limit may be raised on the same tier before
    a dearer one is asked; equal to `max_tokens` when the caller gave no room.
    """

    workload: str
    messages: tuple[Message, ...]
    max_tokens: int
    max_tokens_ceiling: int
    system: tuple[TextBlock, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    stop_sequences: tuple[str, ...] = ()
    output_schema: JsonObject | None = field(default=None, repr=False)
    effort: Effort | None = None

    def texts(self) -> list[str]:
        """All texts of the request in reading order: system, then the turns, tool results included."""
        found = [block.text for block in self.system]
        for message in self.messages:
            for block in message.content:
                match block:
                    case TextBlock():
                        found.append(block.text)
                    case ToolResultBlock():
                        found.extend(part.text for part in block.content if isinstance(part, TextBlock))
                    case DocumentBlock(media_type="text/plain"):
                        found.append(block.data.decode("utf-8", "replace"))
                    case _:
                        pass
        return found


# --- what a tier sends back ------------------------------------------------------------------


class StopReason(StrEnum):
    """Why a tier stopped; the upstream API's own words."""

    END_TURN = "end_turn"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"
    TOOL_USE = "tool_use"
    PAUSE_TURN = "pause_turn"
    REFUSAL = "refusal"
    CONTEXT_EXCEEDED = "model_context_window_exceeded"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as billed. `input_tokens` is the uncached part only; thinking is inside `output_tokens`."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_read_tokens: int = 0

    @property
    def prompt_tokens(self) -> int:
        """The whole prompt: uncached, written to the cache and read from it."""
        return self.input_tokens + self.cache_write_5m_tokens + self.cache_write_1h_tokens + self.cache_read_tokens


@dataclass(frozen=True, slots=True)
class Headroom:
    """What is left of the scarcest of the endpoint's rate limits for the tier, as a share of it.

    `resets_in_s`: seconds until that limit is whole again.
    """

    share: float
    resets_in_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A tier's answer. A refusal is a Reply too: it is HTTP 200 and it is billed.

    `headroom` is what its headers said of the rate limits; None where they said nothing.
    """

    content: tuple[ReplyBlock, ...] = field(repr=False)
    stop_reason: StopReason
    usage: Usage
    model: str
    upstream_id: str = ""
    headroom: Headroom | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """The text blocks, joined."""
        return "".join(block.text for block in self.content if isinstance(block, TextBlock))

    @property
    def tool_uses(self) -> tuple[ToolUseBlock, ...]:
        """The tool calls, in order."""
        return tuple(block for block in self.content if isinstance(block, ToolUseBlock))


# --- verdicts --------------------------------------------------------------------------------


class Remedy(StrEnum):
    """What would help after a Reject."""

    ESCALATE = "escalate"
    RAISE_LIMIT = "raise_limit"  # truncated: not a lack of ability
    HAND_BACK = "hand_back"  # no tier would do better, by the workload's policy


@dataclass(frozen=True, slots=True)
class Accept:
    """The reply is good enough for this check."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The reply is not good enough. `reason` is a short code with no text of the reply in it.

    `otherwise` is what is done when the remedy is not open: the limit cannot be raised further, say.
    `to` names the tier to escalate to, where the check knows that those between would not pay; with
    HAND_BACK, the earlier tier whose reply is accepted instead.
    """

    reason: str
    remedy: Remedy = Remedy.ESCALATE
    otherwise: Remedy = Remedy.ESCALATE
    to: str = ""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """The check could not tell, for an operational cause. Never a Reject."""

    cause: str


Verdict = Accept | Reject | Unjudged


@dataclass(frozen=True, slots=True)
class CheckReport:
    """One check's verdict about one reply, with what it cost to know.

    `calls` are the upstream calls that it made. `overruled`: a paid check said otherwise later, and that counts.
    """

    check: str
    version: str
    verdict: Verdict
    score: float | None = None
    cost_usd: float = 0.0
    started_s: float = 0.0
    duration_s: float = 0.0
    calls: int = 0
    overruled: bool = False


def rejection_of(reports: Iterable[CheckReport]) -> Reject | None:
    """The Reject that counts: the first that no later check overruled."""
    for report in reports:
        if isinstance(report.verdict, Reject) and not report.overruled:
            return report.verdict
    return None


# --- attempts --------------------------------------------------------------------------------


class Purpose(StrEnum):
    """Why an attempt was made.

    Retry and failover follow a Failure; escalation and longer a Verdict; a hedge a reply that is late.
    """

    FIRST = "first"
    RETRY = "retry"
    FAILOVER = "failover"
    ESCALATION = "escalation"
    LONGER = "longer"
    HEDGE = "hedge"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One upstream call: one HTTP request, ended in a Reply or a Failure.

    `started_s` counts from the start of the request on the monotonic clock. `cost_usd` is what the
    attempt cost, used or wasted.
    """

    tier: str
    model: str
    endpoint: str
    purpose: Purpose
    result: Reply | Failure
    started_s: float
    duration_s: float
    cost_usd: float = 0.0
    checks: tuple[CheckReport, ...] = ()

    @property
    def rejection(self) -> Reject | None:
        """The Reject that counts, if any."""
        return rejection_of(self.checks)

    @property
    def checks_usd(self) -> float:
        """What judging the reply cost."""
        return sum(report.cost_usd for report in self.checks)

    @property
    def checks_s(self) -> float:
        """How long judging the reply took."""
        return sum(report.duration_s for report in self.checks)

    @property
    def accepted(self) -> bool:
        """A reply that every check let pass."""
        return isinstance(self.result, Reply) and self.rejection is None


@dataclass(frozen=True, slots=True)
class Tier:
    """A rung of the ladder.

    `min_time_s`: no attempt starts with less time left. `timeout_s`: one attempt's own limit.
    `can_force_tool`: whether its API takes a forced tool choice (with thinking off) or answers 400.
    """

    name: str
    model: str
    endpoints: tuple[str, ...]
    max_output_tokens: int
    max_input_tokens: int
    min_time_s: float
    timeout_s: float
    can_force_tool: bool
