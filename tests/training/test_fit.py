"""Fitting: what can be learned is learned, what is missing is left out, and the arrays are the estimators."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fallback.types import Message, Reply, Request, StopReason, TextBlock, Usage
from router.features import DENSE_NAMES, request_features
from router.model import MANIFEST, ModelError, Seen, load_model
from router.reply_features import REPLY_NAMES, reply_features
from router.scoring import dense_inputs, sigmoid
from training.artifacts import ESTIMATORS, load_estimators, save_model
from training.fit import Fitted, TooLittleData, TrainingSet, Vectors, default_states, fit_router

TIERS = ("haiku", "sonnet", "opus")
N = 240


def world(n: int = N, seed: int = 0, *, partial: bool = False) -> tuple[TrainingSet, list[Request], list[Reply]]:
    """Hard requests say so; haiku fails at them and hedges, sonnet fails at a few, opus hardly ever."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    labels = {
        "haiku": np.where(hard, rng.random(n) < 0.15, rng.random(n) < 0.95).astype(float),
        "sonnet": np.where(hard, rng.random(n) < 0.7, rng.random(n) < 0.97).astype(float),
        "opus": (rng.random(n) < 0.9).astype(float),
    }
    texts = [f"{'prove the theorem' if each else 'add the numbers'} number {i}" for i, each in enumerate(hard)]
    requests = [
        Request(("maths", "code")[i % 2], (Message("user", (TextBlock(text),)),), 100, 100)
        for i, text in enumerate(texts)
    ]
    replies = {
        tier: [
            Reply(
                (TextBlock("it is 7" if good or rng.random() < 0.4 else "perhaps, maybe 8, I am not sure"),),
                StopReason.END_TURN, Usage(output_tokens=9), tier,
            )
            for good in labels[tier]
        ]
        for tier in TIERS
    }  # fmt: skip
    if partial:
        for tier in TIERS[1:]:
            labels[tier][rng.random(n) < 0.4] = np.nan
    vectors = {
        tier: Vectors.of(
            [
                None if np.isnan(label) else reply_features(request, reply)
                for request, reply, label in zip(requests, replies[tier], labels[tier], strict=True)
            ],
            len(REPLY_NAMES),
        )
        for tier in TIERS
    }
    pairs = [("haiku", "sonnet"), ("haiku", "opus"), ("sonnet", "opus")]
    data = TrainingSet(
        TIERS,
        TIERS,
        np.array([request.workload for request in requests]),
        np.array([str(i) for i in range(n)]),
        Vectors.of([request_features(request) for request in requests], len(DENSE_NAMES)),
        vectors,
        labels,
        {pair: np.stack([labels[pair[0]] == labels[pair[1]], np.full(n, 0.5)], axis=1).astype(float) for pair in pairs},
    )
    return data, requests, replies["haiku"]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_router(world()[0], version="test-1", states=default_states(TIERS))


def test_what_can_be_learned_is_learned(fitted: Fitted) -> None:
    data, requests, replies = world(seed=1)
    hard = np.array(["prove" in request.texts()[0] for request in requests])
    before = np.array([fitted.model.probabilities(request_features(r), r.workload)["haiku"] for r in requests])
    assert before[~hard].mean() == pytest.approx(0.95, abs=0.08)
    assert before[hard].mean() == pytest.approx(0.15, abs=0.08)
    after = np.array(
        [
            fitted.model.reply_probability("haiku", request_features(r), reply_features(r, reply), r.workload)
            for r, reply in zip(requests, replies, strict=True)
        ]
    )
    good = data.labels["haiku"]
    assert np.mean((after - good) ** 2) < np.mean((before - good) ** 2)  # the reply tells something more


def test_a_reply_changes_what_is_believed_of_the_other_tiers(fitted: Fitted) -> None:
    _, requests, replies = world(seed=1)
    request, reply = requests[0], reply_features(requests[0], replies[0])
    before = fitted.model.probabilities(request_features(request), request.workload)
    after = fitted.model.believe(request_features(request), request.workload, [Seen("haiku", reply)])
    assert after["sonnet"] != before["sonnet"]


def test_the_same_data_give_the_same_model(fitted: Fitted) -> None:
    again = fit_router(world()[0], version="test-1", states=default_states(TIERS))
    assert np.array_equal(again.model.request.words, fitted.model.request.words)
    assert np.array_equal(again.model.replies.dense, fitted.model.replies.dense)
    for state, stack in fitted.model.stacks.items():
        assert np.array_equal(again.model.stacks[state].weights, stack.weights)


def test_beliefs_for_the_knob_are_held_out(fitted: Fitted) -> None:
    data, _, _ = world()
    assert set(fitted.beliefs) == set(default_states(TIERS))
    noise = replace(data, labels={tier: np.random.default_rng(5).permutation(data.labels[tier]) for tier in TIERS})
    beliefs = fit_router(noise, version="noise", states=[()]).beliefs[()][:, 0]
    good = noise.labels["haiku"]
    # In-sample, so many words would learn labels made of noise by heart.
    assert abs(beliefs[good == 1].mean() - beliefs[good == 0].mean()) < 0.1


def test_a_group_never_stands_on_both_sides() -> None:
    data, _, _ = world()
    # Every request twice: by heart only if its twin is in the training part.
    twice = data.take(np.concatenate([np.arange(N), np.arange(N)]))
    noise = np.random.default_rng(3).integers(0, 2, N).astype(float)
    twins = replace(twice, labels={tier: np.concatenate([noise, noise]) for tier in TIERS})
    beliefs = fit_router(twins, version="twins", states=[()]).beliefs[()][:, 0]
    assert abs(beliefs[np.tile(noise, 2) == 1].mean() - beliefs[np.tile(noise, 2) == 0].mean()) < 0.1


def test_labels_may_be_partial() -> None:
    data, _, _ = world(partial=True)
    model = fit_router(data, version="partial", states=default_states(TIERS)).model
    assert ("haiku",) in model.stacks
    assert np.isfinite(model.request.words).all()


def test_weights_count() -> None:
    data, requests, _ = world()
    low = np.where(data.labels["haiku"] == 1, 0.05, 1.0)
    light = fit_router(replace(data, weights={"haiku": low}), version="w", states=[()]).model
    plain = fit_router(data, version="p", states=[()]).model
    features = request_features(requests[0])
    assert light.probabilities(features, "maths")["haiku"] < plain.probabilities(features, "maths")["haiku"]


@pytest.mark.parametrize("count", [10, 39])
def test_too_few_examples_are_said(count: int) -> None:
    with pytest.raises(TooLittleData, match=r"haiku: .* good and .* bad"):
        fit_router(world(count)[0], version="few", states=[()])


def test_a_tier_that_never_fails_is_said() -> None:
    data, _, _ = world()
    always = replace(data, labels={**data.labels, "opus": np.ones(N)})
    with pytest.raises(TooLittleData, match="opus: 240 good and 0 bad"):
        fit_router(always, version="one-class", states=[()])


def test_one_request_sent_over_and_over_is_said() -> None:
    data, _, _ = world()
    bad = data.labels["opus"] == 0
    same = replace(data, groups=np.where(bad, "the same", data.groups.astype("U32")))
    with pytest.raises(TooLittleData, match="opus: its bad examples are one request over and over"):
        fit_router(same, version="one-group", states=[()])


def test_a_state_hardly_seen_has_no_stack() -> None:
    data, _, _ = world()
    few = replace(data, labels={**data.labels, "opus": np.where(np.arange(N) < 200, np.nan, data.labels["opus"])})
    few = replace(few, replies={**few.replies, "opus": Vectors.of([None] * N, len(REPLY_NAMES))})
    model = fit_router(few, version="few", states=[(), ("opus",)]).model
    assert () in model.stacks
    assert ("opus",) not in model.stacks


# --- files -----------------------------------------------------------------------------------


def test_arrays_and_estimators_give_the_same_probabilities(fitted: Fitted, tmp_path: Path) -> None:
    save_model(fitted, tmp_path, created_at_s=1_700_000_000.0)
    model, estimators = load_model(tmp_path), load_estimators(tmp_path)
    _, requests, _ = world(seed=2)
    width = len(DENSE_NAMES)
    for row, request in enumerate(requests[:40]):
        features = request_features(request)
        dense = dense_inputs(features.dense, model.mean[:width], model.scale[:width])
        logits = []
        for tier in TIERS:
            head = estimators[f"request {tier}"]
            words = np.zeros(model.request.words.shape[1])
            words[features.indices] = features.values
            inputs = np.concatenate([dense, words])[head["columns"]] * head["scales"]
            p = head["estimator"].predict_proba(inputs[None, :])[0, 1]
            logits.append(np.log(p / (1 - p)))
        onehot = [float(name == request.workload) for name in model.workloads]
        for tier in TIERS:
            inputs = np.clip(np.array([*logits, *onehot]), -6, 6)
            expected = estimators[f"stack  {tier}"].predict_proba(inputs[None, :])[0, 1]
            assert model.probabilities(features, request.workload)[tier] == pytest.approx(expected, abs=1e-5), row


def test_what_is_written_is_read(fitted: Fitted, tmp_path: Path) -> None:
    save_model(fitted, tmp_path, created_at_s=1_700_000_000.0)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    assert manifest["created_at"] == "2023-11-14T22:13:20+00:00"
    assert set(manifest["files"]) == {"weights.npz", "model.skops"}
    read = load_model(tmp_path)
    features = request_features(world()[1][0])
    assert read.probabilities(features, "maths") == pytest.approx(fitted.model.probabilities(features, "maths"))


def test_estimators_changed_or_foreign_are_refused(fitted: Fitted, tmp_path: Path) -> None:
    save_model(fitted, tmp_path, created_at_s=0.0)
    content = (tmp_path / ESTIMATORS).read_bytes()
    (tmp_path / ESTIMATORS).write_bytes(content[:-1] + b"x")
    with pytest.raises(ModelError, match="sha256"):
        load_estimators(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(manifest | {"sklearn_version": "1.2.3"}))
    with pytest.raises(ModelError, match=r"scikit-learn 1\.2\.3"):
        load_estimators(tmp_path)
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / ESTIMATORS).rename(tmp_path / "elsewhere")
    (tmp_path / ESTIMATORS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="symbolic link"):
        load_estimators(tmp_path)


def test_the_sigmoid_does_not_overflow() -> None:
    assert sigmoid(1e9) == pytest.approx(1.0)
    assert sigmoid(-1e9) == pytest.approx(0.0)
