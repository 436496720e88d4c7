from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from router.model import load_model
from router.store import Recorded
from router.store.sql import SqlStore
from tests.support.nights import World
from tests.training.registry_kills import publish
from training import benchmark
from training.cli import FAILED, LOCK_HELD, PUBLISHED, REFUSED, main
from training.registry import Registry

REPOSITORY = Path(__file__).parents[2]
# Recent enough for the window whenever the tests run: ids, not times, give the order.
RECORDS = World(feedback=0.8, caught=1.0, explore=0.4, start="sonnet", labels={"simulated": "true"})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], terminal_width=200)


def stored(path: Path, records: Sequence[Recorded]) -> str:
    url = f"sqlite:///{path}"
    store = SqlStore(url)
    store.write([record.outcome for record in records])
    for record in records:
        if record.feedback is not None:
            store.report(record.feedback, window_s=1e12)
    store.close()
    return url


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stored(tmp_path_factory.mktemp("store") / "outcomes.db", RECORDS.log(1000, seed=9, recent=True))


@pytest.fixture(scope="module")
def models(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry after a first night with the real learner."""
    folder = tmp_path_factory.mktemp("models")
    done = run("nightly", "--store", store, "--models", folder, "--report", folder / "report.html")
    assert done.exit_code == PUBLISHED, done.output
    return folder


def test_a_night_publishes_a_model_that_the_service_can_load(models: Path) -> None:
    version = Registry(models).current()
    assert version is not None
    model = load_model(models / "versions" / version)
    assert (model.version, model.tiers) == (version, ("haiku", "sonnet", "opus"))
    assert set(model.quality_costs_usd) == {"95", "97", "99", "100"}
    report = (models / "report.html").read_text(encoding="utf-8")
    assert f"Published {version}, the first model" in report
    assert "Simulated data" in report
    for name, share in model.caught.items():
        assert f"share of bad replies that is noticed in {name}" in report
        assert f"{share:.4g}" in report
    assert model.caught


def test_the_same_night_again_has_nothing_to_do(store: str, models: Path) -> None:
    before = Registry(models).versions()
    again = run("nightly", "--store", store, "--models", models)
    assert again.exit_code == PUBLISHED
    assert "Nothing to do" in again.output
    assert Registry(models).versions() == before


def test_models_are_listed_with_the_current_one_marked(models: Path) -> None:
    listed = run("models", "--models", models)
    assert listed.exit_code == 0
    [line] = [line for line in listed.output.splitlines() if str(Registry(models).current()) in line]
    assert line.startswith("→")
    assert "passed, serves" in line


def test_a_report_can_be_written_again(models: Path, tmp_path: Path) -> None:
    for extra in ((), ("--version", Registry(models).current())):
        done = run("report", "--models", models, "--out", tmp_path / "again.html", *extra)
        assert done.exit_code == 0, done.output
        assert "<svg" in (tmp_path / "again.html").read_text(encoding="utf-8")


def test_a_config_file_says_where_things_are(store: str, models: Path, tmp_path: Path) -> None:
    config = tmp_path / "tierwise.toml"
    config.write_text(f'[store]\nurl = "{store}"\n[model]\ndirectory = "{models}"\n', encoding="utf-8")
    assert str(Registry(models).current()) in run("models", "--config", config).output


def test_too_little_data_is_refused_with_the_exit_code_of_the_gate(tmp_path: Path) -> None:
    url = stored(tmp_path / "few.db", RECORDS.log(30, recent=True))
    done = run("nightly", "--store", url, "--models", tmp_path / "models")
    assert done.exit_code == REFUSED
    assert "too little data: 21 labelled requests" in done.output


def test_rollback_says_what_serves_now(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        publish(Registry(tmp_path), version)
    done = run("rollback", "--models", tmp_path)
    assert (done.exit_code, done.output.startswith("v1 serves again; v2 is withdrawn")) == (0, True)
    again = run("rollback", "--models", tmp_path)
    assert (again.exit_code, "v1 is current and nothing is before it" in again.output) == (FAILED, True)


def test_a_held_lock_has_its_own_exit_code(store: str, tmp_path: Path) -> None:
    with Registry(tmp_path).night():
        done = run("nightly", "--store", store, "--models", tmp_path)
    assert (done.exit_code, "held by process" in done.output) == (LOCK_HELD, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nightly", "--models", "m"), "--store is needed"),
        (("nightly", "--store", "sqlite://"), "--models is needed"),
        (("nightly", "--store", "sqlite://", "--models", "m", "--target", "1.5"), "--target"),
        (("nightly", "--store", "sqlite://", "--models", "m", "--seed", "-1"), "--seed"),
        (("models",), "--models is needed"),
        (("rollback", "--config", "nowhere.toml"), "--config"),
        (("report", "--models", "m"), "--out"),
        (("benchmark", "--generation", "g"), "--train"),
    ],
)
def test_wrong_usage_is_said(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert (done.exit_code, said in done.output) == (2, True), done.output


def test_a_wrong_config_is_wrong_usage(tmp_path: Path) -> None:
    config = tmp_path / "tierwise.toml"
    config.write_text("[store]\nurl = 7\n", encoding="utf-8")
    done = run("models", "--config", config)
    assert (done.exit_code, "store.url" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nightly", "--store", "nosuch://db", "--models", "m"), "url"),
        (("report", "--models", "m", "--out", "r.html"), "there is no night to report"),
        (("report", "--models", "m", "--version", "v9", "--out", "r.html"), "no version v9"),
    ],
)
def test_what_cannot_be_done_is_one_line_not_a_traceback(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.exit_code == FAILED
    assert said in done.output.splitlines()[-1]


def test_an_empty_registry_is_no_error(tmp_path: Path) -> None:
    done = run("models", "--models", tmp_path)
    assert (done.exit_code, "static plans" in done.output) == (0, True)


def test_benchmark_hands_over_its_options_and_writes_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def measured(train: Path, test: Path | None, **options: Any) -> dict[str, Any]:
        options.pop("progress")("reading", 0.0)
        asked.update(options, train=train, test=test, prices=options["prices"].as_of != "")
        return {"targets": [], "n_test": 3}

    monkeypatch.setattr(benchmark, "run_benchmark", measured)
    monkeypatch.setattr(benchmark, "show_benchmark", lambda *_: None)
    train, out = tmp_path / "a.parquet", tmp_path / "deep" / "out.json"
    train.touch()
    done = run("benchmark", "--train", train, "--generation", "claude-3", "--seed", 7, "--json", out)
    assert done.exit_code == 0, done.output
    assert asked == {
        "train": train, "test": None, "generation": "claude-3", "seed": 7, "agreement": False, "prices": True,
    }  # fmt: skip
    assert json.loads(out.read_text(encoding="utf-8")) == {"targets": [], "n_test": 3}


def test_exit_codes_are_documented() -> None:
    text = " ".join(run("nightly", "--help").output.split())
    assert "0 published or nothing to do; 1 failed; 2 wrong usage; 3 refused by the gate; 4 lock held." in text


def test_asking_for_help_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'sklearn', 'matplotlib', 'sqlalchemy', 'pydantic', 'rich'}"
    code = f"import sys, training.cli; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
