"""From the store's files to the night: damage is told, and no step of the wall clock skips or doubles a row."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.outcome import RequestIds
from router.store.sql import SqlStore
from tests.support.nights import START_S, FixedLearner, World
from training.console import show_night
from training.dataset import read_dataset
from training.nightly import NightSettings, run_night
from training.registry import Registry
from training.report import render
from training.results import Night

HOUR_S, DAY_S = 3_600.0, 86_400.0
RECORDS = World(feedback=1.0, caught=1.0, start="sonnet").log(600, seed=5)


def night(store: SqlStore, root: Path, now_s: float) -> Night:
    return run_night(store, Registry(root), FixedLearner(), NightSettings(seed=3), now_s=now_s)


def test_what_is_damaged_in_the_store_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    store = SqlStore(f"sqlite:///{tmp_path}/outcomes.db")
    store.write([one.outcome for one in RECORDS])
    bad = [RECORDS[i].outcome.request_id for i in (3, 44, 599)]
    with sqlite3.connect(tmp_path / "outcomes.db") as connection:
        connection.executemany("UPDATE outcome SET cost_usd = 0 WHERE request_id = ?", [(one,) for one in bad])
    connection.close()
    for _ in range(2):  # the store's own count goes on, each night's begins anew
        done = night(store, tmp_path / "models", START_S + DAY_S)
        assert done.data.requests == 597
        assert done.data.skipped == {"corrupt in the store": 3}
    assert "3 corrupt in the store" in render(done)
    show_night(Console(), done)
    assert "3 corrupt in the store" in capsys.readouterr().out
    store.close()


# --- the wall clock ------------------------------------------------------------------------------

_steps = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 1.0, HOUR_S, -HOUR_S, DAY_S, -DAY_S, -1.0]), st.integers(1, 30)), max_size=20
)


@given(_steps)
def test_ids_keep_the_order_of_the_requests_whatever_the_wall_clock_does(steps: list[tuple[float, int]]) -> None:
    ids, wall_s, made = RequestIds(), START_S, []
    for step_s, count in steps:
        wall_s += step_s
        made += [ids.next(wall_s) for _ in range(count)]
    assert made == sorted(set(made))
    assert {len(one) for one in made} <= {32}


def test_more_ids_than_a_sequence_holds_keep_their_order_while_the_clock_is_behind() -> None:
    ids = RequestIds()
    made = [ids.next(START_S)]
    made += [ids.next(START_S - HOUR_S) for _ in range(140_000)]
    made.append(ids.next(START_S + 1.0))
    assert made == sorted(made)


@pytest.mark.parametrize(
    "steps_s",
    [(HOUR_S,), (-HOUR_S,), (DAY_S,), (-DAY_S,), (-HOUR_S, HOUR_S), tuple(s * 3 for s in (1, -1) * 60)],
    ids=["+1 h", "-1 h", "+1 day", "-1 day", "summer and winter time", "a step each second"],
)
def test_a_stepped_wall_clock_neither_skips_nor_doubles_a_row(tmp_path: Path, steps_s: tuple[float, ...]) -> None:
    ids, wall_s, outcomes = RequestIds(), START_S, []
    every = len(RECORDS) // (len(steps_s) + 1)
    for i, record in enumerate(RECORDS):
        wall_s += 1.0 + (steps_s[i // every - 1] if i and i % every == 0 and i // every <= len(steps_s) else 0.0)
        outcomes.append(replace(record.outcome, request_id=ids.next(wall_s), received_at_s=wall_s))
    store = SqlStore(f"sqlite:///{tmp_path}/outcomes.db")
    for first in range(0, len(outcomes), 50):
        store.write(outcomes[first : first + 50])
    created = [one.request_id for one in outcomes]
    assert [row.outcome.request_id for row in store.read()] == created
    data = read_dataset(store.read())
    assert ([row.request_id for row in data.rows], data.skipped) == (created, {})
    # Nights whose own clock is off by as much see the same rows once each; the window is 90 days.
    for now_s in (wall_s, wall_s - DAY_S, wall_s + DAY_S):
        found = night(store, tmp_path / "models", now_s).data
        assert (found.requests, found.skipped) == (len(created), {})
    store.close()
