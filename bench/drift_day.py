"""A simulated day on which a model update makes haiku worse, with and without anybody looking out for it.

Everything is simulated but the code that decides: see `tests/support/day.py`. Prints one line a day and period.
"""

from __future__ import annotations

import argparse
import asyncio

from rich.console import Console
from rich.table import Table

from router.experience import wilson
from tests.support.day import ALLOWED, DAY_S, WORSE, Answered, Day, simulate

WINDOW = 500


def main() -> None:
    """One row a seed, watched or not, and period."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=5_000, help="in the day of the update")
    options = parser.parse_args()
    table = Table(
        "seed", "drift watched", "alarm after", "period", "n", "good, 95 %", "$ per 1,000", "haiku", "worst window",
        title=f"SIMULATED: haiku {WORSE:.0%} worse from 10:00; at most {ALLOWED:.0%} bad allowed, so the target is "
        f"{1 - ALLOWED:.0%}; windows of {WINDOW} requests",
    )  # fmt: skip
    for seed in range(options.seeds):
        for watched in (True, False):
            day = asyncio.run(simulate(seed, requests=options.requests, watched=watched))
            show(table, seed, day, watched=watched)
    Console(width=150).print(table)


def show(table: Table, seed: int, day: Day, *, watched: bool) -> None:
    """The periods of one day."""
    alarm_s = DAY_S if day.alarm_s is None else day.alarm_s
    delay = "never" if day.alarm_s is None else f"{(day.alarm_s - day.update_s) / 60:.0f} min"
    periods = (
        ("before the update", 0.0, day.update_s),
        ("update to alarm", day.update_s, alarm_s),
        ("after the alarm", alarm_s, DAY_S),
    )
    for name, since_s, until_s in periods:
        those = day.after(since_s, until_s)
        if not those:
            continue
        worst = f"{day.worst_window(alarm_s, WINDOW):.1%}" if since_s == alarm_s and len(those) >= WINDOW else "–"
        cost_usd = sum(each.cost_usd for each in those) / len(those)
        haiku = sum(each.tier == "haiku" for each in those) / len(those)
        table.add_row(
            str(seed), "yes" if watched else "no", delay, name, f"{len(those):,}", good(those),
            f"{1000 * cost_usd:.3f}", f"{haiku:.0%}", worst,
        )  # fmt: skip


def good(those: list[Answered]) -> str:
    """The share with its interval."""
    count = sum(each.good for each in those)
    low, high = wilson(count, len(those))
    return f"{count / len(those):.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    main()
