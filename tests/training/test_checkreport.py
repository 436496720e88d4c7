"""What each check is worth: rates, AUROC, gain, by hand and by simulation; and the command."""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from fallback.types import Accept, CheckReport, Reject, Unjudged, Verdict
from router.outcome import AuditVerdict, Feedback
from router.store import Recorded
from router.store.sql import SqlStore
from tests.support import outcomes as make
from training.checkreport import CheckWorth, auroc, check_report
from training.cli import main

LADDER = ("haiku", "sonnet", "opus")
HAIKU_USD, SONNET_USD, MISTAKE_USD = 0.001, 0.01, 0.5
numbers = itertools.count(1)


def judged(
    *reports: CheckReport, good: bool | None, tier: str = "haiku", sufficient: str = "", **fields: Any
) -> Recorded:
    """One reply with its reports; `good` is the caller's word, or None."""
    n = next(numbers)
    cost = {"haiku": HAIKU_USD, "sonnet": SONNET_USD, "opus": 0.05}[tier]
    attempt = replace(make.attempt(tier), checks=reports, cost_usd=cost)
    outcome = make.outcome(n, attempts=[attempt], resolved_tier=tier, **fields)
    feedback = None if good is None else Feedback(make.request_id(n), good, sufficient_tier=sufficient)
    return Recorded(outcome, feedback)


def report(verdict: Verdict, score: float | None = None, *, name: str = "judge", **more: Any) -> CheckReport:
    return CheckReport(name, "1", verdict, score, **more)


def only(records: list[Recorded], check: str = "judge", mistake_usd: float | None = MISTAKE_USD) -> CheckWorth:
    [found] = [each for each in check_report(records, LADDER, lambda _: mistake_usd) if each.check == check]
    return found


YES, NO, UNSURE = Accept(), Reject("no"), Unjudged("abstained")


def test_rates_are_of_the_bad_and_of_the_good_and_unjudged_is_neither() -> None:
    records = [
        *(judged(report(YES), good=True) for _ in range(6)),
        *(judged(report(NO), good=True) for _ in range(2)),
        *(judged(report(YES), good=False) for _ in range(1)),
        *(judged(report(NO), good=False) for _ in range(3)),
        *(judged(report(UNSURE), good=False) for _ in range(4)),
        *(judged(report(YES), good=None) for _ in range(10)),
    ]
    found = only(records)
    assert (found.n, found.labelled, found.unjudged) == (26, 16, 4)
    assert found.false_accept.value == pytest.approx(1 / 4)
    assert found.false_reject.value == pytest.approx(2 / 8)
    assert found.false_accept.low < 1 / 4 < found.false_accept.high
    assert found.false_reject.high - found.false_reject.low < found.false_accept.high - found.false_accept.low
    assert math.isnan(found.auroc.value)


def test_an_audit_stands_for_as_many_as_it_was_drawn_from() -> None:
    def audited(verdict: AuditVerdict, propensity: float) -> Recorded:
        bare = judged(report(YES), good=None)
        audit = make.audit(verdict=verdict, propensity=propensity, method=make.audit().method)
        return Recorded(bare.outcome, None, (replace(audit, request_id=bare.outcome.request_id),))

    rejected = [judged(report(NO), good=False) for _ in range(10)]
    found = only([audited(AuditVerdict.BAD, 0.1), *rejected])
    assert found.false_accept.value == pytest.approx(10 / 20)
    assert found.false_accept.high - found.false_accept.low > 0.4  # of one lucky draw, not of ten


def test_gain_is_what_it_changed_less_what_it_cost() -> None:
    # Sonnet's replies are good in 3 of 4 cases and cost a cent.
    sonnet = [judged(good=good, tier="sonnet") for good in (True, True, True, False)]
    on = MISTAKE_USD * 0.75 - SONNET_USD  # what going on is worth
    cost = 0.002

    def gain(good: bool, *reports: CheckReport) -> float:  # noqa: FBT001 - the label
        records = [judged(*reports, good=good) for _ in range(3)]
        return only([*sonnet, *records]).gain_usd.value

    paid = {"cost_usd": cost, "calls": 1}
    scorer_yes, scorer_no = (report(verdict, 0.5, name="scorer") for verdict in (YES, NO))
    assert gain(False, report(NO, **paid)) == pytest.approx(on - cost)  # a mistake caught
    assert gain(True, report(NO, **paid)) == pytest.approx(on - MISTAKE_USD - cost)  # a good one sent on
    assert gain(True, report(YES, **paid)) == pytest.approx(-cost)
    assert gain(True, scorer_no, report(YES, **paid)) == pytest.approx(MISTAKE_USD - on - cost)  # an escalation avoided
    assert gain(False, scorer_no, report(YES, **paid)) == pytest.approx(-on - cost)
    assert gain(False, scorer_no, report(NO, **paid)) == pytest.approx(-cost)
    assert gain(False, scorer_yes, report(NO, **paid)) == pytest.approx(on - cost)
    assert gain(False, scorer_no, report(UNSURE, **paid)) == pytest.approx(-cost)
    top = [judged(report(NO, **paid), good=False, tier="opus") for _ in range(3)]
    assert only(top).gain_usd.value == pytest.approx(-cost)


@pytest.mark.parametrize(("error", "cost_usd", "pays"), [(0.05, 0.001, "yes"), (0.5, 0.05, "no"), (0.05, 0.4, "no")])
def test_a_simulated_judge_is_found_out(error: float, cost_usd: float, pays: str) -> None:
    rng = Random(3)
    records = [judged(good=True, tier="sonnet")]
    for _ in range(600):
        good = rng.random() < 0.7
        wrong = rng.random() < error
        score = min(1.0, max(0.0, 0.5 + (0.2 if good is not wrong else -0.2) + rng.uniform(-0.3, 0.3)))
        verdict = YES if good is not wrong else NO
        records.append(judged(report(verdict, score, cost_usd=cost_usd, calls=1), good=good))
    found = only(records)
    assert found.pays == pays
    assert found.false_accept.value == pytest.approx(error, abs=0.1)  # of about 180, more than two deviations
    assert found.false_reject.value == pytest.approx(error, abs=0.07)
    if error == 0.5:
        assert found.gain_usd.low > 0 > found.skill_usd.high  # a coin gains as much for nothing
    assert (found.auroc.low > 0.7) is (error < 0.1)
    assert found.mean_calls == 1
    assert found.mean_cost_usd == pytest.approx(cost_usd)


def test_what_a_mistake_costs_is_the_workloads_word_or_what_decisions_took_it_to_be() -> None:
    plain = [judged(report(YES), good=True) for _ in range(3)]
    assert only(plain, mistake_usd=0.25).mistake_cost_usd == 0.25
    assert only(plain, mistake_usd=None).mistake_cost_usd == pytest.approx(20 * HAIKU_USD)
    decided = [
        Recorded(replace(each.outcome, decision=replace(each.outcome.decision, mistake_cost_usd=0.125)), each.feedback)
        for each in plain
    ]
    assert only(decided, mistake_usd=None).mistake_cost_usd == pytest.approx(0.125)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_auroc_is_the_share_of_pairs_in_order(scored: list[tuple[int, bool]]) -> None:
    found = auroc([(score / 4, good, 1.0) for score, good in scored])
    good, bad = [s for s, g in scored if g], [s for s, g in scored if not g]
    if not good or not bad:
        assert math.isnan(found.value)
        return
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in good for b in bad)
    assert found.value == pytest.approx(wins / (len(good) * len(bad)))
    assert 0 <= found.low <= found.value <= found.high <= 1


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration whose store holds a day of one workload."""
    url = f"sqlite:///{tmp_path}/outcomes.db"
    store, now = SqlStore(url), time.time()
    for n in range(40):
        one = judged(
            report(YES if n % 4 else NO, 0.9 if n % 4 else 0.1, cost_usd=0.001, calls=1),
            good=n % 8 != 0,
            received_at_s=now - n,
            workload="w",
        )
        store.write([one.outcome])
        assert one.feedback is not None
        store.report(replace(one.feedback, reported_at_s=now), window_s=1e9)
    store.close()
    path = tmp_path / "tierwise.toml"
    path.write_text(f'[store]\nurl = "{url}"\n[workloads.w]\nmistake_cost_usd = 0.5\n', encoding="utf-8")
    return path


def test_the_command_shows_and_prints_json(config: Path) -> None:
    shown = CliRunner().invoke(main, ["checks", "--config", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "judge" in shown.output
    printed = CliRunner().invoke(main, ["checks", "--config", str(config), "--json"])
    [row] = json.loads(printed.output)
    assert (row["workload"], row["check"], row["n"], row["labelled"]) == ("w", "judge", 40, 40)
    assert row["false_accept"]["value"] == 0
    assert row["false_reject"]["value"] == pytest.approx(5 / 35)
    assert row["auroc"]["value"] == pytest.approx(1 - 5 / 35 / 2)
    assert row["mistake_cost_usd"] == 0.5
    assert row["pays"] in ("yes", "no", "not shown")


def test_no_store_is_an_error_and_no_outcomes_are_none(tmp_path: Path) -> None:
    missing = CliRunner().invoke(main, ["checks", "--store", f"sqlite:///{tmp_path}/none.db"])
    assert missing.exit_code == 1
    assert "there is no store" in missing.output
    SqlStore(f"sqlite:///{tmp_path}/empty.db").close()
    empty = CliRunner().invoke(main, ["checks", "--store", f"sqlite:///{tmp_path}/empty.db"])
    assert (empty.exit_code, "nothing has been judged" in empty.output) == (0, True)
    assert CliRunner().invoke(main, ["checks"]).exit_code == 2
