"""`python -m bench.faults [R1 R3 ...] [--scale 0.6] [--seed 0] [--write]`: the checks, one after the other.

`--scale` stretches them: 0.6 takes ten minutes on two cores; docs/measurements.md says at which the long versions are.
`--write` puts the table into docs/measurements.md. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from processes import ROOT
from rich.console import Console
from rich.table import Table

from bench.faults import deadlines, laws, load, operations, outages, storage
from bench.faults.result import Result

CHECKS: dict[str, Callable[[float, int], Result]] = {
    "R1": load.held,
    "R2": load.doubled,
    "R3": deadlines.overrun,
    "R4": outages.full,
    "R5": outages.partial,
    "R6": outages.breaker,
    "R7": deadlines.hints,
    "R8": laws.escalation,
    "R9": laws.simulation,
    "R10": operations.killed,
    "R11": storage.damaged,
    "R12": storage.away,
    "R13": operations.collector,
    "R14": operations.stopped,
    "R15": laws.clocks,
    "R16": operations.swapped,
    "R17": laws.night,
}
_PAGE = ROOT / "docs" / "measurements.md"
_BEGIN, _END = "<!-- faults:begin -->", "<!-- faults:end -->"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all without one")
    parser.add_argument("--scale", type=float, default=float(os.environ.get("SCALE", "0.6")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="put the table into docs/measurements.md")
    args = parser.parse_args()
    if unknown := [name for name in args.checks if name not in CHECKS]:
        parser.error(f"no check {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    console, results = Console(), []
    began_s = time.monotonic()
    for name in args.checks or CHECKS:
        console.print(f"[dim]{name} …[/dim]")
        check_began_s = time.monotonic()
        results.append(_tried(name, args.scale, args.seed))
        console.print(f"[dim]{name} took {time.monotonic() - check_began_s:.0f} s[/dim]")
        _show(console, results[-1:])
    if len(results) > 1:
        _show(console, results)
    missed = [f"{each.check}: {figure.what}" for each in results for figure in each.figures if not figure.met]
    took_s = time.monotonic() - began_s
    console.print(f"{len(results)} checks in {took_s:.0f} s; bars missed: {'; '.join(missed) or 'none'}")
    if args.write:
        _write(results, args.scale)
    return 1 if missed else 0


def _tried(name: str, scale: float, seed: int) -> Result:
    """The check's result; a check that broke is a bar missed, and the others go on."""
    try:
        return CHECKS[name](scale, seed)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is told
        result = Result(name, "did not end", seed=seed)
        result.true(f"ran to its end ({type(error).__name__}: {error})", holds=False)
        return result


def _show(console: Console, results: list[Result]) -> None:
    table = Table(show_edge=False)
    for name in ("check", "what", "bar", "measured", ""):
        table.add_column(name)
    for result in results:
        table.add_row(f"[bold]{result.check}[/bold] {result.title}", f"[dim]{result.n}, seed {result.seed}[/dim]")
        for figure in result.figures:
            table.add_row("", figure.what, figure.bar, figure.measured, "" if figure.met else "[red]missed[/red]")
    console.print(table)


def _write(results: list[Result], scale: float) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    day = datetime.now(UTC).date().isoformat()
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{day}, {machine}, `make faults` at scale {scale:g}.",
        "",
        "| check | n, seed | what | bar | measured |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        for number, figure in enumerate(result.figures):
            name = f"{result.check} {result.title} | {result.n}; seed {result.seed}" if number == 0 else " | "
            shown = figure.measured if figure.met else f"**{figure.measured}, missed**"
            lines.append(f"| {name} | {figure.what} | {figure.bar} | {shown} |")
    _PAGE.write_text(before + _BEGIN + "\n" + "\n".join(lines) + "\n" + _END + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
