"""The laws hold over many seeds, one seed is one history to the byte, and each law notices what it is there for."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fallback.breaker import Breaker, Permit
from fallback.budget import RetryBudget
from fallback.ledger import Ledger
from fallback.types import Attempt
from router.admission import Admission
from tests.simulation.disk import SimStore
from tests.simulation.journal import BrokenLaw
from tests.simulation.provider import SimProvider
from tests.simulation.scenario import play

SEEDS = int(os.environ.get("SEEDS", "300"))
PARTS = 12


@pytest.fixture(autouse=True)
def _quiet_logs() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def _play_many(seeds: int) -> None:
    for seed in range(seeds):
        play(seed)


@pytest.mark.parametrize("seed", [302, 518, 2292])
def test_seeds_that_broke_a_law_once_hold(seed: int) -> None:
    play(seed)


@pytest.mark.parametrize("part", range(PARTS))
def test_laws_hold(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        history = play(seed)
        assert history.counts["start"] >= 2


def test_the_command_tries_seeds_and_counts() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "2", "--jobs", "1"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 seeds from 0: 0 broken, ")


def test_every_kind_of_trouble_occurs() -> None:
    seen = {line.split()[1] for seed in range(40) for line in play(seed).lines}
    assert seen >= {
        "kill",
        "stop",
        "reload",
        "model",
        "clock",
        "disk",
        "weather",
        "gone",
        "lost",
        "journalled",
        "refused",
        "reply",
    }


def test_one_seed_is_one_history() -> None:
    code = "import logging; logging.disable(50); from tests.simulation.scenario import play; print(play(7).digest)"
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
    assert digests != {play(8).digest + "\n"}


def _forgetful_store(patch: pytest.MonkeyPatch) -> None:
    write = SimStore.write
    patch.setattr(SimStore, "write", lambda store, outcomes: write(store, outcomes[1:]))


def _double_entry(patch: pytest.MonkeyPatch) -> None:
    honest = Ledger.cost_usd.fget
    assert honest is not None
    patch.setattr(Ledger, "cost_usd", property(lambda ledger: 2 * honest(ledger)))


def _unguarded(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Breaker, "permit", lambda _: Permit(lambda ending: None))


def _boundless(patch: pytest.MonkeyPatch) -> None:
    _unguarded(patch)
    patch.setattr(RetryBudget, "allows", property(lambda _: True))


def _hidden_retry(patch: pytest.MonkeyPatch) -> None:
    answer = SimProvider._answer

    async def twice(provider: SimProvider, *args: object) -> object:
        if provider._rng.random() < 0.05:
            provider.calls.update(dict.fromkeys(provider.calls, 1))
        return await answer(provider, *args)  # type: ignore[arg-type]

    patch.setattr(SimProvider, "_answer", twice)


def _judged_failure(patch: pytest.MonkeyPatch) -> None:
    attempted = Ledger.attempted

    def mislabel(ledger: Ledger, attempt: Attempt) -> None:
        attempted(ledger, attempt)
        if ledger.attempts[0].checks:
            ledger.judged(attempt.result, ledger.attempts[0].checks)  # type: ignore[arg-type]

    patch.setattr(Ledger, "attempted", mislabel)


def _leaking_admission(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Admission, "in_flight", property(lambda self: 1, lambda self, value: None), raising=False)


@pytest.mark.parametrize(
    ("plant", "laws"),
    [
        (_forgetful_store, ("recorded means on disk",)),
        (_double_entry, ("money adds up",)),
        (_unguarded, ("an open breaker lets no call pass", "half open admits a counted few")),
        (_boundless, ("the retry budget holds", "an open breaker lets no call pass", "half open admits")),
        (_hidden_retry, ("attempts are calls", "attempts are upstream calls")),
        (_judged_failure, ("a Failure gets no verdict", "a Failure gives no label")),
        (_leaking_admission, ("nothing is in flight after the end",)),
    ],
)
def test_a_planted_fault_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], laws: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(BrokenLaw, match="|".join(laws)):
        _play_many(60)
