"""A night over a long log, in a process of its own: prints the most memory that it held, in MB."""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.faults.laws import peak_mb
from fallback.types import Message, Request, TextBlock
from router.features import request_features
from router.store import Recorded
from tests.support.nights import START_S, Log, World
from training.learner import OutcomeLearner
from training.nightly import NightSettings, run_night
from training.registry import Registry
from training.served import Terms

_DIFFERENT = 3_000


class Long(Log):
    """So many outcomes, made as they are read from a few, with words of their own."""

    def __init__(self, few: list[Recorded], rows: int) -> None:
        super().__init__(few)
        self._few, self._rows = few, rows
        self._features = [_features(random.Random(number)) for number in range(_DIFFERENT)]

    def read(self, *, since_s: float = 0.0, until_s: float = float("inf")) -> Iterator[Recorded]:
        """In the order of their ids."""
        del since_s, until_s
        for number, each in enumerate(itertools.islice(itertools.cycle(self._few), self._rows)):
            features = self._features[number % _DIFFERENT]
            outcome = replace(each.outcome, request_id=f"{number:032x}", request_features=features)
            yield Recorded(outcome, each.feedback)


def _features(rng: random.Random) -> bytes:
    """Of a request of two hundred words."""
    text = " ".join(f"w{rng.randrange(5_000)}" for _ in range(200))
    return request_features(Request("w", (Message("user", (TextBlock(text),)),), 100, 100)).to_bytes()


def main(rows: int) -> None:
    """One night."""
    few = World(feedback=0.5).log(2_000, seed=1)
    learner = OutcomeLearner(lambda _: Terms(("haiku", "sonnet", "opus")))
    with tempfile.TemporaryDirectory() as folder:
        night = run_night(
            Long(few, rows), Registry(Path(folder)), learner, NightSettings(seed=1), now_s=START_S + 86_400.0
        )
    print(night.result, night.data.requests, f"{peak_mb():.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
