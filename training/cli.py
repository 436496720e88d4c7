"""`tierwise-training`: the data team's commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from rich.console import Console

    from router.config import Config
    from training.nightly import Learner
    from training.registry import Registry

PUBLISHED = 0
FAILED = 1
REFUSED = 3
LOCK_HELD = 4

_EXIT_CODES = "Exit codes: 0 published or nothing to do; 1 failed; 2 wrong usage; 3 refused by the gate; 4 lock held."


_models = click.option(
    "--models", type=click.Path(file_okay=False, path_type=Path), help="Model registry [default: the configuration's]."
)
_config = click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The service's TOML file."
)


_file = click.Path(exists=True, dir_okay=False, path_type=Path)


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
    settings_file = _load(config)
    url, folder = _store_url(store, settings_file), _models_folder(models, settings_file)
    from router.store import StoreError
    from router.store.sql import SqlStore
    from training.console import Steps, show_night
    from training.labels import LADDER
    from training.nightly import NightSettings, run_night
    from training.registry import LockHeld, Registry, RegistryError

    ladder = settings_file.ladder if settings_file is not None else LADDER
    settings = NightSettings(target=target, seed=seed, ladder=ladder)
    with Steps(_console(stderr=True)) as steps:
        try:
            with closing(SqlStore(url)) as outcomes:
                registry = Registry(folder, step=steps.step)
                learner = _learner(settings_file, ladder, target)
                night = run_night(
                    outcomes, registry, learner, settings, now_s=time.time(), progress=steps, report=report
                )
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


@main.command(epilog="Exit codes: 0 measured; 1 failed; 2 wrong usage.")
@click.option("--train", type=_file, required=True, help="Recorded answers (Parquet) to learn from.")
@click.option("--test", type=_file, help="Recorded answers to replay on [default: cross-validation on --train].")
@click.option("--generation", required=True, help="The rows to use, such as claude-3.5.")
@click.option(
    "--json", "out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Write figures here."
)
@click.option("--agreement", is_flag=True, help="Let a second sample of the cheapest tier be asked for.")
@click.option("--seed", type=click.IntRange(min=0), help="[default: the benchmark's own]")
@_config
def benchmark(
    train: Path,
    test: Path | None,
    generation: str,
    out: Path,
    seed: int | None,
    config: Path | None,
    *,
    agreement: bool,
) -> None:
    """Replay the whole policy on recorded answers that it has not seen, beside its baselines.

    Every knob is chosen on training prompts only, and every answer looked at is paid for.
    """
    import json

    from router.config import ConfigError, load_config
    from training.benchmark import run_benchmark, show_benchmark
    from training.benchmark.recorded import RecordedError
    from training.benchmark.run import SEED
    from training.console import Shares
    from training.fit import TooLittleData

    try:
        prices = load_config(config).load_prices()
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--config") from None
    with Shares(_console(stderr=True)) as shares:
        try:
            result = run_benchmark(
                train,
                test,
                generation=generation,
                prices=prices,
                agreement=agreement,
                seed=SEED if seed is None else seed,
                progress=shares.at,
            )
        except (RecordedError, TooLittleData, OSError) as error:
            _fail(str(error))
    show_benchmark(result, _console())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    click.echo(f"figures: {out}")


# --- shared ----------------------------------------------------------------------------------


def _load(config: Path | None) -> Config | None:
    from router.config import ConfigError, load_config

    try:
        return load_config(config) if config is not None else None
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="--config") from None


def _registry(models: Path | None, config: Path | None) -> Registry:
    from training.registry import Registry

    return Registry(_models_folder(models, _load(config)))


def _models_folder(models: Path | None, config: Config | None) -> Path:
    if models is not None:
        return models
    if config is not None:
        return Path(config.model.directory)
    raise click.UsageError("--models is needed, or --config with model.directory")


def _store_url(store: str | None, config: Config | None) -> str:
    if store is not None:
        return store
    if config is not None:
        return config.store.url
    raise click.UsageError("--store is needed, or --config with store.url")


def _learner(config: Config | None, ladder: tuple[str, ...], target: float) -> Learner:
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
            allowed=ladder[low : high + 1],
            direct_threshold=own.direct_threshold,
            quality_target=own.quality_target,
            mistake_cost_usd=own.mistake_cost_usd,
            insists=own.hopeless == "escalate",
        )

    return OutcomeLearner(terms)


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _fail(message: str, code: int = FAILED) -> NoReturn:
    click.echo(f"tierwise-training: {message}", err=True)
    sys.exit(code)
