"""The `tierwise` command. Heavy modules are imported by the command that needs them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from router import cli_ask, cli_emulate, cli_serve, cli_stats


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="tierwise")
def main() -> None:
    """Answer each request with the cheapest Claude tier that is good enough."""


@main.command("check-config")
@click.argument("path", type=click.Path(path_type=Path))
def check_config(path: Path) -> None:
    """Check a configuration file and say what is wrong in it, all at once. Exit code 2 when something is."""
    from router.config import ConfigError, load_config

    try:
        config = load_config(path)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    workloads = ", ".join(sorted(config.workloads)) or "none of their own: all under the defaults"
    click.echo(f"{path}: ok")
    click.echo(f"tiers: {' → '.join(f'{tier.name} ({tier.model})' for tier in config.tiers)}")
    click.echo(f"workloads: {workloads}")


main.add_command(cli_serve.serve)
main.add_command(cli_ask.ask)
main.add_command(cli_ask.explain)
main.add_command(cli_emulate.emulate)
main.add_command(cli_stats.stats)

if __name__ == "__main__":
    main()
