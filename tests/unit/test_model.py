"""A model version on disk: what is refused, and that what is read scores as what was written."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fallback.cascade import CAUGHT
from fallback.types import Message, Reply, Request, StopReason, TextBlock, Usage
from router.certificate import to_json
from router.features import request_features
from router.model import MANIFEST, WEIGHTS, ModelError, Seen, load_model
from router.reply_features import reply_features
from router.scoring import Tied
from tests.support.certificates import certificate, certified, infeasible
from tests.support.small_models import small_model, write_model

REQUEST = Request("maths", (Message("user", (TextBlock("What is 3 + 4?"),)),), 100, 100)
REPLY = Reply((TextBlock("<answer>7</answer>"),), StopReason.END_TURN, Usage(output_tokens=5), "m")


@pytest.fixture
def version(tmp_path: Path) -> Path:
    write_model(small_model(), tmp_path)
    return tmp_path


def test_what_is_read_scores_as_what_was_written(version: Path) -> None:
    written, read = small_model(), load_model(version)
    features, reply = request_features(REQUEST), reply_features(REQUEST, REPLY)
    assert read.version == written.version
    assert read.probabilities(features, "maths") == pytest.approx(written.probabilities(features, "maths"))
    for tier in written.tiers:
        probability = read.reply_probability(tier, features, reply, "maths")
        assert probability == pytest.approx(written.reply_probability(tier, features, reply, "maths"))
        assert 0.0 < probability < 1.0
    believed = read.probabilities(features, "maths")
    worth = read.worth_of((), "haiku", believed, "maths", 0.01)
    assert worth == pytest.approx(written.worth_of((), "haiku", believed, "maths", 0.01))
    assert worth is not None
    assert 0.0 <= worth <= 1.0
    assert (read.caught, read.tied) == (written.caught, written.tied) == ({"maths": 0.8}, Tied(6.0, 2.0))


def test_a_model_of_before_anything_was_measured_is_read(version: Path) -> None:
    remanifest(version, lambda manifest: [manifest.pop(name) for name in ("caught", "odds_ratios")])
    model = load_model(version)
    assert (model.caught, model.tied, model.caught_in("maths")) == ({}, Tied(), CAUGHT)


def test_a_tier_that_the_model_does_not_know_has_no_probability(version: Path) -> None:
    model = load_model(version)
    features, reply = request_features(REQUEST), reply_features(REQUEST, REPLY)
    assert model.reply_probability("mythos", features, reply) is None
    assert model.believe(features, "maths", [Seen("mythos", reply)]) == model.probabilities(features, "maths")
    assert model.worth_of(("opus",), "haiku", model.probabilities(features), "maths", 0.01) is None


def test_an_unknown_workload_is_scored_without_its_own_weights(version: Path) -> None:
    model = load_model(version)
    assert set(model.probabilities(request_features(REQUEST), "never seen")) == set(model.tiers)


def test_a_state_without_a_stack_falls_back_to_what_each_head_says(version: Path) -> None:
    model = load_model(version)
    features, reply = request_features(REQUEST), reply_features(REQUEST, REPLY)
    seen = [Seen("haiku", reply), Seen("opus", reply, {"haiku": (1.0, 1.0)})]
    assert ("haiku", "opus") not in model.stacks
    assert set(model.believe(features, "maths", seen)) == set(model.tiers)


def test_what_agrees_counts_for_replies_in_either_order(version: Path) -> None:
    model = load_model(version)
    features, reply = request_features(REQUEST), reply_features(REQUEST, REPLY)
    one = model.believe(features, "maths", [Seen("haiku", reply), Seen("sonnet", reply, {"haiku": (1.0, 1.0)})])
    other = model.believe(features, "maths", [Seen("sonnet", reply), Seen("haiku", reply, {"sonnet": (1.0, 1.0)})])
    apart = model.believe(features, "maths", [Seen("haiku", reply), Seen("sonnet", reply, {"haiku": (0.0, 0.2)})])
    assert one == pytest.approx(other)
    assert one != pytest.approx(apart)


def test_loading_needs_no_scikit_learn(version: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from router.model import load_model;"
        f"load_model(Path({str(version)!r}));"
        "assert not {'sklearn', 'scipy', 'skops', 'pickle5'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


# --- what is refused -------------------------------------------------------------------------


def repack(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the arrays and make the manifest fit again."""
    with np.load(version / WEIGHTS) as loaded:
        arrays = dict(loaded)
    change(arrays)
    np.savez_compressed(version / WEIGHTS, **arrays)
    rehash(version)


def rehash(version: Path) -> None:
    content = (version / WEIGHTS).read_bytes()
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    remanifest(version, lambda manifest: manifest["files"].update({WEIGHTS: entry}))


def remanifest(version: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((version / MANIFEST).read_text())
    change(manifest)
    (version / MANIFEST).write_text(json.dumps(manifest))


def truncate(version: Path) -> None:
    content = (version / WEIGHTS).read_bytes()
    (version / WEIGHTS).write_bytes(content[:-10])


def flip_a_bit(version: Path) -> None:
    content = bytearray((version / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (version / WEIGHTS).write_bytes(content)


def not_an_archive(version: Path) -> None:
    (version / WEIGHTS).write_bytes(b"weights")
    rehash(version)


def bomb(version: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("mean.npy", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    (version / WEIGHTS).write_bytes(buffer.getvalue())
    rehash(version)


def many_members(version: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(4_001):
            archive.writestr(f"{number}.npy", b"")
    (version / WEIGHTS).write_bytes(buffer.getvalue())
    rehash(version)


def pickled(version: Path) -> None:
    np.savez(version / WEIGHTS, mean=np.array([{"a": 1}], dtype=object))
    rehash(version)


def symlinked(version: Path) -> None:
    (version / WEIGHTS).rename(version / "elsewhere.npz")
    (version / WEIGHTS).symlink_to(version / "elsewhere.npz")


def a_pipe(version: Path) -> None:
    (version / WEIGHTS).unlink()
    os.mkfifo(version / WEIGHTS)


def oversized(version: Path) -> None:
    with (version / WEIGHTS).open("r+b") as file:
        file.truncate((64 << 20) + 1)


def setting(name: str, value: Any) -> Callable[[Path], None]:
    return lambda version: remanifest(version, lambda manifest: manifest.__setitem__(name, value))


def arrays(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    return lambda version: repack(version, change)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "no manifest": lambda version: (version / MANIFEST).unlink(),
    "manifest not JSON": lambda version: (version / MANIFEST).write_text("{"),
    "manifest a list": lambda version: (version / MANIFEST).write_text("[]"),
    "manifest nested without end": lambda version: (version / MANIFEST).write_text("[" * 100_000),
    "other format": setting("format", 99),
    "other features": setting("features_version", "0"),
    "other reply features": setting("reply_features_version", "0"),
    "no version": setting("version", ""),
    "version a path": setting("version", "../x"),
    "no files": setting("files", {}),
    "files no table": setting("files", []),
    "tiers missing": setting("tiers", None),
    "tiers twice": setting("tiers", ["haiku", "haiku", "opus"]),
    "other tiers": setting("tiers", ["small", "middle", "large"]),
    "fewer tiers": setting("tiers", ["haiku"]),
    "sources a number": setting("sources", [1, 2, 3]),
    "workloads too many": setting("workloads", [str(n) for n in range(100)]),
    "other workloads": setting("workloads", ["one"]),
    "metrics no table": setting("metrics", []),
    "metrics no numbers": setting("metrics", {"auroc": "high"}),
    "certificates no table": setting("certificates", []),
    "certificate of a tier it does not know": setting(
        "certificates", to_json({"maths": certificate(mythos=infeasible())})
    ),
    "certificate with an endless bound": setting(
        "certificates", {"maths": {"confidence": math.inf, "mistake_cost_usd": 0.0, "tiers": {}}}
    ),
    "expected no table": setting("expected", []),
    "expected of no tier": setting("expected", {"maths": 1.0}),
    "expected of no stream": setting("expected", {"maths": {"haiku": 1.0}}),
    "expected no ratio": setting("expected", {"maths": {"haiku": {"truth": math.nan}}}),
    "expected no number": setting("expected", {"maths": {"haiku": {"truth": True}}}),
    "caught no share": setting("caught", {"maths": 1.5}),
    "caught in too many workloads": setting("caught", {str(n): 0.5 for n in range(1_001)}),
    "odds ratio of zero": setting("odds_ratios", {"unread": 0.0, "read": 3.0}),
    "odds ratio missing": setting("odds_ratios", {"read": 3.0}),
    "fitted until a number": setting("fitted_until", 3),
    "no weights": lambda version: (version / WEIGHTS).unlink(),
    "truncated": truncate,
    "a bit flipped": flip_a_bit,
    "not an archive": not_an_archive,
    "zip bomb": bomb,
    "too many members": many_members,
    "pickled objects": pickled,
    "symbolic link": symlinked,
    "a pipe": a_pipe,
    "a directory": lambda version: ((version / WEIGHTS).unlink(), (version / WEIGHTS).mkdir())[0],
    "oversized": oversized,
    "array missing": arrays(lambda found: found.pop("mean")),
    "NaN weight": arrays(lambda found: found["request_dense"].__setitem__((0, 0), np.nan)),
    "infinite bias": arrays(lambda found: found["replies_bias"].__setitem__(0, np.inf)),
    "whole numbers": arrays(lambda found: found.update(mean=found["mean"].astype(int))),
    "wrong shape": arrays(lambda found: found.update(mean=found["mean"][:-1])),
    "wrong dimensions": arrays(lambda found: found.update(mean=found["mean"][None, :])),
    "scale of zero": arrays(lambda found: found["scale"].__setitem__(0, 0.0)),
    "mistake cost of zero": arrays(lambda found: found["mistake_costs_usd"].__setitem__(0, 0.0)),
    "stack of an unknown source": arrays(lambda found: found.update({"stack|mythos": found["stack|"]})),
    "stack without bias": arrays(lambda found: found.pop("stack_bias|haiku")),
    "stack too narrow": arrays(lambda found: found.update({"stack|": found["stack|"][:, :-1]})),
    "worth too narrow": arrays(lambda found: found.update({"worth||haiku": found["worth||haiku"][:, :-1]})),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_a_version_that_is_not_as_it_was_written_is_refused(version: Path, damage: str) -> None:
    load_model(version)
    DAMAGE[damage](version)
    with pytest.raises(ModelError) as refusal:
        load_model(version)
    assert str(refusal.value).startswith((MANIFEST, WEIGHTS)), refusal.value


def test_what_was_certified_is_read_with_the_model(version: Path) -> None:
    assert load_model(version).certificates == {}  # as written before there were any
    given = {"maths": certificate(haiku=certified(0.8), sonnet=infeasible())}
    remanifest(version, lambda manifest: manifest.update(certificates=to_json(given)))
    assert load_model(version).certificates == given


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_version_is_refused(version: Path) -> None:
    (version / WEIGHTS).chmod(0)
    with pytest.raises(ModelError, match="cannot be opened"):
        load_model(version)


def test_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be opened"):
        load_model(tmp_path / "nowhere")
