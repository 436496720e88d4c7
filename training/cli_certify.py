"""`tierwise-training certify`: the serving model's certificate, from the newest outcomes."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import click

from training.cli_shared import (
    EXIT_CODES,
    LOCK_HELD,
    config_option,
    console,
    fail,
    learner_of,
    load,
    models_folder,
    models_option,
    store_url,
)

_TARGET = 0.99  # a model brings its own knob: the learner's target plays no part


@click.command(epilog=EXIT_CODES)
@click.option(
    "--store", help="Where the outcomes are, such as sqlite:///var/outcomes.db [default: the configuration's]."
)
@models_option
@config_option
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def certify(store: str | None, models: Path | None, config: Path | None, seed: int) -> None:
    """Certify the serving model's thresholds anew, without fitting it again.

    What a workload promises (false_accept_max, or mistake_cost_usd in its place) stands in the configuration. The
    evidence is what feedback and audits say of requests that the model was not fitted on. Where it changes anything,
    the same weights are published under a new version; `rollback` takes it back.
    """
    settings = load(config)
    if settings is None:
        raise click.UsageError("--config is needed: it says what each workload promises")
    from router.store import StoreError
    from router.store.sql import SqlStore
    from training.console import show_certificates
    from training.recertify import recertify
    from training.registry import LockHeld, Registry, RegistryError

    url, registry = store_url(store, settings), Registry(models_folder(models, settings))
    try:
        with closing(SqlStore(url)) as outcomes:
            learner = learner_of(settings, settings.ladder, _TARGET)
            done = recertify(outcomes, registry, learner, ladder=settings.ladder, seed=seed, now_s=time.time())
    except LockHeld as held:
        fail(str(held), LOCK_HELD)
    except (StoreError, RegistryError, OSError) as error:
        fail(str(error))
    if done.result == "no_model":
        fail(done.reason)
    show_certificates(console(), done.certificates)
    if done.result == "published":
        click.echo(f"{done.version} serves in place of {done.previous}: the same weights, certified anew")
    else:
        click.echo(f"nothing to publish, {done.version} serves on: {done.reason}")
