"""The sections of the configuration file, workloads and resilience apart: fields, defaults and what each refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from fallback.providers.anthropic_api import Platform
from router.config_base import Count, Flag, Number, Seconds, Section, Share
from router.sequential import DriftSettings


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


class StoreConfig(Section):
    """Where outcomes go. `max_wait_s` bounds how long a reply waits for its outcome to be durable.

    `linger_s`: under load, how long a commit waits for company. `patience_s`: how long a commit may take before its
    outcomes go to the `journal`, a folder, instead; they reach the store when it is back. `settle_s`: for how long
    after a request its outcome may be in another replica's journal, so that nobody can call its id unknown.
    """

    url: Annotated[str, AfterValidator(_store_url)] = "sqlite:///var/outcomes.db"
    max_wait_s: Seconds = 2.0
    linger_s: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.01
    patience_s: Seconds = 0.25
    journal: str = ""
    journal_max_bytes: Annotated[int, Field(strict=True, ge=0, le=1 << 40)] = 256 << 20
    journal_sync: Flag = False
    feedback_window_s: Annotated[Number, Field(gt=0)] = 30 * 86_400.0
    settle_s: Annotated[Number, Field(ge=0)] = 600.0

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
