"""What the commands of `tierwise-training` share: exit codes, options, and reading the configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console

    from router.config import Config
    from training.learner import OutcomeLearner
    from training.registry import Registry

PUBLISHED = 0
FAILED = 1
REFUSED = 3
LOCK_HELD = 4

EXIT_CODES = "Exit codes: 0 published or nothing to do; 1 failed; 2 wrong usage; 3 refused by the gate; 4 lock held."


models_option = click.option(
    "--models", type=click.Path(file_okay=False, path_type=Path), help="Model registry [default: the configuration's]."
)
config_option = click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The service's TOML file."
)


FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def load(config: Path | None) -> Config | None:
    """The configuration in a file; None without one, and a usage error where it is wrong."""
    from router.config import ConfigError, load_config

    try:
        return load_config(config) if config is not None else None
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--config") from None


def registry_of(models: Path | None, config: Path | None) -> Registry:
    """The registry that the options name."""
    from training.registry import Registry

    return Registry(models_folder(models, load(config)))


def models_folder(models: Path | None, config: Config | None) -> Path:
    """Its folder: the option's, else the configuration's."""
    if models is not None:
        return models
    if config is not None:
        return Path(config.model.directory)
    raise click.UsageError("--models is needed, or --config with model.directory")


def store_url(store: str | None, config: Config | None) -> str:
    """Where outcomes are: the option's, else the configuration's."""
    if store is not None:
        return store
    if config is not None:
        return config.store.url
    raise click.UsageError("--store is needed, or --config with store.url")


def learner_of(config: Config | None, ladder: tuple[str, ...], target: float) -> OutcomeLearner:
    """A learner that decides as the service would by this configuration, at the night's target without one."""
    from training.learner import OutcomeLearner
    from training.served import Terms

    def terms(workload: str) -> Terms:
        if config is None:
            return Terms(ladder, quality_target=target)
        own = config.workload(workload)
        low = ladder.index(own.lowest_tier) if own.lowest_tier else 0
        high = ladder.index(own.highest_tier) if own.highest_tier else len(ladder) - 1
        return Terms(
            ladder[low : high + 1],
            direct_threshold=own.direct_threshold,
            quality_target=own.quality_target,
            mistake_cost_usd=own.mistake_cost_usd,
            insists=own.hopeless == "escalate",
            latency_p95_s=own.latency_p95_s,
            second_cost_usd=own.second_cost_usd,
            call_margin=own.call_margin,
            promise=own.promise,
        )

    return OutcomeLearner(terms)


def console(*, stderr: bool = False) -> Console:
    """A console that knows whether it is a terminal."""
    from rich.console import Console

    return Console(stderr=stderr)


def fail(message: str, code: int = FAILED) -> NoReturn:
    """Say why, and end with the code."""
    click.echo(f"tierwise-training: {message}", err=True)
    sys.exit(code)
