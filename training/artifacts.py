"""Write a fitted router as a model version (`router.model`), and read its estimators back for study.

The weights that serve are plain arrays. The scikit-learn estimators lie beside them as skops, which holds
no programs; they load only with the types listed here, under the scikit-learn that wrote them.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import skops.io

from router.certificate import Certificate, to_json
from router.features import FEATURES_VERSION
from router.model import FORMAT, MANIFEST, WEIGHTS, ModelError
from router.reply_features import REPLY_FEATURES_VERSION
from router.scoring import RouterModel
from training.fit import Fitted

ESTIMATORS = "model.skops"
_ESTIMATOR_BYTES = 256 << 20
TRUSTED: tuple[str, ...] = ()  # beyond what skops itself trusts: nothing is needed


def save_model(fitted: Fitted, directory: Path, *, created_at_s: float) -> None:
    """Write the version's files into an existing directory. The manifest is last: without it there is no version."""
    files = {WEIGHTS: packed_weights(fitted.model), ESTIMATORS: skops.io.dumps(dict(fitted.estimators))}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    model = fitted.model
    manifest = {
        "format": FORMAT,
        "version": model.version,
        "created_at": datetime.fromtimestamp(created_at_s, UTC).isoformat(timespec="seconds"),
        "features_version": FEATURES_VERSION,
        "reply_features_version": REPLY_FEATURES_VERSION,
        "sklearn_version": sklearn.__version__,
        "numpy_version": np.__version__,
        "tiers": list(model.tiers),
        "sources": list(model.sources),
        "workloads": list(model.workloads),
        "fitted_until": model.fitted_until,
        "expected": dict(model.expected),
        "quality_costs_usd": dict(model.quality_costs_usd),
        "caught": dict(model.caught),
        "odds_ratios": asdict(model.tied),
        "metrics": dict(model.metrics),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def write_certificates(
    directory: Path,
    certificates: Mapping[str, Certificate],
    *,
    version: str,
    expected: Mapping[str, Any] | None = None,
) -> None:
    """Put them in a version's manifest in place of those there, under this name; its weights stay as they are.

    So do the ratios that drift is judged against, unless there are newer ones in `expected`.
    """
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    manifest |= {"certificates": to_json(certificates), "version": version}
    manifest |= {"expected": expected} if expected is not None else {}
    text = json.dumps(manifest, indent=2, sort_keys=True, allow_nan=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def load_estimators(directory: Path) -> Mapping[str, Any]:
    """The estimators of a version, checked first. ModelError when changed or of another scikit-learn minor."""
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    if manifest["sklearn_version"].split(".")[:2] != sklearn.__version__.split(".")[:2]:
        raise ModelError(f"{ESTIMATORS}: written by scikit-learn {manifest['sklearn_version']}")
    path = directory / ESTIMATORS
    if path.is_symlink() or path.stat().st_size > _ESTIMATOR_BYTES:
        raise ModelError(f"{ESTIMATORS}: a symbolic link, or more than {_ESTIMATOR_BYTES} bytes")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest["files"][ESTIMATORS]["sha256"]:
        raise ModelError(f"{ESTIMATORS}: its sha256 is not the manifest's")
    if unknown := skops.io.get_untrusted_types(data=content):
        raise ModelError(f"{ESTIMATORS}: holds types that are not allowed: {', '.join(sorted(unknown))}")
    loaded: Mapping[str, Any] = skops.io.loads(content, trusted=list(TRUSTED))
    return loaded


def packed_weights(model: RouterModel) -> bytes:
    """The arrays that serve, as a compressed archive without pickles."""
    arrays: dict[str, Any] = {
        "mean": model.mean,
        "scale": model.scale,
        "mistake_costs_usd": model.mistake_costs_usd,
        "request_words": model.request.words,
        "request_dense": model.request.dense,
        "request_bias": model.request.bias,
        "replies_words": model.replies.words,
        "replies_dense": model.replies.dense,
        "replies_bias": model.replies.bias,
    }
    for state, stack in model.stacks.items():
        arrays[f"stack|{'+'.join(state)}"] = stack.weights
        arrays[f"stack_bias|{'+'.join(state)}"] = stack.bias
    for (state, source), weights in model.worth.items():
        arrays[f"worth|{'+'.join(state)}|{source}"] = weights
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
