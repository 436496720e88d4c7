"""From a configuration to a Generation: providers, chain, policies. Nothing here listens or waits."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import replace

from fallback.chain import Chain
from fallback.clock import Clock
from fallback.economics import PriceBook
from fallback.guards import Guards
from fallback.providers import Endpoint
from fallback.providers.anthropic_api import AnthropicProvider, make_provider
from fallback.recovery import RecoverySettings
from fallback.resilience import Resilience
from fallback.types import Tier
from router.audit.examination import Bench
from router.completer import Completer
from router.config import Config, ConfigError
from router.config_sections import EndpointConfig, StoreConfig
from router.drift import Drift
from router.experience import Experience
from router.generation import Generation
from router.journal import Journal
from router.outcome import RequestIds
from router.pacing import Paced, Pacing
from router.policy import Policy
from router.recorder import Recorder
from router.scoring import RouterModel
from router.store import Store
from router.telemetry import Settings

# `gen_ai.provider.name` by platform, in the words of the GenAI conventions.
_PROVIDER_NAMES = {
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
    "foundry": "azure.ai.inference",
}


def ladder_of(config: Config) -> tuple[Tier, ...]:
    """The configured tiers as the chain's values."""
    return tuple(Tier(**tier.model_dump()) for tier in config.tiers)


def make_endpoints(
    config: Config,
    clock: Clock,
    pacing: Pacing,
    *,
    keep: Mapping[str, tuple[EndpointConfig, Endpoint]],
    emulator_url: str = "",
) -> dict[str, Endpoint]:
    """An Endpoint for each configured one, kept from before where nothing about it changed.

    With `emulator_url` every endpoint leads to the emulator, at a path that is its name, and needs no key.
    ConfigError otherwise
    where a key or a platform's package is missing.
    """
    made = {}
    for name, settings in config.endpoints.items():
        if name in keep and keep[name][0] == settings:
            made[name] = keep[name][1]
            continue
        made[name] = Endpoint(
            name=name,
            provider=Paced(_provider(name, settings, clock, emulator_url), pacing),
            budget=settings.budget or settings.platform,
            models={} if emulator_url else settings.models,
            price_multiplier=settings.price_multiplier,
        )
    return made


def make_recorder(config: StoreConfig, store: Store, clock: Clock) -> Recorder:
    """The recorder with its journal. Raises StoreError where the journal's folder cannot be used."""
    folder = config.journal_folder
    journal = None
    if folder is not None:
        journal = Journal(folder, max_bytes=config.journal_max_bytes, sync=config.journal_sync)
    return Recorder(
        store,
        clock,
        max_wait_s=config.max_wait_s,
        linger_s=config.linger_s,
        journal=journal,
        patience_s=config.patience_s,
    )


def missing_keys(config: Config) -> list[str]:
    """Environment variables that hold no key although an endpoint names them."""
    return sorted(
        {
            settings.api_key_env
            for settings in config.endpoints.values()
            if settings.platform in ("anthropic", "foundry") and not os.environ.get(settings.api_key_env)
        }
    )


def make_generation(
    config: Config,
    *,
    endpoints: dict[str, Endpoint],
    guards: Guards,
    experience: Experience,
    drift: Drift,
    model: Callable[[], RouterModel | None],
    recorder: Recorder,
    ids: RequestIds,
    clock: Clock,
    uniform: Callable[[], float],
) -> Generation:
    """Everything that requests need, for one configuration."""
    ladder, prices = ladder_of(config), config.load_prices()
    resilience = Resilience(
        ladder=ladder,
        endpoints=endpoints,
        prices=prices,
        guards=guards,
        recovery=config.resilience.recovery(),
        clock=clock,
        uniform=uniform,
    )
    completer = Completer(
        ladder=ladder,
        chain=Chain(ladder=ladder, resilience=resilience, clock=clock),
        bound_usd=resilience.bound_usd,
        prices=prices,
        policy=Policy(experience, uniform),
        experience=experience,
        drift=drift,
        model=model,
        recorder=recorder,
        ids=ids,
        clock=clock,
        text_cap_chars=config.model.text_cap_chars,
    )
    bench = _audit_bench(config, ladder, endpoints=endpoints, prices=prices, guards=guards, clock=clock)
    return Generation(config, completer, bench, endpoints)


def _audit_bench(
    config: Config,
    ladder: tuple[Tier, ...],
    *,
    endpoints: dict[str, Endpoint],
    prices: PriceBook,
    guards: Guards,
    clock: Clock,
) -> Bench:
    """The same tiers for audits: one endpoint each and one attempt, so that nothing is tried again."""
    alone = tuple(replace(tier, endpoints=tier.endpoints[:1]) for tier in ladder)
    resilience = Resilience(
        ladder=alone,
        endpoints=endpoints,
        prices=prices,
        guards=guards,
        recovery=RecoverySettings(attempts_per_tier=1),
        clock=clock,
        uniform=lambda: 0.0,  # there is no backoff to draw
    )
    return Bench(
        tiers={tier.name: tier for tier in alone},
        endpoints=endpoints,
        chain=Chain(ladder=alone, resilience=resilience, clock=clock),
        resilience=resilience,
        guards=guards,
        clock=clock,
        text_cap_chars=config.model.text_cap_chars,
    )


def _provider(name: str, settings: EndpointConfig, clock: Clock, emulator_url: str) -> AnthropicProvider:
    if emulator_url:
        return make_provider("anthropic", clock, api_key="emulated", base_url=f"{emulator_url}/{name}")
    if settings.platform == "vertex" and importlib.util.find_spec("google.auth") is None:
        raise ConfigError(f"endpoints.{name}.platform: vertex needs the package extra tierwise[vertex]")
    key = os.environ.get(settings.api_key_env, "")
    if not key and settings.platform in ("anthropic", "foundry"):
        raise ConfigError(f"endpoints.{name}.api_key_env: the environment variable {settings.api_key_env} is not set")
    return make_provider(
        settings.platform,
        clock,
        api_key=key,
        base_url=settings.base_url,
        region=settings.region,
        project=settings.project,
        resource=settings.resource,
    )


def telemetry_settings(config: Config) -> Settings:
    """What telemetry needs of the configuration."""
    telemetry = config.telemetry
    host, _, port = telemetry.prometheus_listen.rpartition(":")
    return Settings(
        otlp_endpoint=telemetry.otlp_endpoint or None,
        protocol=telemetry.otlp_protocol,
        service_name=telemetry.service_name,
        sample_ratio=telemetry.sample_ratio,
        prometheus_host=host or "127.0.0.1",
        prometheus_port=int(port) if port else None,
        providers={name: _PROVIDER_NAMES[endpoint.platform] for name, endpoint in config.endpoints.items()},
    )
