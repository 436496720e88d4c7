"""`tierwise emulate`: the emulator alone, for trying a client or a fault script."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address.")
@click.option("--port", default=8090, show_default=True, help="0 picks a free one.")
@click.option("--recorded", type=click.Path(exists=True, path_type=Path), help="Parquet file of recorded answers.")
@click.option("--generation", default="", help="Generation in the recorded file; required with --recorded.")
@click.option("--faults", type=click.Path(exists=True, path_type=Path), help="TOML file with a fault script.")
@click.option("--seed", default=0, show_default=True, help="Decides which simulated answers are wrong.")
def emulate(host: str, port: int, recorded: Path | None, generation: str, faults: Path | None, seed: int) -> None:
    """Serve the Messages API on loopback, from simulated workloads or a recorded file. Needs no key."""
    from fallback.emulator.server import run_forever

    try:
        asyncio.run(
            run_forever(
                host=host,
                port=port,
                recorded=recorded,
                generation=generation or None,
                faults=faults,
                seed=seed,
                announce=click.echo,
            )
        )
    except (ValueError, OSError) as error:
        click.echo(f"tierwise: {error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(0)
