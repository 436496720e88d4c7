"""`tierwise serve`."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from router.config import Config

_YOUNG = 100_000  # objects more than there were, until the next collection
_SWITCH_S = 0.000_5


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="TOML file; without one, the defaults.")
@click.option("--listen", default="", help="host:port, over the configuration's own. Port 0 picks a free one.")
@click.option(
    "--emulate-without-key",
    is_flag=True,
    help="Where an endpoint's API key is not set, answer from the built-in emulator instead of refusing to start.",
)
def serve(config_path: Path | None, listen: str, *, emulate_without_key: bool) -> None:
    """Run the service in the foreground.

    SIGHUP reloads the configuration, SIGTERM stops gracefully. Exit code 2: the configuration is wrong.
    """
    # One thread for BLAS: a request's arithmetic is tiny, and a pool would only fight the event loop.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from router.config import ConfigError, load_config
    from router.logs import setup
    from router.store import StoreError
    from router.telemetry import TelemetryError
    from router.wakeups import Loop

    try:
        config = load_config(config_path)
        if listen:
            server = type(config.server).model_validate({**config.server.model_dump(), "listen": listen})
            config = config.model_copy(update={"server": server})
        setup(config.telemetry.log_level.upper(), style=config.telemetry.log_format)
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(_serve(config, config_path, emulate_without_key=emulate_without_key))
    except (ConfigError, StoreError, TelemetryError, ValueError) as error:
        click.echo(f"tierwise: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        click.echo(f"tierwise: cannot start: {error}", err=True)
        sys.exit(1)


async def _serve(config: Config, config_path: Path | None, *, emulate_without_key: bool) -> None:
    from router.build import missing_keys
    from router.serve import Service

    missing = missing_keys(config)
    emulator_url = ""
    if missing and emulate_without_key:
        from fallback.emulator.server import Emulator
        from fallback.emulator.simulated import SimulatedSource

        emulator_url = await Emulator(SimulatedSource()).start()
        click.echo(f"{', '.join(missing)} not set: every answer is SIMULATED by the emulator at {emulator_url}")
    elif not missing:
        click.echo("answers come from Claude; requests cost money")
    service = Service(config, config_path=config_path, emulator_url=emulator_url)
    await service.start()
    click.echo(f"tierwise is serving on {config.server.listen.rpartition(':')[0]}:{service.port}")
    if service.telemetry.prometheus_port is not None:
        click.echo(f"metrics on http://127.0.0.1:{service.telemetry.prometheus_port}/metrics")
    _stall_less()
    await service.run()


def _stall_less() -> None:
    """Spare the event loop what stops it for longer than a refusal may take (ADR 0028).

    A collection walks all requests under way, for 6 to 20 ms where 200 are, and frees next to nothing: what a started
    service holds is kept out of collections, and they are made rare. Another thread (the recorder's writes outcomes)
    keeps the interpreter for a whole switch interval when the loop lets go of it to send: that is made short.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)
    sys.setswitchinterval(_SWITCH_S)
