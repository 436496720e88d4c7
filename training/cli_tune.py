"""`tierwise-training tune`: the cost–quality frontier of a workload, and a configuration change to review."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training.cli_shared import (
    FILE,
    config_option,
    console,
    fail,
    learner_of,
    load,
    models_folder,
    models_option,
    store_url,
)

if TYPE_CHECKING:
    from router.config import Config
    from training.tuning import Frontier


@click.command(epilog="Exit codes: 0 drawn; 1 failed; 2 wrong usage.")
@click.option("--workload", required=True, help="The workload to tune.")
@config_option
@models_option
@click.option("--store", help="Where the outcomes are [default: the configuration's].")
@click.option("--recorded", type=FILE, help="Recorded answers (Parquet) instead of the log.")
@click.option("--generation", help="The rows of --recorded to use, such as claude-3.5.")
@click.option(
    "--target", type=click.FloatRange(0.5, 1.0), help="Quality to keep, as a share of the best constant tier's."
)
@click.option("--false-accept-max", type=click.FloatRange(0.001, 0.5), help="Certify for this share of bad replies.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where to write the files."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def tune(
    *,
    workload: str,
    config: Path | None,
    models: Path | None,
    store: str | None,
    recorded: Path | None,
    generation: str | None,
    target: float | None,
    false_accept_max: float | None,
    out: Path,
    seed: int,
) -> None:
    """Draw the frontier of a workload and propose a setting, as a patch to review.

    From the log (--config), or from recorded answers (--recorded with --generation; --config too for a patch to it).
    Writes tune-WORKLOAD.html and, where a setting is proposed, tune-WORKLOAD.patch; the configuration itself stays.
    """
    settings = load(config)
    if recorded is None and settings is None:
        raise click.UsageError("--config is needed, or --recorded with --generation")
    if (recorded is None) != (generation is None):
        raise click.UsageError("--recorded and --generation go together")
    from router.config import Config
    from training.tuning import changed, patch
    from training.tuning_page import write_page

    known = settings or Config()
    wanted = target if target is not None else known.workload(workload).quality_target
    frontier = (
        _from_log(known, workload, models, store, wanted, false_accept_max, seed)
        if recorded is None
        else _from_recorded(known, workload, recorded, str(generation), wanted, false_accept_max, seed)
    )
    _show(frontier)
    diff = ""
    if frontier.chosen is not None and frontier.chosen.mistake_cost_usd is not None:
        before = config.read_text(encoding="utf-8") if config is not None else ""
        after = changed(before, workload, frontier.chosen.mistake_cost_usd)
        diff = patch(before, after, config.name if config is not None else "tierwise.toml")
        _check(after)
    out.mkdir(parents=True, exist_ok=True)
    write_page(frontier, diff, out / f"tune-{workload}.html")
    click.echo(f"page: {out / f'tune-{workload}.html'}")
    if not diff:
        click.echo("no change is proposed")
        return
    (out / f"tune-{workload}.patch").write_text(diff, encoding="utf-8")
    click.echo(f"proposed change, to be reviewed and applied by you: {out / f'tune-{workload}.patch'}\n\n{diff}")


def _from_log(
    config: Config,
    workload: str,
    models: Path | None,
    store: str | None,
    target: float,
    false_accept_max: float | None,
    seed: int,
) -> Frontier:
    from dataclasses import replace

    from router.store import StoreError
    from router.store.sql import SqlStore
    from training.dataset import read_dataset
    from training.registry import Registry, RegistryError
    from training.served import Served
    from training.tuning import CannotTune, from_log

    learner = learner_of(config, config.ladder, target)
    try:
        registry = Registry(models_folder(models, config))
        current = registry.current()
        if current is None:
            fail("there is no model to tune: run a night first")
        with closing(SqlStore(store_url(store, config))) as outcomes:
            data = read_dataset(outcomes.read(), ladder=config.ladder)
        policy = learner.load(registry.path(current), data)
        if not isinstance(policy, Served):
            fail(f"{current} cannot be loaded any more")
        own = policy.terms(workload)
        if false_accept_max is not None:
            own = replace(own, promise=replace(own.promise, false_accept_max=false_accept_max))
        return from_log(policy, data, workload, own, target=target, seed=seed)
    except (CannotTune, StoreError, RegistryError, OSError) as error:
        fail(str(error))


def _from_recorded(
    config: Config,
    workload: str,
    path: Path,
    generation: str,
    target: float,
    false_accept_max: float | None,
    seed: int,
) -> Frontier:
    from dataclasses import replace

    from training.benchmark.recorded import RecordedError
    from training.console import Shares
    from training.fit import TooLittleData
    from training.tuning import CannotTune, from_recorded

    promise = config.workload(workload).promise
    if false_accept_max is not None:
        promise = replace(promise, false_accept_max=false_accept_max)
    try:
        with Shares(console(stderr=True)) as shares:
            return from_recorded(
                path, generation, workload, config.load_prices(), promise, target=target, seed=seed, progress=shares.at
            )
    except (CannotTune, RecordedError, TooLittleData, OSError) as error:
        fail(str(error))


def _check(text: str) -> None:
    """The change leaves a configuration that the service takes; it ends the command otherwise."""
    import tomllib

    from pydantic import ValidationError

    from router.config import Config
    from router.config_base import explain

    try:
        Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        fail(f"the change cannot be made by itself: {error}; set the workload's mistake_cost_usd by hand")
    except ValidationError as error:
        fail(f"the change would be refused: {'; '.join(explain(error))}")


def _show(frontier: Frontier) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("policy", "good replies, 95 %", "$ per 1,000, 95 %", "mistake_cost_usd", box=None, pad_edge=False)
    for each in frontier.points:
        quality, cost = each.quality, each.cost_usd
        table.add_row(
            escape(each.name),
            escape(f"{quality.value:.1%} [{quality.low:.1%}, {quality.high:.1%}]"),
            escape(f"{1000 * cost.value:.3f} [{1000 * cost.low:.3f}, {1000 * cost.high:.3f}]"),
            "–" if each.mistake_cost_usd is None else f"{each.mistake_cost_usd:.4g}",
        )
    screen = console()
    screen.print(f"{escape(frontier.workload)}, {frontier.n:,} requests ({escape(frontier.source)})", highlight=False)
    screen.print(table)
    if frontier.chosen is not None:
        screen.print(f"proposed: {frontier.chosen.name}", markup=False, highlight=False)
    for note in frontier.notes:
        screen.print(note, markup=False, highlight=False)
