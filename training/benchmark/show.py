"""The benchmark's figures for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show_benchmark(result: dict[str, Any], console: Console) -> None:
    """Print the targets and what they are measured against."""
    how = "cross-validated" if result["cross_validated"] else "on the test file"
    with_second = ", second samples allowed" if result["agreement"] else ""
    table = Table(
        title=f"{result['generation']}, {result['n_test']:,} prompts, {how}{with_second}: "
        f"relative to always {result['best_constant']}",
        title_justify="left",
    )
    for name in ("policy", "quality %", "95 % interval", "saved %", "95 % interval"):
        table.add_column(name, justify="left" if name == "policy" else "right")
    compared = result["baselines"]
    for row in result["targets"]:
        table.add_row(f"tierwise at {row['target']} %", *_figures(row), style="bold")
    table.add_section()
    for tier, row in compared["constant"].items():
        table.add_row(f"always {tier}", *_figures(row))
    for name, label in (("random_mix", "random mix"), ("cost_matched_shuffle", "same tiers, shuffled")):
        for row in compared[name]:
            table.add_row(f"{label} at {row['target']} %", *_figures(row))
    table.add_row("oracle router", *_figures(compared["oracle_router"]))
    table.add_row("perfect check after haiku", *_figures(compared["perfect_check_cascade"]))
    console.print(table)


def _figures(row: dict[str, Any]) -> tuple[str, str, str, str]:
    quality, saved = row["quality_ci"], row["saved_ci"]
    return (
        f"{row['quality']:.1f}",
        f"{quality[0]:.1f} to {quality[1]:.1f}",
        f"{row['saved']:.1f}",
        f"{saved[0]:.1f} to {saved[1]:.1f}",
    )
