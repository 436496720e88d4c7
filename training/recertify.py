"""Certify the serving model anew on newer outcomes: the same weights under a new version with another certificate.

It is published like any other version, so that a running service picks it up and `rollback` takes it back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal, Protocol

from router.alarms import Alarm
from router.certificate import Certificate, to_json
from router.store import Store
from training.artifacts import write_certificates
from training.dataset import MAX_REQUESTS, Dataset, read_dataset
from training.evidence import Cell
from training.follow import Policy
from training.labels import LADDER
from training.registry import Entry, Registry
from training.results import NIGHT_FILE, load_night, save_night

_DAY_S = 86_400.0


class Certifier(Protocol):
    """The part of a learner that certifies."""

    def load(self, directory: Path, data: Dataset) -> Policy | None:
        """The model of a directory; None when it cannot be used any more."""

    def certify(
        self, policy: Policy, data: Dataset, directory: Path, *, version: str, seed: int, since_s: Mapping[Cell, float]
    ) -> tuple[Policy, Mapping[str, Certificate]]:
        """Certify on the requests that the model was not fitted on; see `training.learner`."""


@dataclass(frozen=True, slots=True)
class Recertified:
    """What became of it. `version` serves now; `certificates` are those found, by workload."""

    result: Literal["published", "unchanged", "no_promise", "no_model"]
    version: str
    previous: str
    certificates: Mapping[str, Certificate]
    reason: str = ""


def recertify(
    store: Store,
    registry: Registry,
    learner: Certifier,
    *,
    ladder: tuple[str, ...] = LADDER,
    window_days: int = 90,
    seed: int = 0,
    now_s: float,
) -> Recertified:
    """Certify what serves on what the store holds. LockHeld, StoreError, RegistryError or CurrentChanged."""
    with registry.night() as staging:
        since_s = max(0.0, (now_s // _DAY_S - window_days) * _DAY_S)
        data = read_dataset(store.read(since_s=since_s), ladder=ladder, max_requests=MAX_REQUESTS)
        since = too_old(store.alarms(since_s=since_s))
        return certify_current(registry, learner, data, staging / "certified", seed=seed, now_s=now_s, since_s=since)


def too_old(alarms: Iterable[Alarm]) -> dict[Cell, float]:
    """By workload and tier, when an alarm was last raised or cleared: what was before is no evidence any more.

    A cleared one counts too: between the two the tier was worse.
    """
    found: dict[Cell, float] = {}
    for alarm in alarms:
        cell = alarm.workload, alarm.tier
        found[cell] = max(found.get(cell, 0.0), alarm.at_s)
    return found


def certify_current(
    registry: Registry,
    learner: Certifier,
    data: Dataset,
    directory: Path,
    *,
    seed: int,
    now_s: float,
    since_s: Mapping[Cell, float],
) -> Recertified:
    """The same inside a night that holds the lock; `directory` is made in its staging folder."""
    current = registry.current()
    if current is None:
        return Recertified("no_model", "", "", {}, "there is no model to certify: the service runs on its static plans")
    shutil.copytree(registry.path(current), directory)
    policy = learner.load(directory, data)
    if policy is None:
        return Recertified("no_model", current, current, {}, f"{current} cannot be loaded any more")
    before = json.loads((directory / "manifest.json").read_text(encoding="utf-8")).get("certificates", {})
    base = current.partition(".c")[0]
    _, certificates = learner.certify(policy, data, directory, version=current, seed=seed, since_s=since_s)
    if not certificates and not before:
        return Recertified("no_promise", current, current, {}, "no workload has a false_accept_max or mistake_cost_usd")
    found = to_json(certificates)
    if found == before:
        return Recertified("unchanged", current, current, certificates, "the evidence is what it was")
    digest = sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]
    version = f"{base}.c{digest}"
    _rename(directory, version, certificates)
    entry = next((each for each in registry.versions() if each.version == current), None)
    fresh = Entry(version, 0, now_s, current, data.fingerprint(), entry.metrics if entry is not None else {})
    registry.publish(directory, fresh, expected=current, now_s=now_s)
    return Recertified("published", version, current, certificates)


def _rename(directory: Path, version: str, certificates: Mapping[str, Certificate]) -> None:
    """The version's name in its manifest and in its night."""
    write_certificates(directory, certificates, version=version)
    if (directory / NIGHT_FILE).exists():
        night = load_night(directory / NIGHT_FILE)
        save_night(replace(night, version=version, certificates=certificates), directory / NIGHT_FILE)
