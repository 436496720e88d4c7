"""One TOML file, refused at start where anything in it is wrong, with the path of what is.

Every default stands here and nowhere else; `docs/configuration.md` is written from it.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
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

import fallback
from fallback.breaker import BreakerSettings
from fallback.checks import Check
from fallback.checks.stop_reason import Policy
from fallback.economics import PriceBook, PriceError, parse_price_book
from fallback.guards import GuardSettings
from fallback.providers.anthropic_api import Platform
from fallback.recovery import RecoverySettings
from router.parts import ALWAYS, CHECKS, StopReasonCheck

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
BUILT_IN_PRICES = Path(fallback.__file__).parent / "prices.toml"

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


class ConfigError(ValueError):
    """The configuration is wrong; one line for each thing, with its path and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerConfig(_Section):
    """The gRPC side. `listen` port 0 picks a free one. Text limits bound the work before it starts."""

    listen: Annotated[str, AfterValidator(_host_and_port)] = "127.0.0.1:50051"
    reflection: Flag = True
    max_message_bytes: Count = 4 << 20
    max_text_chars: Count = 2_000_000
    max_in_flight: Count = 512
    grace_s: Seconds = 30.0
    unknown_workloads: Literal["default", "refuse"] = "default"
    max_workloads: Count = 1_000


class TierConfig(_Section):
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


class EndpointConfig(_Section):
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


class WorkloadConfig(_Section):
    """The policy of one workload.

    `start_tier` is the static plan's, used until a model or the workload's own escalations say
    better. `explore` is the share of requests on which another start tier is tried on purpose.
    `direct_threshold` is the P(good) from which a tier is asked without paid checks. `quality_target` is
    the share of the best tier's quality to keep: the model brings what a mistake must be taken to cost
    for it, unless `mistake_cost_usd` says what a bad reply really costs this workload.
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
    truncated: Policy = "escalate"
    refused: Policy = "hand_back"
    unjudged: Literal["accept", "escalate", "hand_back"] = "accept"
    failover_up: Flag = True
    failover_down: Flag = False
    retention_days: Annotated[Number, Field(ge=0, le=365)] = 0.0
    checks: tuple[dict[str, Any], ...] = ()

    @field_validator("checks")
    @classmethod
    def _buildable(cls, value: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        for index, table in enumerate(value):
            _build_check(index, table)
        return value

    def build_checks(self) -> tuple[Check, ...]:
        """The checks of this workload in order: stop reason, the free ones for all, then its own."""
        own = tuple(_build_check(index, table) for index, table in enumerate(self.checks))
        return (StopReasonCheck(self.truncated, self.refused), *ALWAYS, *own)


class StoreConfig(_Section):
    """Where outcomes go. `max_wait_s` bounds how long a reply waits for its outcome to be durable.

    `linger_s`: under load, how long a commit waits for company.
    """

    url: str = "sqlite:///var/outcomes.db"
    max_wait_s: Seconds = 2.0
    linger_s: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    feedback_window_s: Annotated[Number, Field(gt=0)] = 30 * 86_400.0


class ModelConfig(_Section):
    """Where the nightly run publishes models, and how often the service looks."""

    directory: str = "var/models"
    poll_s: Seconds = 2.0
    text_cap_chars: Count = 8_000


class IdempotencyConfig(_Section):
    """How long and how many first replies are kept in memory for repeated keys."""

    window_s: Seconds = 600.0
    max_entries: Count = 10_000
    max_bytes: Count = 64 << 20


class TelemetryConfig(_Section):
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


class ResilienceConfig(_Section):
    """Retry budget (gRPC A6), attempts, backoff and breakers; see docs/architecture.md."""

    attempts_per_tier: Annotated[int, Field(strict=True, ge=1, le=5)] = 3
    backoff_base_s: Seconds = 0.2
    backoff_cap_s: Seconds = 5.0
    budget_tokens: Annotated[Number, Field(gt=0, le=10_000)] = 100.0
    budget_ratio: Annotated[Number, Field(gt=0, le=1)] = 0.25
    breaker_failures: Count = 10
    breaker_window: Count = 20
    breaker_open_s: Seconds = 30.0

    @model_validator(mode="after")
    def _can_open(self) -> Self:
        if self.breaker_failures > self.breaker_window:
            raise ValueError("breaker_failures must not exceed breaker_window")
        if self.backoff_base_s > self.backoff_cap_s:
            raise ValueError("backoff_base_s must not exceed backoff_cap_s")
        return self

    def recovery(self) -> RecoverySettings:
        """For the chain."""
        return RecoverySettings(self.attempts_per_tier, self.backoff_base_s, self.backoff_cap_s)

    def guards(self) -> GuardSettings:
        """For the budgets and breakers."""
        own = BreakerSettings(self.breaker_failures, self.breaker_window, self.breaker_open_s)
        settings = GuardSettings(self.budget_tokens, self.budget_ratio, endpoint=own)
        return replace(settings, provider=replace(settings.provider, open_s=self.breaker_open_s))


_DEFAULT_TIERS = (
    TierConfig(name="haiku", model="claude-haiku-5-5", can_force_tool=True, timeout_s=60.0),
    TierConfig(name="sonnet", model="claude-sonnet-5-5", timeout_s=120.0),
    TierConfig(name="opus", model="claude-opus-5-5", timeout_s=180.0),
)


class Config(_Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    tiers: Annotated[tuple[TierConfig, ...], Field(min_length=1)] = _DEFAULT_TIERS
    endpoints: dict[str, EndpointConfig] = Field(default_factory=lambda: {"claude": EndpointConfig()})
    prices: str = ""
    workloads: dict[str, WorkloadConfig] = Field(default_factory=dict)
    store: StoreConfig = StoreConfig()
    model: ModelConfig = ModelConfig()
    idempotency: IdempotencyConfig = IdempotencyConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    resilience: ResilienceConfig = ResilienceConfig()

    @property
    def ladder(self) -> tuple[str, ...]:
        """Tier names, cheapest first."""
        return tuple(tier.name for tier in self.tiers)

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        problems = [
            *(f"tiers: {name!r} stands twice" for name in self.ladder if self.ladder.count(name) > 1),
            *(f"tiers: name {name!r} must be of [a-z0-9._-]" for name in self.ladder if not NAME.fullmatch(name)),
        ]
        for tier in self.tiers:
            problems += [
                f"tiers.{tier.name}.endpoints: no endpoint {name!r}"
                for name in tier.endpoints
                if name not in self.endpoints
            ]
        for name, endpoint in self.endpoints.items():
            if not NAME.fullmatch(name):
                problems.append(f"endpoints: name {name!r} must be 1 to 64 of [a-z0-9._-]")
            problems += [
                f"endpoints.{name}.models: no tier {tier!r}" for tier in endpoint.models if tier not in self.ladder
            ]
        for name, workload in self.workloads.items():
            problems += self._workload_problems(name, workload)
        if problems:
            raise ValueError("; ".join(dict.fromkeys(problems)))
        return self

    def _workload_problems(self, name: str, workload: WorkloadConfig) -> list[str]:
        found = [] if NAME.fullmatch(name) else [f"workloads: name {name!r} must be 1 to 64 of [a-z0-9._-]"]
        for field in ("start_tier", "lowest_tier", "highest_tier"):
            value = getattr(workload, field)
            if value and value not in self.ladder:
                found.append(f"workloads.{name}.{field}: no tier {value!r}; there are {', '.join(self.ladder)}")
        if not found:
            rungs = [self.ladder.index(tier) for tier in self.allowed(workload)]
            if not rungs:
                found.append(f"workloads.{name}: lowest_tier is above highest_tier")
            elif workload.start_tier and self.ladder.index(workload.start_tier) not in rungs:
                found.append(f"workloads.{name}.start_tier: outside lowest_tier to highest_tier")
        return found

    def allowed(self, workload: WorkloadConfig) -> tuple[str, ...]:
        """The tiers between the workload's lowest and highest, cheapest first."""
        low = self.ladder.index(workload.lowest_tier) if workload.lowest_tier else 0
        high = self.ladder.index(workload.highest_tier) if workload.highest_tier else len(self.ladder) - 1
        return self.ladder[low : high + 1]

    def workload(self, name: str) -> WorkloadConfig:
        """The policy of a workload: its own, else that of `default`."""
        return self.workloads.get(name) or self.workloads.get("default") or WorkloadConfig()

    def load_prices(self) -> PriceBook:
        """The price book, with every tier in it; ConfigError otherwise."""
        path = Path(self.prices) if self.prices else BUILT_IN_PRICES
        try:
            book = parse_price_book(tomllib.loads(path.read_text(encoding="utf-8")))
            for tier in self.tiers:
                book.price(tier.model)
        except OSError as error:
            raise ConfigError(f"prices: cannot read {path}: {error.strerror}") from None
        except (PriceError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"prices: {error}") from None
        return book


def load_config(path: str | Path | None) -> Config:
    """The configuration in a file, or the defaults; ConfigError names every wrong path at once."""
    if path is None:
        document: dict[str, Any] = {}
    else:
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: is not TOML: {error}") from None
    try:
        config = Config.model_validate(document)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(error))) from None
    config.load_prices()
    return config


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
        raise ValueError("; ".join(f"[{index}].{line}" for line in _explain(error))) from None
    return check


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"]) or "config"
        value = problem.get("input")
        shown = f", got {value!r}" if isinstance(value, str | int | float) and not _secret(path) else ""
        lines.append(f"{path}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    return lines


def _secret(path: str) -> bool:
    return any(word in path for word in ("key", "token", "url", "secret", "password", "credential", "auth"))
