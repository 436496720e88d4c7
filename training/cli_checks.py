"""`tierwise-training checks`: what each check is worth."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path

import click

from training.cli_shared import config_option, console, fail, load, store_url


@click.command(epilog="Exit codes: 0 shown; 1 failed; 2 wrong usage.")
@click.option(
    "--store", help="Where the outcomes are, such as sqlite:///var/outcomes.db [default: the configuration's]."
)
@config_option
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=30.0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, with everything that the table leaves out.")
def checks(store: str | None, config: Path | None, days: float, *, as_json: bool) -> None:
    """Show, for each check of each workload, what it is worth against feedback and audits.

    AUROC of its score, false accepts (of the bad replies), false rejects (of the good ones), with 95 % intervals;
    what it costs and takes; and whether it pays for itself: mistakes caught and escalations avoided, in money, less its
    cost, against the chain without it and against a coin that rejects as often.
    """
    settings = load(config)
    from router.cli_stats import existing
    from router.store import StoreError
    from router.store.sql import SqlStore
    from training.checkreport import check_report
    from training.checkshow import as_json as plain
    from training.checkshow import show_checks
    from training.labels import LADDER

    ladder = LADDER if settings is None else settings.ladder
    try:
        with closing(SqlStore(existing(store_url(store, settings)))) as outcomes:
            found = check_report(
                outcomes.read(since_s=time.time() - days * 86_400),
                ladder,
                lambda workload: None if settings is None else settings.workload(workload).mistake_cost_usd,
            )
    except StoreError as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(plain(found), indent=2))
    else:
        show_checks(console(), found)
