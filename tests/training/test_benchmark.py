"""The benchmark on a small made-up recording: honest, deterministic, and decided by the code that serves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from rich.console import Console

from fallback.cascade import Ask
from router.scoring import tier_of
from tests.support.fakes import prices
from training.benchmark import run_benchmark, show_benchmark
from training.benchmark.policy import learn, replay, table_of
from training.benchmark.recorded import SECOND, RecordedError, read_recorded
from training.benchmark.run import TARGETS
from training.worth import after, kept, moves, walk

PRICES = prices()
N = 160


def rows(n: int, seed: int, first: int = 0) -> list[dict[str, Any]]:
    """Sums and proofs: haiku is right at sums, sonnet at nearly all, opus at fewer than sonnet."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(first, first + n):
        hard = rng.random() < 0.5
        chances = {"haiku": 0.3 if hard else 0.97, "sonnet": 0.85 if hard else 0.95, "opus": 0.75 if hard else 0.9}
        prompt = f"{'Prove' if hard else 'Add'} item {number} please.\nGive <answer>number</answer>."
        for tier, sample in (("haiku", 1), ("haiku", 2), ("sonnet", 1), ("opus", 1)):
            right = rng.random() < chances[tier]
            answer = number if right else number + int(rng.integers(1, 9))
            doubt = "" if right or rng.random() < 0.3 else "Perhaps, maybe. "
            found.append(
                {
                    "generation": "made-up", "workload": ("sums", "proofs")[number % 2],
                    "prompt_id": f"{('sums', 'proofs')[number % 2]}/{number}", "prompt": prompt, "tier": tier,
                    "sample": sample, "response": f"{doubt}<answer>{answer}</answer>", "correct": float(right),
                    "input_tokens": 30, "output_tokens": 40,
                }
            )  # fmt: skip
    return found


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    parquet.write_table(pa.Table.from_pylist(found), path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("recorded")
    return write(folder / "train.parquet", rows(N, 1)), write(folder / "test.parquet", rows(N, 2, first=N))


@pytest.fixture(scope="module")
def result(files: tuple[Path, Path]) -> dict[str, Any]:
    return run_benchmark(*files, generation="made-up", prices=PRICES)


def test_the_result_has_the_agreed_shape(result: dict[str, Any]) -> None:
    assert [row["target"] for row in result["targets"]] == [100, 99, 97, 95]
    for row in result["targets"]:
        assert row["quality_ci"][0] <= row["quality"] <= row["quality_ci"][1]
        assert row["saved_ci"][0] <= row["saved"] <= row["saved_ci"][1]
    assert (result["n_train"], result["n_test"]) == (N, N)
    assert {"constant", "random_mix", "cost_matched_shuffle", "oracle_router", "perfect_check_cascade"} <= set(
        result["baselines"]
    )


def test_the_best_constant_tier_is_the_measure(result: dict[str, Any]) -> None:
    assert result["best_constant"] == "sonnet"
    own = result["baselines"]["constant"]["sonnet"]
    assert (own["quality"], own["saved"]) == (100.0, 0.0)
    assert result["baselines"]["constant"]["opus"]["saved"] < -50
    assert result["baselines"]["oracle_router"]["quality"] >= 100


def test_what_can_be_told_apart_is_saved(result: dict[str, Any]) -> None:
    lowest = result["targets"][-1]
    assert lowest["saved"] > 30  # half of the requests are sums
    assert lowest["quality_ci"][1] >= 95
    shuffled = result["baselines"]["cost_matched_shuffle"][-1]
    assert shuffled["quality"] < lowest["quality"]
    assert shuffled["saved"] == lowest["saved"]


def test_it_gives_the_same_figures_again(files: tuple[Path, Path], result: dict[str, Any]) -> None:
    assert run_benchmark(*files, generation="made-up", prices=PRICES) == result


def test_answers_of_the_test_file_do_not_reach_the_decisions(files: tuple[Path, Path], tmp_path: Path) -> None:
    train = read_recorded(files[0], "made-up", PRICES, second_samples=False)
    learned = learn(train, TARGETS, seed=0)
    flipped = [row | {"correct": 1.0 - row["correct"]} for row in rows(N, 2, first=N)]
    other = read_recorded(write(tmp_path / "flipped.parquet", flipped), "made-up", PRICES, second_samples=False)
    test = read_recorded(files[1], "made-up", PRICES, second_samples=False)
    assert np.array_equal(replay(learned, test, 0.97).tier, replay(learned, other, 0.97).tier)


def test_every_answer_looked_at_is_paid_for(files: tuple[Path, Path]) -> None:
    train, test = (read_recorded(path, "made-up", PRICES, second_samples=True) for path in files)
    learned = learn(train, (0.97,), seed=0)
    played = replay(learned, test, 0.97)
    for row in range(len(test)):
        assert played.cost_usd[row] >= test.costs_usd[played.tier[row]][row] - 1e-12
    assert set(played.tier) <= {"haiku", "sonnet", "opus"}  # a second sample is never handed back


def test_the_vector_form_takes_the_steps_that_serving_takes(files: tuple[Path, Path]) -> None:
    train = read_recorded(files[0], "made-up", PRICES, second_samples=True)
    learned = learn(train, (0.97,), seed=0)
    knob = learned.knobs[0.97]
    assert knob is not None
    costs = learned.model.mistake_costs_usd
    nearest = int(np.argmin(np.abs(np.log(costs) - np.log(knob))))
    test = read_recorded(files[1], "made-up", PRICES, second_samples=True)
    ended = walk(table_of(learned, test), learned.model.worth, float(costs[nearest]), nearest)
    exact = replay(
        type(learned)(learned.model, learned.expected_usd, "sonnet", {0.97: float(costs[nearest])}), test, 0.97
    )
    assert [tier for _, tier in ended] == exact.tier.tolist()


def test_a_second_sample_may_only_follow_its_own_tier() -> None:
    sources = ("haiku", SECOND, "sonnet", "opus")
    assert moves((), sources) == ["haiku", "sonnet", "opus"]
    assert moves(("haiku",), sources) == [SECOND, "sonnet", "opus"]
    assert moves(("haiku", "sonnet"), sources) == ["opus"]
    assert moves(("sonnet",), sources) == ["opus"]
    assert after(("haiku", "opus"), "sonnet", sources) == ("haiku", "sonnet", "opus")
    assert kept(("haiku", SECOND)) == ["haiku"]
    assert tier_of(SECOND) == "haiku"


def test_left_out_the_test_file_means_cross_validation(files: tuple[Path, Path]) -> None:
    steps: list[tuple[str, float]] = []
    result = run_benchmark(
        files[0], None, generation="made-up", prices=PRICES, agreement=True, progress=lambda *step: steps.append(step)
    )
    assert result["cross_validated"]
    assert result["n_test"] == N
    assert [done for _, done in steps] == sorted(done for _, done in steps)
    shown = io.StringIO()
    show_benchmark(result, Console(file=shown, width=120))
    assert "tierwise at 99 %" in shown.getvalue()


def test_no_feature_reads_the_right_answer(files: tuple[Path, Path], tmp_path: Path) -> None:
    telling = [row | {"reference": str(row["correct"]), "parsed": row["correct"] == 1} for row in rows(20, 1)]
    plain = read_recorded(write(tmp_path / "plain.parquet", rows(20, 1)), "made-up", PRICES, second_samples=False)
    told = read_recorded(write(tmp_path / "told.parquet", telling), "made-up", PRICES, second_samples=False)
    assert np.array_equal(plain.data.replies["haiku"].dense, told.data.replies["haiku"].dense)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b"not parquet"), "not a recording"),
        (lambda path: parquet.write_table(pa.table({"a": [1]}), path), "not a recording"),
        (lambda path: write(path, [row for row in rows(5, 1) if row["tier"] != "opus"]), "no prompt of generation"),
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, spoil: Any, why: str) -> None:
    path = write(tmp_path / "file.parquet", rows(5, 1))
    spoil(path)
    with pytest.raises(RecordedError, match=why):
        read_recorded(path, "made-up", PRICES, second_samples=False)


def test_another_generation_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(RecordedError, match="claude-9"):
        read_recorded(files[0], "claude-9", PRICES, second_samples=False)


def test_a_step_is_a_value() -> None:
    assert Ask("haiku", 1.0) == Ask("haiku", 1.0)
