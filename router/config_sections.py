"""The sections of the configuration file: fields, defaults and what each refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from fallback.checks import Check
from fallback.checks.stop_reason import Policy
from fallback.checks.verifier import VerifierCheck
from fallback.providers.anthropic_api import Platform
from router.certificate import Promise
from router.parts import ALWAYS, CHECKS, StopReasonCheck
from router.sequential import DriftSettings

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# Strict: a number in quotes, or true where a number belongs, is a mistake and not a number.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]
Share = Annotated[Number, Field(ge=0, le=1)]
Usd = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Field(strict=True, gt=0, le=1 << 40)]
Flag = Annotated[bool, Field(strict=True)]


def _host_and_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError("must be host:port, such as 127.0.0.1:50051")
    return value


def _host_and_port_or_off(value: str) -> str:
    return value and _host_and_port(value)


_SQLITE = "sqlite:///"
_SMALLEST_JOURNAL = 1 << 20


def _store_url(value: str) -> str:
    if not re.match(r"sqlite:///[^?]|postgresql://[^/]*/[^?]", value):
        raise ValueError("must be sqlite:///folder/file.db or postgresql://user@host/database")
    return value


class Section(BaseModel):
    """A table of the file: nothing unknown in it, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(Section):
    """The gRPC side. `listen` port 0 picks a free one. Text limits bound the work before it starts."""

    listen: Annotated[str, AfterValidator(_host_and_port)] = "127.0.0.1:50051"
    reflection: Flag = True
    max_message_bytes: Count = 4 << 20
    max_text_chars: Count = 2_000_000
    max_in_flight: Count = 512
    grace_s: Seconds = 30.0
    drain_s: Annotated[Number, Field(ge=0, le=3_600)] = 0.0
    unknown_workloads: Literal["default", "refuse"] = "default"
    max_workloads: Count = 1_000


class TierConfig(Section):
    """A rung of the ladder; the order in the file is the cost order."""

    name: str
    model: str
    endpoints: Annotated[tuple[str, ...], Field(min_length=1)] = ("claude",)
    max_output_tokens: Count = 128_000
    max_input_tokens: Count = 1_000_000
    min_time_s: Seconds = 0.5
    timeout_s: Seconds = 120.0
    can_force_tool: Flag = False

    @model_validator(mode="after")
    def _can_start(self) -> Self:
        if self.min_time_s > self.timeout_s:
            raise ValueError("min_time_s must not exceed timeout_s")
        return self


class EndpointConfig(Section):
    """A road to tiers. The key is read from the environment variable named here, never from the file."""

    platform: Platform = "anthropic"
    api_key_env: str = "ANTHROPIC_API_KEY"
    base_url: str = ""
    region: str = ""
    project: str = ""
    resource: str = ""
    budget: str = ""
    models: dict[str, str] = Field(default_factory=dict)
    price_multiplier: Annotated[Number, Field(gt=0, le=10)] = 1.0

    @model_validator(mode="after")
    def _what_the_platform_needs(self) -> Self:
        if self.platform in ("bedrock", "vertex") and not self.region:
            raise ValueError(f"region is required with platform {self.platform}")
        if self.platform == "vertex" and not self.project:
            raise ValueError("project is required with platform vertex")
        if self.platform == "foundry" and not (self.resource or self.base_url):
            raise ValueError("resource or base_url is required with platform foundry")
        if self.base_url and not re.match(r"https?://[^/\s]", self.base_url):
            raise ValueError("base_url must begin with http:// or https://")
        return self


class AuditVerifierConfig(Section):
    """A function that knows the truth of a reply: what the checks leave open, such as running the tests."""

    entry_point: str
    timeout_s: Seconds = 10.0

    @model_validator(mode="after")
    def _can_be_called(self) -> Self:
        self.build()
        return self

    def build(self) -> VerifierCheck:
        """For audits."""
        return VerifierCheck(self.entry_point, self.timeout_s)


class WorkloadConfig(Section):
    """The policy of one workload.

    `start_tier` is the static plan's, used until a model or the workload's own escalations say
    better. `explore` is the share of requests on which another start tier is tried on purpose.
    `direct_threshold` is the P(good) from which a tier is asked without paid checks. `quality_target` is
    the share of the best tier's quality to keep: the model brings what a mistake must be taken to cost
    for it, unless `mistake_cost_usd` says what a bad reply really costs this workload. `hopeless` is what a
    rejected reply leads to where no higher tier is likely enough to do better for its price. `false_accept_max`
    is the share of bad replies among the accepted that the workload allows, kept with probability
    `false_accept_confidence` where there is evidence (`router.certificate`). `audit_share` of
    the accepted replies are answered again by the next tier, off the caller's path, for at most `audit_usd_per_day`.
    None by default: nobody's money is spent, and nobody's prompt sent to a dearer tier, without being asked.
    `hedge_after`: after how many seconds, or which measured percentile, a second attempt goes beside a late one.
    `latency_p95_s` bounds the 95th percentile of a request's time: plans that would break it are taken only where
    none fits. `second_cost_usd` is what a second of the caller's time is worth.
    """

    start_tier: str = ""
    lowest_tier: str = ""
    highest_tier: str = ""
    deadline_s: Seconds = 120.0
    cost_cap_usd: Usd | None = None
    explore: Share = 0.02
    direct_threshold: Share = 0.9
    quality_target: Annotated[float, Field(ge=0.5, le=1, allow_inf_nan=False)] = 0.99
    mistake_cost_usd: Usd | None = None
    false_accept_max: Annotated[Number, Field(ge=0.001, le=0.5)] | None = None
    false_accept_confidence: Annotated[Number, Field(ge=0.5, le=0.999)] = 0.95
    latency_p95_s: Seconds | None = None
    second_cost_usd: Annotated[Number, Field(ge=0)] = 0.0
    truncated: Policy = "escalate"
    refused: Policy = "hand_back"
    unjudged: Literal["accept", "escalate", "hand_back"] = "accept"
    hopeless: Literal["hand_back", "escalate"] = "hand_back"
    failover_up: Flag = True
    failover_down: Flag = False
    priority: Literal["low", "normal", "high"] = "normal"
    hedge_after: Seconds | Literal["p95"] | None = None
    retention_days: Annotated[Number, Field(ge=0, le=365)] = 0.0
    audit_share: Share = 0.0
    audit_usd_per_day: Usd = 5.0
    audit_verifier: AuditVerifierConfig | None = None
    checks: tuple[dict[str, Any], ...] = ()

    @property
    def promise(self) -> Promise:
        """What is promised of accepted replies."""
        return Promise(self.false_accept_max, self.false_accept_confidence, self.mistake_cost_usd)

    @field_validator("checks")
    @classmethod
    def _buildable(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for index, table in enumerate(value):
            _build_check(index, table)
        return value

    def build_checks(self) -> tuple[Check, ...]:
        """The checks of this workload in order: stop reason, the free ones for all, then its own."""
        return (StopReasonCheck(self.truncated, self.refused), *ALWAYS, *self.own_checks())

    def own_checks(self) -> tuple[Check, ...]:
        """Those that its own section names, as they stand there."""
        return tuple(_build_check(index, table) for index, table in enumerate(self.checks))

    def build_audit_verifier(self) -> VerifierCheck | None:
        """What audits judge by, where the workload names it."""
        return self.audit_verifier.build() if self.audit_verifier else None


class StoreConfig(Section):
    """Where outcomes go. `max_wait_s` bounds how long a reply waits for its outcome to be durable.

    `linger_s`: under load, how long a commit waits for company. `patience_s`: how long a commit may take before its
    outcomes go to the `journal`, a folder, instead; they reach the store when it is back.
    """

    url: Annotated[str, AfterValidator(_store_url)] = "sqlite:///var/outcomes.db"
    max_wait_s: Seconds = 2.0
    linger_s: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    patience_s: Seconds = 0.25
    journal: str = ""
    journal_max_bytes: Annotated[int, Field(strict=True, ge=0, le=1 << 40)] = 256 << 20
    journal_sync: Flag = False
    feedback_window_s: Annotated[Number, Field(gt=0)] = 30 * 86_400.0

    @model_validator(mode="after")
    def _can_wait(self) -> Self:
        if self.journal_max_bytes and self.patience_s >= self.max_wait_s:
            raise ValueError("patience_s must be less than max_wait_s: a reply waits for the journal after the store")
        if 0 < self.journal_max_bytes < _SMALLEST_JOURNAL:
            raise ValueError("journal_max_bytes must be 0 (no journal) or at least 1 MiB (1,048,576)")
        return self

    @property
    def journal_folder(self) -> Path | None:
        """The journal's folder: beside a SQLite file where none is named; None without a journal."""
        if not self.journal_max_bytes:
            return None
        if self.journal:
            return Path(self.journal)
        if self.url.startswith(_SQLITE):
            return Path(self.url.removeprefix(_SQLITE).partition("?")[0]).with_suffix(".journal")
        return Path("var/journal")


class ModelConfig(Section):
    """Where the nightly run publishes models, and how often the service looks."""

    directory: str = "var/models"
    poll_s: Seconds = 2.0
    text_cap_chars: Count = 8_000


class DriftConfig(Section):
    """When a tier counts as worse than its model believes; see `router.drift`.

    `false_alarm_every`: observations of one stream between false alarms, on average at least. A rise by the share
    `tolerance` is none.
    """

    false_alarm_every: Annotated[Number, Field(ge=100, le=1e9)] = 100_000.0
    tolerance: Annotated[Number, Field(ge=0, le=5)] = 0.2

    def settings(self) -> DriftSettings:
        """For the tests."""
        return DriftSettings(self.false_alarm_every, self.tolerance)


class IdempotencyConfig(Section):
    """How long and how many first replies are kept in memory for repeated keys."""

    window_s: Seconds = 600.0
    max_entries: Count = 10_000
    max_bytes: Count = 64 << 20


class TelemetryConfig(Section):
    """OTLP endpoint (else the standard OTEL_ variables; neither: off) and the Prometheus page.

    What is left out of protocol, service name and sampling follows the OTEL_ variables too.
    """

    otlp_endpoint: str = ""
    otlp_protocol: Literal["grpc", "http/protobuf"] | None = None
    service_name: str = ""
    sample_ratio: Share | None = None
    prometheus_listen: Annotated[str, AfterValidator(_host_and_port_or_off)] = ""
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def _build_check(index: int, table: dict[str, Any]) -> Check:
    name = table.get("check")
    if not isinstance(name, str) or name not in CHECKS:
        raise ValueError(f"[{index}].check: expected one of {', '.join(sorted(CHECKS))}, got {name!r}")
    fields = {key: value for key, value in table.items() if key != "check"}
    factory = CHECKS[name]
    known = set(getattr(factory, "__dataclass_fields__", ()))
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"[{index}].{unknown[0]}: check {name} has no such setting")
    try:
        check: Check = TypeAdapter(factory).validate_python(fields)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ValueError("; ".join(f"[{index}].{line}" for line in explain(error))) from None
    return check


def explain(error: ValidationError) -> list[str]:
    """One line for each thing that is wrong: its path, what was expected, and what was there unless secret."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"]) or "config"
        value = problem.get("input")
        shown = f", got {value!r}" if isinstance(value, str | int | float) and not _secret(path) else ""
        lines.append(f"{path}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    return lines


def _secret(path: str) -> bool:
    return any(word in path for word in ("key", "token", "url", "secret", "password", "credential", "auth"))
