"""One TOML file, refused at start where anything in it is wrong, with the path of what is.

Every default stands here and nowhere else; `docs/configuration.md` is written from it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    ValidationError,
    model_validator,
)

import fallback
from fallback.checks import Check, PaidCheck
from fallback.economics import PriceBook, PriceError, parse_price_book
from router.config_base import NAME, Section, explain
from router.config_resilience import AdmissionConfig, ResilienceConfig
from router.config_sections import (
    DriftConfig,
    EndpointConfig,
    IdempotencyConfig,
    ModelConfig,
    ServerConfig,
    StoreConfig,
    TelemetryConfig,
    TierConfig,
)
from router.config_workloads import WorkloadConfig

BUILT_IN_PRICES = Path(fallback.__file__).parent / "prices.toml"


class ConfigError(ValueError):
    """The configuration is wrong; one line for each thing, with its path and what was expected."""


_DEFAULT_TIERS = (
    TierConfig(name="haiku", model="claude-haiku-5-5", can_force_tool=True, timeout_s=60.0),
    TierConfig(name="sonnet", model="claude-sonnet-5-5", timeout_s=120.0),
    TierConfig(name="opus", model="claude-opus-5-5", timeout_s=180.0),
)


class Config(Section):
    """The whole file."""

    server: ServerConfig = ServerConfig()
    tiers: Annotated[tuple[TierConfig, ...], Field(min_length=1)] = _DEFAULT_TIERS
    endpoints: dict[str, EndpointConfig] = Field(default_factory=lambda: {"claude": EndpointConfig()})
    prices: str = ""
    workloads: dict[str, WorkloadConfig] = Field(default_factory=dict)
    store: StoreConfig = StoreConfig()
    model: ModelConfig = ModelConfig()
    drift: DriftConfig = DriftConfig()
    idempotency: IdempotencyConfig = IdempotencyConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    resilience: ResilienceConfig = ResilienceConfig()
    admission: AdmissionConfig = AdmissionConfig()

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
        for index, check in enumerate(workload.own_checks()):
            if isinstance(check, PaidCheck) and check.tier:
                path = f"workloads.{name}.checks[{index}]"
                if check.tier not in self.ladder:
                    found.append(f"{path}.tier: no tier {check.tier!r}; there are {', '.join(self.ladder)}")
                    continue
                try:
                    check.pinned(self._model_of(check.tier))
                except ValueError as error:
                    found.append(f"{path}.{error}")
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

    def checks(self, workload: WorkloadConfig) -> tuple[Check, ...]:
        """The workload's checks in order: stop reason, the free ones for all, its own; paid ones last, and pinned."""
        built = (
            check.pinned(self._model_of(check.tier)) if isinstance(check, PaidCheck) and check.tier else check
            for check in workload.build_checks()
        )
        return tuple(sorted(built, key=lambda check: check.paid))

    def _model_of(self, tier: str) -> str:
        return self.tiers[self.ladder.index(tier)].model

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
        raise ConfigError("\n".join(explain(error))) from None
    config.load_prices()
    return config
