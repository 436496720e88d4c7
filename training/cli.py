"""`tierwise-training`: the data team's commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console

    from router.store import Store
    from training.nightly import Learner
    from training.registry import Registry

PUBLISHED = 0
FAILED = 1
REFUSED = 3
LOCK_HELD = 4

_EXIT_CODES = "Exit codes: 0 published or nothing to do; 1 failed; 2 wrong usage; 3 refused by the gate; 4 lock held."


@dataclass(frozen=True, slots=True)
class _Places:
    """Where outcomes and models are, and the tiers in cost order."""

    store: str
    models: Path
    ladder: tuple[str, ...]
    config: Path | None


_models = click.option(
    "--models", type=click.Path(file_okay=False, path_type=Path), help="Model registry [default: the configuration's]."
)
_config = click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The service's TOML file."
)


@click.group(epilog=_EXIT_CODES)
@click.version_option(package_name="tierwise")
def main() -> None:
    """Train, judge, publish and roll back the router's model."""


@main.command(epilog=_EXIT_CODES)
@click.option(
    "--store", help="Where the outcomes are, such as sqlite:///var/outcomes.db [default: the configuration's]."
)
@_models
@_config
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the night's report here (HTML).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--target",
    type=click.FloatRange(0.5, 1.0),
    default=0.99,
    show_default=True,
    help="Quality to keep, as a share of the best constant tier's.",
)
def nightly(
    store: str | None, models: Path | None, config: Path | None, report: Path | None, seed: int, target: float
) -> None:
    """Train on the outcomes and publish the model if the gate lets it pass.

    Safe to run twice, at once and to kill at any point. A running service picks a new model up by itself.
    """
    places = _places(store, models, config)
    from router.store import StoreError
    from training.console import Steps, show_night
    from training.nightly import NightSettings, run_night
    from training.registry import LockHeld, Registry, RegistryError

    settings = NightSettings(target=target, seed=seed, ladder=places.ladder)
    with Steps(_console(stderr=True)) as steps:
        try:
            outcomes = _open_store(places.store)
            try:
                registry = Registry(places.models, step=steps.step)
                night = run_night(
                    outcomes, registry, _learner(places), settings, now_s=time.time(), progress=steps, report=report
                )
            finally:
                outcomes.close()
        except LockHeld as held:
            _fail(str(held), LOCK_HELD)
        except (StoreError, RegistryError, OSError) as error:
            _fail(str(error))
    show_night(_console(), night)
    if report is not None:
        click.echo(f"report: {report}")
    sys.exit(REFUSED if night.result == "refused" else PUBLISHED)


@main.command(epilog="Exit codes: 0 written; 1 failed; 2 wrong usage.")
@_models
@_config
@click.option("--version", "wanted", help="The night that published this version [default: the last night].")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The HTML file to write.")
def report(models: Path | None, config: Path | None, wanted: str | None, out: Path) -> None:
    """Write a night's report again, from what the registry kept of it."""
    registry = _registry(models, config)
    from training.nightly import NIGHT_FILE, load_night
    from training.registry import RegistryError
    from training.report import write_report

    try:
        saved = registry.path(wanted) / NIGHT_FILE if wanted else registry.root / "last_night.json"
        write_report(load_night(saved), out)
    except RegistryError as error:
        _fail(str(error))
    except FileNotFoundError as error:
        _fail(f"there is no night to report: {error.filename} is missing")
    except (OSError, ValueError) as error:
        _fail(f"the report cannot be written: {error}")
    click.echo(f"report: {out}")


@main.command(epilog="Exit codes: 0 listed; 1 failed; 2 wrong usage.")
@_models
@_config
def models(models: Path | None, config: Path | None) -> None:
    """List the versions, newest first, the current one marked."""
    registry = _registry(models, config)
    from training.console import show_models
    from training.registry import RegistryError

    try:
        show_models(_console(), registry.versions(), registry.lineage())
    except RegistryError as error:
        _fail(str(error))


@main.command(epilog="Exit codes: 0 rolled back; 1 nothing to roll back to; 2 wrong usage; 4 a publish is under way.")
@_models
@_config
def rollback(models: Path | None, config: Path | None) -> None:
    """Return to the version before the current one. A running service follows by itself."""
    registry = _registry(models, config)
    from training.registry import LockHeld, RegistryError

    try:
        left, now = registry.rollback(now_s=time.time())
    except LockHeld as held:
        _fail(str(held), LOCK_HELD)
    except RegistryError as error:
        _fail(str(error))
    click.echo(f"{now} serves again; {left} is withdrawn and will not be published again from the same outcomes")


# --- shared ----------------------------------------------------------------------------------


def _places(store: str | None, models: Path | None, config: Path | None, *, needs_store: bool = True) -> _Places:
    """From the options, else from the configuration."""
    from training.dataset import LADDER

    ladder = LADDER
    if config is not None:
        from router.config import ConfigError, load_config

        try:
            loaded = load_config(config)
        except ConfigError as error:
            raise click.BadParameter(str(error), param_hint="--config") from None
        store = store or loaded.store.url
        models = models or Path(loaded.model.directory)
        ladder = loaded.ladder
    if models is None:
        raise click.UsageError("--models is needed, or --config with model.directory")
    if needs_store and store is None:
        raise click.UsageError("--store is needed, or --config with store.url")
    return _Places(store or "", models, ladder, config)


def _registry(models: Path | None, config: Path | None) -> Registry:
    from training.registry import Registry

    return Registry(_places(None, models, config, needs_store=False).models)


def _open_store(url: str) -> Store:
    from router.store.sql import SqlStore

    return SqlStore(url)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _fail(message: str, code: int = FAILED) -> NoReturn:
    click.echo(f"tierwise-training: {message}", err=True)
    sys.exit(code)
