"""A model version on disk: read, checked, and only then used. Needs numpy alone, never scikit-learn.

A version is a directory with
- `manifest.json`: version, features versions, tiers, sources, workloads, sizes and sha256 of the other files,
  metrics, certificates (`router.certificate`), and the versions of what made it;
- `weights.npz`: the arrays that serve (`router.scoring`);
- `model.skops`: the fitted scikit-learn estimators, for the data team; serving never opens it.

Everything is refused before use: sizes are capped and compared, hashes compared, archive members counted
before they are unpacked, shapes and finiteness checked. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.certificate import MAX_WORKLOADS, Certificate, from_json
from router.features import BUCKETS, DENSE_NAMES, FEATURES_VERSION
from router.reply_features import REPLY_FEATURES_VERSION, REPLY_NAMES
from router.scoring import Heads, RouterModel, Seen, Stack, State, Tied, tier_of

__all__ = ["MANIFEST", "WEIGHTS", "ModelError", "RouterModel", "Seen", "load_model"]

MANIFEST, WEIGHTS = "manifest.json", "weights.npz"
FORMAT = 1
_MANIFEST_BYTES = 1 << 20
_WEIGHTS_BYTES = 64 << 20
_UNPACKED_BYTES = 256 << 20
_MEMBERS = 4_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._#-]{0,63}")
_MAX_NAMES = 64
_MAX_RATIO = 100.0
_MAX_ODDS = 1_000.0

Arrays = Mapping[str, NDArray[Any]]


class ModelError(Exception):
    """The version cannot be used; the message says which file and why."""


def load_model(directory: Path) -> RouterModel:
    """Read and check a version. ModelError for anything that is not exactly as it was written."""
    manifest = _manifest(_read(directory, MANIFEST, _MANIFEST_BYTES))
    packed = _read(directory, WEIGHTS, _WEIGHTS_BYTES)
    _check_hash(manifest, packed)
    arrays = _unpack(packed)
    try:
        return _model(manifest, arrays)
    except KeyError as error:
        raise ModelError(f"{WEIGHTS}: {error} is missing") from None


# --- files -----------------------------------------------------------------------------------


def _read(directory: Path, name: str, limit: int) -> bytes:
    """A regular file's bytes, its size known before it is read; symbolic links are refused."""
    try:
        descriptor = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ModelError(f"{name}: cannot be opened ({error.strerror})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{name}: not a regular file")
        if status.st_size > limit:
            raise ModelError(f"{name}: {status.st_size} bytes, more than {limit}")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror})") from None
    finally:
        os.close(descriptor)
    if len(content) != status.st_size:
        raise ModelError(f"{name}: changed while it was read")
    return content


def _manifest(content: bytes) -> Mapping[str, Any]:
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError):
        raise ModelError(f"{MANIFEST}: not JSON") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ModelError(f"{MANIFEST}: not of format {FORMAT}")
    for field, expected in (
        ("features_version", FEATURES_VERSION),
        ("reply_features_version", REPLY_FEATURES_VERSION),
    ):
        if manifest.get(field) != expected:
            raise ModelError(f"{MANIFEST}: {field} is {manifest.get(field)!r}, this service has {expected!r}")
    if not isinstance(manifest.get("version"), str) or not _NAME.fullmatch(manifest["version"]):
        raise ModelError(f"{MANIFEST}: no version name")
    return manifest


def _check_hash(manifest: Mapping[str, Any], packed: bytes) -> None:
    files = manifest.get("files")
    entry = files.get(WEIGHTS) if isinstance(files, dict) else None
    if not isinstance(entry, dict):
        raise ModelError(f"{MANIFEST}: says nothing of {WEIGHTS}")
    if entry.get("bytes") != len(packed):
        raise ModelError(f"{WEIGHTS}: {len(packed)} bytes, the manifest says {entry.get('bytes')}")
    if entry.get("sha256") != hashlib.sha256(packed).hexdigest():
        raise ModelError(f"{WEIGHTS}: its sha256 is not the manifest's")


def _unpack(packed: bytes) -> Arrays:
    """The arrays, after the archive's own index said that they are few and small enough."""
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            members = archive.infolist()
            if len(members) > _MEMBERS or sum(member.file_size for member in members) > _UNPACKED_BYTES:
                raise ModelError(f"{WEIGHTS}: unpacks to more than {_UNPACKED_BYTES} bytes or {_MEMBERS} arrays")
        with np.load(io.BytesIO(packed), allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, NotImplementedError, MemoryError) as error:
        raise ModelError(f"{WEIGHTS}: not readable ({type(error).__name__})") from None
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise ModelError(f"{WEIGHTS}: {name} does not hold numbers")
    return arrays


# --- meaning ---------------------------------------------------------------------------------


def _model(manifest: Mapping[str, Any], arrays: Arrays) -> RouterModel:
    tiers = _names(manifest, "tiers")
    sources = _names(manifest, "sources")
    workloads = _names(manifest, "workloads", pattern=None)
    if not tiers or any(tier_of(source) not in tiers for source in sources):
        raise ModelError(f"{MANIFEST}: sources {sources} are not of the tiers {tiers}")
    width, both = len(DENSE_NAMES), len(DENSE_NAMES) + len(REPLY_NAMES)
    stacks = _stacks(arrays, tiers, sources)
    mistakes = _array(arrays, "mistake_costs_usd", (None,))
    if (mistakes <= 0).any():
        raise ModelError(f"{WEIGHTS}: a mistake cost is not positive")
    worth = {
        (_state(name.split("|")[1], sources), name.split("|")[2]): _array(arrays, name, (len(mistakes), None))
        for name in arrays
        if name.startswith("worth|") and name.count("|") == 2
    }
    model = RouterModel(
        version=manifest["version"],
        tiers=tiers,
        sources=sources,
        workloads=workloads,
        mean=_array(arrays, "mean", (both,)),
        scale=_array(arrays, "scale", (both,)),
        request=_heads(arrays, "request", len(tiers), BUCKETS, width),
        replies=_heads(arrays, "replies", len(sources), 2 * BUCKETS, both),
        stacks=stacks,
        mistake_costs_usd=mistakes,
        worth=worth,
        quality_costs_usd=_figures(manifest, "quality_costs_usd"),
        metrics=_figures(manifest, "metrics"),
        certificates=_certificates(manifest, tiers),
        fitted_until=_fitted_until(manifest),
        expected=_expected(manifest),
        caught=_shares(manifest, "caught"),
        tied=_tied(manifest),
    )
    if (model.scale <= 0).any():
        raise ModelError(f"{WEIGHTS}: a scale is not positive")
    try:
        model.check()
    except ValueError:
        raise ModelError(f"{WEIGHTS}: the arrays do not fit each other") from None
    return model


def _heads(arrays: Arrays, prefix: str, count: int, buckets: int, width: int) -> Heads:
    return Heads(
        _array(arrays, f"{prefix}_words", (count, buckets)).astype(np.float32),
        _array(arrays, f"{prefix}_dense", (count, width)),
        _array(arrays, f"{prefix}_bias", (count,)),
    )


def _stacks(arrays: Arrays, tiers: tuple[str, ...], sources: tuple[str, ...]) -> dict[State, Stack]:
    found = {}
    for name in arrays:
        kind, _, joined = name.partition("|")
        if kind != "stack":
            continue
        bias = _array(arrays, f"stack_bias|{joined}", (len(tiers),), may_be_nan=True)
        found[_state(joined, sources)] = Stack(_array(arrays, name, (len(tiers), None)), bias)
    return found


def _state(joined: str, sources: tuple[str, ...]) -> State:
    state = tuple(joined.split("+")) if joined else ()
    if any(source not in sources for source in state):
        raise ModelError(f"{WEIGHTS}: unknown source in state {joined!r}")
    return state


def _array(
    arrays: Arrays, name: str, shape: tuple[int | None, ...], *, may_be_nan: bool = False
) -> NDArray[np.float64]:
    array = arrays[name]
    if array.ndim != len(shape) or any(
        want is not None and want != has for want, has in zip(shape, array.shape, strict=True)
    ):
        raise ModelError(f"{WEIGHTS}: {name} has shape {array.shape}")
    if not (np.isfinite(array) | (np.isnan(array) if may_be_nan else False)).all():
        raise ModelError(f"{WEIGHTS}: {name} is not finite")
    return array.astype(float)


def _names(manifest: Mapping[str, Any], field: str, pattern: re.Pattern[str] | None = _NAME) -> tuple[str, ...]:
    names = manifest.get(field)
    if not isinstance(names, list) or len(names) > _MAX_NAMES or len({str(name) for name in names}) != len(names):
        raise ModelError(f"{MANIFEST}: {field} is no list of distinct names")
    for name in names:
        if not isinstance(name, str) or (pattern is not None and not pattern.fullmatch(name)):
            raise ModelError(f"{MANIFEST}: {field} holds something that is no name")
    return tuple(names)


def _certificates(manifest: Mapping[str, Any], tiers: tuple[str, ...]) -> dict[str, Certificate]:
    try:
        certificates = from_json(manifest.get("certificates", {}))
    except ValueError as error:
        raise ModelError(f"{MANIFEST}: {error}") from None
    for workload, certificate in certificates.items():
        if unknown := sorted(set(certificate.tiers) - set(tiers)):
            raise ModelError(
                f"{MANIFEST}: certificates: {workload} names {unknown[0]!r}, which is no tier of the model"
            )
    return certificates


def _fitted_until(manifest: Mapping[str, Any]) -> str:
    last = manifest.get("fitted_until", "")
    if not isinstance(last, str) or (last and not _NAME.fullmatch(last)):
        raise ModelError(f"{MANIFEST}: fitted_until is no request id")
    return last


def _expected(manifest: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Ratios by workload, tier and stream."""
    found = manifest.get("expected", {})
    if not isinstance(found, dict) or len(found) > MAX_WORKLOADS:
        raise ModelError(f"{MANIFEST}: expected is no table of at most {MAX_WORKLOADS} workloads")
    for tiers in found.values():
        for streams in tiers.values() if isinstance(tiers, dict) and len(tiers) <= _MAX_NAMES else (None,):
            if not isinstance(streams, dict) or len(streams) > _MAX_NAMES:
                raise ModelError(f"{MANIFEST}: expected holds something that is no table of ratios by tier and stream")
            for ratio in streams.values():
                if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0.0 < ratio < _MAX_RATIO:
                    raise ModelError(f"{MANIFEST}: expected holds something that is no ratio")
    return found


def _shares(manifest: Mapping[str, Any], field: str) -> dict[str, float]:
    shares = _figures(manifest, field)
    if len(shares) > MAX_WORKLOADS or any(not 0.0 <= share <= 1.0 for share in shares.values()):
        raise ModelError(f"{MANIFEST}: {field} is no table of shares of at most {MAX_WORKLOADS} workloads")
    return shares


def _tied(manifest: Mapping[str, Any]) -> Tied:
    """As it would be without evidence where the manifest says nothing."""
    ratios = _figures(manifest, "odds_ratios")
    if not ratios:
        return Tied()
    if set(ratios) != {"unread", "read"} or any(not 0.0 < ratio <= _MAX_ODDS for ratio in ratios.values()):
        raise ModelError(f"{MANIFEST}: odds_ratios are not `unread` and `read`, each above 0 and at most {_MAX_ODDS:g}")
    return Tied(**ratios)


def _figures(manifest: Mapping[str, Any], field: str) -> dict[str, float]:
    figures = manifest.get(field, {})
    if not isinstance(figures, dict):
        raise ModelError(f"{MANIFEST}: {field} is no table of numbers")
    for figure in figures.values():
        if isinstance(figure, bool) or not isinstance(figure, int | float) or not math.isfinite(figure):
            raise ModelError(f"{MANIFEST}: {field} holds something that is no number")
    return {str(name): float(figure) for name, figure in figures.items()}
