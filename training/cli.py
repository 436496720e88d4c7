"""`tierwise-training`: the data team's commands. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path

import click

from training.cli_certify import certify
from training.cli_checks import checks
from training.cli_shared import (
    EXIT_CODES,
    FAILED,
    FILE,
    LOCK_HELD,
    PUBLISHED,
    REFUSED,
    config_option,
    console,
    fail,
    learner_of,
    load,
    models_folder,
    models_option,
    registry_of,
    store_url,
)
from training.cli_tune import tune

__all__ = ["FAILED", "LOCK_HELD", "PUBLISHED", "REFUSED", "main"]


@click.group(epilog=EXIT_CODES)
@click.version_option(package_name="tierwise")
def main() -> None:
    """Train, judge, publish and roll back the router's model."""


@main.command(epilog=EXIT_CODES)
@click.option(
    "--store", help="Where the outcomes are, such as sqlite:///var/outcomes.db [default: the configuration's]."
)
@models_option
@config_option
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
    settings_file = load(config)
    url, folder = store_url(store, settings_file), models_folder(models, settings_file)
    from router.store import StoreError
    from router.store.sql import SqlStore
    from training.console import Steps, show_night
    from training.labels import LADDER
    from training.nightly import NightSettings, run_night
    from training.registry import LockHeld, Registry, RegistryError

    ladder = settings_file.ladder if settings_file is not None else LADDER
    settings = NightSettings(target=target, seed=seed, ladder=ladder)
    with Steps(console(stderr=True)) as steps:
        try:
            with closing(SqlStore(url)) as outcomes:
                registry = Registry(folder, step=steps.step)
                learner = learner_of(settings_file, ladder, target)
                night = run_night(
                    outcomes, registry, learner, settings, now_s=time.time(), progress=steps, report=report
                )
        except LockHeld as held:
            fail(str(held), LOCK_HELD)
        except (StoreError, RegistryError, OSError) as error:
            fail(str(error))
    show_night(console(), night)
    if report is not None:
        click.echo(f"report: {report}")
    sys.exit(REFUSED if night.result == "refused" else PUBLISHED)


@main.command(epilog="Exit codes: 0 written; 1 failed; 2 wrong usage.")
@models_option
@config_option
@click.option("--version", "wanted", help="The night that published this version [default: the last night].")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The HTML file to write.")
def report(models: Path | None, config: Path | None, wanted: str | None, out: Path) -> None:
    """Write a night's report again, from what the registry kept of it."""
    registry = registry_of(models, config)
    from training.registry import RegistryError
    from training.report import write_report
    from training.results import NIGHT_FILE, load_night

    try:
        saved = registry.path(wanted) / NIGHT_FILE if wanted else registry.root / "last_night.json"
        write_report(load_night(saved), out)
    except RegistryError as error:
        fail(str(error))
    except FileNotFoundError as error:
        fail(f"there is no night to report: {error.filename} is missing")
    except (OSError, ValueError) as error:
        fail(f"the report cannot be written: {error}")
    click.echo(f"report: {out}")


@main.command(epilog="Exit codes: 0 listed; 1 failed; 2 wrong usage.")
@models_option
@config_option
def models(models: Path | None, config: Path | None) -> None:
    """List the versions, newest first, the current one marked."""
    registry = registry_of(models, config)
    from training.console import show_models
    from training.registry import RegistryError

    try:
        show_models(console(), registry.versions(), registry.lineage())
    except RegistryError as error:
        fail(str(error))


@main.command(epilog="Exit codes: 0 rolled back; 1 nothing to roll back to; 2 wrong usage; 4 a publish is under way.")
@models_option
@config_option
def rollback(models: Path | None, config: Path | None) -> None:
    """Return to the version before the current one. A running service follows by itself."""
    registry = registry_of(models, config)
    from training.registry import LockHeld, RegistryError

    try:
        left, now = registry.rollback(now_s=time.time())
    except LockHeld as held:
        fail(str(held), LOCK_HELD)
    except RegistryError as error:
        fail(str(error))
    click.echo(f"{now} serves again; {left} is withdrawn and will not be published again from the same outcomes")


@main.command(epilog="Exit codes: 0 measured; 1 failed; 2 wrong usage.")
@click.option("--train", type=FILE, required=True, help="Recorded answers (Parquet) to learn from.")
@click.option("--test", type=FILE, help="Recorded answers to replay on [default: cross-validation on --train].")
@click.option("--generation", required=True, help="The rows to use, such as claude-3.5.")
@click.option(
    "--json", "out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Write figures here."
)
@click.option("--agreement", is_flag=True, help="Let a second sample of the cheapest tier be asked for.")
@click.option("--seed", type=click.IntRange(min=0), help="[default: the benchmark's own]")
@config_option
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
    with Shares(console(stderr=True)) as shares:
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
            fail(str(error))
    show_benchmark(result, console())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    click.echo(f"figures: {out}")


main.add_command(certify)
main.add_command(tune)
main.add_command(checks)
