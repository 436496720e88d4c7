"""`tierwise stats`: the numbers by which the chain is watched."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

_SQLITE = "sqlite:///"


def existing(url: str) -> str:
    """The URL itself; StoreError where it names a SQLite file that is not there, which opening would create."""
    from router.store import StoreError

    if url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists():
        raise StoreError("path", f"there is no store at {url}: nothing has been recorded yet")
    return url


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The service's TOML file.")
@click.option("--store", "url", default="", help="Store URL, over the configuration's own.")
@click.option("--days", default=7.0, show_default=True, help="How far back to look.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def stats(config_path: Path | None, url: str, days: float, *, as_json: bool) -> None:
    """Per workload: share resolved by tier, escalations and their break-even line, cost, saving, what audits found.

    Below it, the alarms of drift that stand: which tier is suspended in which workload, and why.
    """
    from router.alarms import standing_alarms
    from router.config import ConfigError, load_config
    from router.stats import as_json as to_json
    from router.stats import render, rows
    from router.store import StoreError
    from router.store.sql import SqlStore

    try:
        config = load_config(config_path)
        store = SqlStore(existing(url or config.store.url))
        found = rows(store.stats(since_s=time.time() - days * 86_400), config.ladder)
        alarms = standing_alarms(store.alarms())
        store.close()
    except (ConfigError, StoreError) as error:
        click.echo(f"tierwise: {error}", err=True)
        sys.exit(2)
    if as_json:
        click.echo(json.dumps(to_json(found, alarms), indent=2))
        return
    from rich.console import Console

    Console(width=max(230, Console().width)).print(render(found))
    for alarm in alarms:
        since = datetime.fromtimestamp(alarm.at_s, UTC).strftime("%Y-%m-%d %H:%M")
        click.echo(f"alarm: {alarm.tier} in {alarm.workload} since {since} UTC: {alarm.words}")
