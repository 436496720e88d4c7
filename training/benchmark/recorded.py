"""Recorded answers as training rows: one request per prompt, each tier's reply, whether it was right, its cost.

The file's columns are those of the recorded data's own README. `correct` is used for labels and for scoring
only, and `reference` and `parsed` not at all: no feature may know the right answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fallback.answers import Answer, agreement, find_answer
from fallback.economics import PriceBook
from fallback.types import Message, Reply, Request, StopReason, TextBlock, Usage
from router.features import DENSE_NAMES, Features, request_features
from router.reply_features import REPLY_NAMES, reply_features
from router.scoring import Pair
from training.heads import TrainingSet, Vectors

Array = NDArray[np.float64]

TIERS = ("haiku", "sonnet", "opus")
TODAY: Mapping[str, str] = {"haiku": "claude-haiku-5-5", "sonnet": "claude-sonnet-5-5", "opus": "claude-opus-5-5"}
SECOND = "haiku#2"
_COLUMNS = (
    "generation", "workload", "prompt_id", "prompt", "tier", "sample", "response", "correct", "input_tokens",
    "output_tokens",
)  # fmt: skip
_MAX_TOKENS = 4096


class RecordedError(ValueError):
    """The file is no recording of this kind, or holds too little; the message says what."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """n prompts, complete: `data` for fitting; `costs_usd` (n,) paid by source; `features` and `replies` per prompt."""

    data: TrainingSet
    costs_usd: Mapping[str, Array]
    features: tuple[Features, ...]
    replies: Mapping[str, tuple[Features, ...]]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: NDArray[np.intp]) -> Recorded:
        """The given prompts."""
        return Recorded(
            self.data.take(rows),
            {source: cost[rows] for source, cost in self.costs_usd.items()},
            tuple(self.features[row] for row in rows),
            {source: tuple(vectors[row] for row in rows) for source, vectors in self.replies.items()},
        )

    def correct(self, tier: str) -> Array:
        """(n,) 1 right, 0 wrong."""
        return self.data.labels[tier]


def read_recorded(path: Path, generation: str, prices: PriceBook, *, second_samples: bool) -> Recorded:
    """The prompts of one generation that every source answered, by prompt id. RecordedError when there is none."""
    answers: defaultdict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    for row in _rows(path):
        source = row["tier"] if row["sample"] == 1 else f"{row['tier']}#{row['sample']}"
        if row["generation"] == generation:
            answers[row["workload"], row["prompt_id"]][source] = row
    sources = (TIERS[0], SECOND, *TIERS[1:]) if second_samples else TIERS
    complete = [found for _, found in sorted(answers.items()) if all(source in found for source in sources)]
    if not complete:
        raise RecordedError(f"{path.name}: no prompt of generation {generation!r} has all of {', '.join(sources)}")
    return _recorded(complete, sources, prices)


def _rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowInvalid, parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path, columns=list(_COLUMNS)).to_pylist()
    except FileNotFoundError:
        raise RecordedError(f"{path} does not exist") from None
    except (ArrowInvalid, OSError, KeyError, ValueError) as error:
        raise RecordedError(f"{path.name}: not a recording of answers ({type(error).__name__})") from None
    return rows


def _recorded(complete: list[dict[str, Any]], sources: tuple[str, ...], prices: PriceBook) -> Recorded:
    features: list[Features] = []
    replies: dict[str, list[Features]] = {source: [] for source in sources}
    answers: dict[str, list[Answer]] = {source: [] for source in sources}
    for found in complete:
        first = found[sources[0]]
        request = _request(first)
        features.append(request_features(request))
        for source in sources:
            reply = _reply(found[source])
            replies[source].append(reply_features(request, reply))
            answers[source].append(find_answer(reply.text))
    agree: dict[Pair, Array] = {
        pair: np.array([agreement(one, other) for one, other in zip(answers[pair[0]], answers[pair[1]], strict=True)])
        for pair in combinations(sources, 2)
    }
    data = TrainingSet(
        tiers=TIERS,
        sources=sources,
        workloads=np.array([found[sources[0]]["workload"] for found in complete]),
        # The same question is asked in two workloads: what follows the workload in its id is the question.
        groups=np.array([found[sources[0]]["prompt_id"].partition("/")[2] for found in complete]),
        requests=Vectors.of(features, len(DENSE_NAMES)),
        replies={source: Vectors.of(vectors, len(REPLY_NAMES)) for source, vectors in replies.items()},
        labels={source: np.array([float(found[source]["correct"]) for found in complete]) for source in sources},
        agree=agree,
    )
    costs = {source: np.array([_cost_usd(found[source], prices) for found in complete]) for source in sources}
    return Recorded(data, costs, tuple(features), {source: tuple(each) for source, each in replies.items()})


def _request(row: Mapping[str, Any]) -> Request:
    message = Message("user", (TextBlock(str(row["prompt"])),))
    return Request(str(row["workload"]), (message,), _MAX_TOKENS, _MAX_TOKENS)


def _usage(row: Mapping[str, Any]) -> Usage:
    return Usage(input_tokens=int(row["input_tokens"]), output_tokens=int(row["output_tokens"]))


def _reply(row: Mapping[str, Any]) -> Reply:
    return Reply((TextBlock(str(row["response"])),), StopReason.END_TURN, _usage(row), str(row["tier"]))


def _cost_usd(row: Mapping[str, Any], prices: PriceBook) -> float:
    return prices.cost_usd(TODAY[str(row["tier"])], _usage(row))
