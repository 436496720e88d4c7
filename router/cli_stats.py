"""`tierwise stats`: the numbers by which the chain is watched."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from router.config_sections import StoreConfig
    from router.store import WorkloadStats

_SQLITE = "sqlite:///"


def existing(url: str) -> str:
    """The URL itself; StoreError where it names a SQLite file that is not there, which opening would create."""
    from router.store import StoreError

    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists():
        raise StoreError("path", f"there is no store at {url}: nothing has been recorded yet")
    return url


def with_url(settings: StoreConfig, url: str) -> StoreConfig:
    """The settings with another store's URL; ConfigError where it is none. Empty: as they are."""
    from pydantic import ValidationError

    from router.config import ConfigError

    try:
        return type(settings).model_validate({**settings.model_dump(), "url": url}) if url else settings
    except ValidationError as error:
        raise ConfigError(f"--store: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None


def journal_lines(folder: Path | None) -> list[str]:
    """What there is to say of the journal; nothing where it is empty."""
    from router.journal import survey

    waiting = survey(folder) if folder is not None else None
    if waiting is None or not waiting.size_bytes:
        return []
    lines = [f"{waiting.outcomes:,} outcomes ({waiting.size_bytes / 1e6:,.1f} MB) wait in {folder} for the store"]
    lines += [f"{waiting.damaged:,} damaged stretches in {folder}"] if waiting.damaged else []
    return lines


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The service's TOML file.")
@click.option("--store", "url", default="", help="Store URL, over the configuration's own.")
@click.option("--days", default=7.0, show_default=True, help="How far back to look.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--verify", is_flag=True, help="Also read every outcome of the period and count those that are damaged.")
def stats(config_path: Path | None, url: str, days: float, *, as_json: bool, verify: bool) -> None:
    """Per workload: share resolved by tier, escalations and their break-even lines, cost, saving, what audits found.

    Tier after tier: how often a reply was rejected after the one before was, and where that has moved the plan without
    a model: its start, and the tiers that it skips.

    Below it, the alarms of drift that stand: which tier is suspended in which workload, and why. What waits in the
    journal of this host is said on standard error, and what --verify finds.
    """
    from router.alarms import standing_alarms
    from router.config import ConfigError, load_config
    from router.static_plans import StaticPlan, static_plan
    from router.stats import rows
    from router.stats_show import as_json as to_json
    from router.stats_show import render, render_chains
    from router.store import StoreError
    from router.store.sql import SqlStore

    def plan(numbers: WorkloadStats) -> StaticPlan | None:
        policy = config.workload(numbers.workload)
        return static_plan(
            numbers,
            config.allowed(policy),
            start_tier=policy.start_tier,
            fixed=policy.static_plan == "fixed",
            second_cost_usd=policy.second_cost_usd,
        )

    try:
        config = load_config(config_path)
        settings = with_url(config.store, url)
        for line in journal_lines(settings.journal_folder):
            click.echo(f"tierwise: {line}", err=True)
        store = SqlStore(existing(settings.url))
        since_s = time.time() - days * 86_400
        found = rows(store.stats(since_s=since_s), config.ladder, plan)
        alarms = standing_alarms(store.alarms())
        if verify:
            sound = sum(1 for _ in store.read(since_s=since_s))
            click.echo(f"tierwise: {sound:,} outcomes are sound, {store.corrupt_rows:,} damaged", err=True)
        store.close()
    except (ConfigError, StoreError) as error:
        click.echo(f"tierwise: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(to_json(found, alarms), indent=2))
        return
    from rich.console import Console

    console = Console(width=max(230, Console().width))
    console.print(render(found))
    if (chains := render_chains(found)) is not None:
        console.print(chains)
    for alarm in alarms:
        since = datetime.fromtimestamp(alarm.at_s, UTC).strftime("%Y-%m-%d %H:%M")
        click.echo(f"alarm: {alarm.tier} in {alarm.workload} since {since} UTC: {alarm.words}")
