"""Benchmark of the policy on recorded answers: on a second file, or cross-validated on one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallback.economics import PriceBook
from training.benchmark.baselines import baselines, best_constant, relative
from training.benchmark.policy import Played, learn, replay
from training.benchmark.recorded import Recorded, read_recorded
from training.fit import folds

TARGETS = (1.0, 0.99, 0.97, 0.95)
SEED = 20241122
FOLDS = 10  # so that the policy learns from nearly as much as it would have in use

Rows = NDArray[np.intp]


def run_benchmark(
    train_path: Path,
    test_path: Path | None,
    *,
    generation: str,
    prices: PriceBook,
    agreement: bool = False,
    seed: int = SEED,
    progress: Callable[[str, float], None] = lambda *_: None,
) -> dict[str, Any]:
    """Replay the whole policy on prompts that it has not seen, at each of TARGETS, with baselines and intervals.

    Every knob is chosen on training prompts only: those of `train_path`, or without `test_path` those of the
    other folds (10, a question never on both sides; inside each, out-of-fold predictions choose the knob).
    Every reply looked at is paid for. `agreement` lets a second sample of the cheapest tier be asked for.
    `progress` is told the step and the share done. Raises RecordedError and TooLittleData.
    """
    progress("reading", 0.0)
    train = read_recorded(train_path, generation, prices, second_samples=agreement)
    if test_path is None:
        test = train
        splits = folds(train.data, seed, FOLDS)
    else:
        test = read_recorded(test_path, generation, prices, second_samples=agreement)
        splits = [(np.arange(len(train)), np.arange(len(test)))]
    played = _play(train, test, splits, seed, progress)
    best = best_constant(test)
    progress("intervals", 0.97)
    return {
        "generation": generation,
        "agreement": agreement,
        "cross_validated": test_path is None,
        "n_train": len(train) if test_path is not None else round(len(train) * (1 - 1 / len(splits))),
        "n_test": len(test),
        "best_constant": best,
        "targets": [
            {
                "target": round(100 * target),
                **relative(each.good, each.cost_usd, test.correct(best), test.costs_usd[best], test.data.groups, seed),
                "shares": {tier: round(float((each.tier == tier).mean()), 4) for tier in test.data.tiers},
            }
            for target, each in played.items()
        ],
        "baselines": baselines(test, played, seed),
    }


def _play(
    train: Recorded,
    test: Recorded,
    splits: list[tuple[Rows, Rows]],
    seed: int,
    progress: Callable[[str, float], None],
) -> dict[float, Played]:
    played = {
        target: Played(np.zeros(len(test)), np.zeros(len(test)), np.zeros(len(test), dtype="<U16"))
        for target in TARGETS
    }
    for number, (inside, outside) in enumerate(splits):
        done = number / len(splits)
        learned = learn(
            train.take(inside),
            TARGETS,
            seed=seed + number,
            progress=lambda step, number=number, done=done: progress(  # type: ignore[misc]
                f"part {number + 1} of {len(splits)}: {step}", 0.03 + 0.9 * done
            ),
        )
        part = test.take(outside)
        for target in TARGETS:
            progress(f"part {number + 1} of {len(splits)}: replaying at {100 * target:.0f} %", 0.03 + 0.9 * done)
            result = replay(learned, part, target)
            played[target].good[outside] = result.good
            played[target].cost_usd[outside] = result.cost_usd
            played[target].tier[outside] = result.tier
    return played
