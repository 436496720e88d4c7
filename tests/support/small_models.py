"""A small model with made-up weights, and its files, without scikit-learn."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from router.features import BUCKETS, DENSE_NAMES, FEATURES_VERSION
from router.model import FORMAT, MANIFEST, WEIGHTS
from router.reply_features import REPLY_FEATURES_VERSION, REPLY_NAMES
from router.scoring import Array, Heads, RouterModel, Stack, State, Tied, stack_inputs, worth_inputs

TIERS = ("haiku", "sonnet", "opus")
WORKLOADS = ("code", "maths")
STATES: tuple[State, ...] = ((), ("haiku",), ("haiku", "sonnet"))


def small_model(version: str = "small-1", seed: int = 0) -> RouterModel:
    """Three tiers, two workloads, stacks for a few states and the worth of the first step."""
    rng = np.random.default_rng(seed)
    width, both = len(DENSE_NAMES), len(DENSE_NAMES) + len(REPLY_NAMES)
    onehot = np.zeros((1, len(WORKLOADS)))

    def heads(buckets: int, columns: int) -> Heads:
        words = np.zeros((len(TIERS), buckets), dtype=np.float32)
        words[:, rng.integers(0, buckets, 500)] = rng.normal(size=(len(TIERS), 500))
        return Heads(words, rng.normal(size=(len(TIERS), columns)) * 0.1, rng.normal(size=len(TIERS)))

    def stack(state: State) -> Stack:
        own = {source: np.zeros(1) for source in state}
        agree: dict[tuple[str, str], Array] = {pair: np.zeros((1, 2)) for pair in combinations(state, 2)}
        columns = stack_inputs(state, own, np.zeros((1, len(TIERS))), agree, onehot).shape[1]
        return Stack(rng.normal(size=(len(TIERS), columns)) * 0.3, rng.normal(size=len(TIERS)))

    columns = worth_inputs(np.full((1, len(TIERS)), 0.5), onehot).shape[1]
    return RouterModel(
        version=version,
        tiers=TIERS,
        sources=TIERS,
        workloads=WORKLOADS,
        mean=np.zeros(both),
        scale=np.ones(both),
        request=heads(BUCKETS, width),
        replies=heads(2 * BUCKETS, both),
        stacks={state: stack(state) for state in STATES},
        mistake_costs_usd=np.geomspace(0.001, 1.0, 4),
        worth={((), tier): np.abs(rng.normal(size=(4, columns))) * 0.1 for tier in TIERS},
        caught={"maths": 0.8},
        tied=Tied(6.0, 2.0),
        quality_costs_usd={"99": 0.05},
        metrics={"auroc": 0.8},
    )


def plain_model() -> RouterModel:
    """The same with nothing measured of the chain rule."""
    return replace(small_model(), caught={}, tied=Tied())


def write_model(model: RouterModel, directory: Path) -> None:
    """The files that serving reads."""
    from training.artifacts import packed_weights

    content = packed_weights(model)
    (directory / WEIGHTS).write_bytes(content)
    manifest = {
        "format": FORMAT,
        "version": model.version,
        "features_version": FEATURES_VERSION,
        "reply_features_version": REPLY_FEATURES_VERSION,
        "tiers": list(model.tiers),
        "sources": list(model.sources),
        "workloads": list(model.workloads),
        "quality_costs_usd": dict(model.quality_costs_usd),
        "caught": dict(model.caught),
        "odds_ratios": asdict(model.tied),
        "metrics": dict(model.metrics),
        "files": {WEIGHTS: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }
    (directory / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
