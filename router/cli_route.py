"""What `tierwise explain` prints: the decision, and the plans that there were to choose from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from router.v1 import router_pb2

_WIDTH = 130  # a plan and its reason on one line


def decision_line(decision: router_pb2.Decision) -> str:
    """The decision in one line."""
    from router.v1 import router_pb2

    mode = "direct to" if decision.mode == router_pb2.MODE_DIRECT else "chain from"
    return f"{mode} {decision.tiers[0]}: {decision.reason}"


def show_route(response: router_pb2.RouteResponse) -> None:
    """To the terminal."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=max(_WIDTH, Console().width))
    console.print(Text(decision_line(response.decision)), highlight=False)
    console.print(_plans(response) if response.plans else _tiers(response.decision))


def _tiers(decision: router_pb2.Decision) -> Table:
    from rich.table import Table

    table = Table("tier", "P(good)", "expected cost", "order")
    for tier in sorted(decision.expected_cost_usd, key=lambda name: decision.expected_cost_usd[name]):
        order = str(list(decision.tiers).index(tier) + 1) if tier in decision.tiers else "–"
        p_good = f"{decision.probabilities[tier]:.3f}" if tier in decision.probabilities else "–"
        table.add_row(tier, p_good, _usd(decision.expected_cost_usd[tier]), order)
    return table


def _plans(response: router_pb2.RouteResponse) -> Table:
    from rich.table import Table
    from rich.text import Text

    modelled = bool(response.decision.model_version)
    quality = "P(good)" if modelled else "P(passes checks)"
    table = Table(
        caption=Text(
            f"Averages over requests like this one. value = ${response.mistake_cost_usd:.4g} × {quality}"
            " − cost − price of the time.\nWhat has not been measured yet is a prior."
        ),
        caption_justify="left",
    )
    table.add_column("plan", no_wrap=True)
    for heading in ("cost", quality, "time", "p95", "value"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for plan in response.plans:
        table.add_row(
            Text(" → ".join(plan.tiers) + ("" if len(plan.tiers) > 1 else " alone")),
            _usd(plan.expected_cost_usd),
            f"{plan.expected_quality:.3f}",
            f"{plan.expected_time_s:.1f} s",
            f"{plan.p95_s:.1f} s",
            _usd(plan.value_usd),
            Text("taken" if plan.taken else plan.why_not),
            style="bold" if plan.taken else "",
        )
    return table


def _usd(usd: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{'-' if usd < 0 else ''}${abs(usd):.6f}" if abs(usd) < 0.01 else f"{'-' if usd < 0 else ''}${abs(usd):.4f}"
