"""A frontier, the point that is proposed, and the change to the configuration that it comes to."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from router.config import Config
from tests.training.test_training_cli import RECORDS, stored
from training.cli import main
from training.results import Figure
from training.tuning import Point, PointKind, changed, choose, patch


def point(name: str, kind: PointKind, quality: float, cost: float, knob: float | None = None) -> Point:
    return Point(name, kind, Figure(quality, quality, quality, 0.0), Figure(cost, cost, cost, 0.0), knob)


POINTS = (
    point("always haiku", "constant", 0.7, 1.0),
    point("always opus", "constant", 0.9, 9.0),
    point("low", "knob", 0.85, 2.0, 0.01),
    point("middle", "knob", 0.88, 4.0, 0.02),
    point("high", "knob", 0.89, 6.0, 0.04),
)


@pytest.mark.parametrize(("target", "name"), [(0.9, "low"), (0.97, "middle"), (0.98, "high"), (1.0, None)])
def test_the_cheapest_knob_that_reaches_the_target_is_proposed(target: float, name: str | None) -> None:
    chosen = choose(POINTS, target)
    assert (chosen.name if chosen is not None else None) == name


FILE = """# ours
[workloads.triage]
explore = 0.1
mistake_cost_usd = 0.5  # a guess

[[workloads.triage.checks]]
check = "labels"
labels = ["a"]

[workloads.other]
"""


@pytest.mark.parametrize("workload", ["triage", "other", "new"])
def test_one_setting_changes_and_everything_else_stays(workload: str) -> None:
    before, after = tomllib.loads(FILE), tomllib.loads(changed(FILE, workload, 0.0125))
    assert after["workloads"].get(workload, {})["mistake_cost_usd"] == 0.0125
    before["workloads"].setdefault(workload, {}).pop("mistake_cost_usd", None)
    after["workloads"][workload].pop("mistake_cost_usd")
    assert before == after
    assert "# ours" in changed(FILE, workload, 0.0125)


def test_the_patch_is_a_unified_diff() -> None:
    made = patch(FILE, changed(FILE, "triage", 0.0125), "tierwise.toml")
    assert made.startswith("--- a/tierwise.toml\n+++ b/tierwise.toml\n@@")
    assert "-mistake_cost_usd = 0.5  # a guess\n+mistake_cost_usd = 0.0125\n" in made
    assert patch(FILE, FILE, "tierwise.toml") == ""


# --- the commands ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration with a store and a model after its first night, certified."""
    folder = tmp_path_factory.mktemp("tune")
    url = stored(folder / "outcomes.db", RECORDS.log(1500, seed=9, recent=True))
    config = folder / "tierwise.toml"
    config.write_text(
        f'[store]\nurl = "{url}"\n[model]\ndirectory = "{folder}/models"\n'
        "[workloads.easy]\nfalse_accept_max = 0.2\nexplore = 0.4\n"
    )
    done = CliRunner().invoke(main, ["nightly", "--config", str(config)], terminal_width=200)
    assert done.exit_code == 0, done.output
    assert "easy" in done.output
    return config


def test_certify_prints_a_line_for_each_threshold_and_publishes_only_what_changed(configured: Path) -> None:
    done = CliRunner().invoke(main, ["certify", "--config", str(configured)], terminal_width=200)
    assert done.exit_code == 0, done.output
    assert done.output.count("easy") == 4  # haiku and sonnet, to accept and for DIRECT
    again = CliRunner().invoke(main, ["certify", "--config", str(configured)], terminal_width=200)
    assert "nothing to publish" in again.output
    needs = CliRunner().invoke(main, ["certify", "--models", str(configured.parent / "models")])
    assert needs.exit_code == 2


def test_tune_draws_the_log_and_proposes_a_change_without_making_it(configured: Path, tmp_path: Path) -> None:
    text = configured.read_text()
    arguments = ["tune", "--workload", "easy", "--config", str(configured), "--out", str(tmp_path), "--target", "0.8"]
    done = CliRunner().invoke(main, arguments, terminal_width=200)
    assert done.exit_code == 0, done.output
    for name in ("always haiku", "always opus", "current", "certified", "as served", "proposed: $"):
        assert name in done.output
    assert configured.read_text() == text
    page = (tmp_path / "tune-easy.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")
    made = (tmp_path / "tune-easy.patch").read_text()
    assert "+mistake_cost_usd = " in made
    knob = float(made.split("+mistake_cost_usd = ")[1].splitlines()[0])
    assert Config.model_validate(tomllib.loads(changed(text, "easy", knob))).workloads["easy"].mistake_cost_usd == knob


def test_tune_says_what_is_missing(configured: Path, tmp_path: Path) -> None:
    few = CliRunner().invoke(main, ["tune", "--workload", "nobody", "--config", str(configured)])
    assert (few.exit_code, "100 are needed" in few.output) == (1, True)
    assert CliRunner().invoke(main, ["tune", "--workload", "easy"]).exit_code == 2
    assert CliRunner().invoke(main, ["tune", "--workload", "easy", "--recorded", str(configured)]).exit_code == 2
