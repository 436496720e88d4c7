"""The night: outcomes → dataset → time split → fit → certify → evaluate → gate → publish → report.

Safe to run twice (the version's name follows from what it was trained on, so the same outcomes give
the same version, which is not published again), at once (a lock; the second stops with LockHeld) and to
kill at any point (the registry's `current` is the old version or the new one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import numpy as np

from router.store import Store
from training.audited import audited
from training.dataset import MAX_REQUESTS, Dataset, read_dataset
from training.evaluate import evaluate
from training.evidence import Cell
from training.follow import Policy
from training.gate import Passed, Refused, Verdict, enough_data, judge
from training.labels import LADDER
from training.progress import Progress, Silent
from training.recertify import Certifier, certify_current, too_old
from training.registry import CurrentChanged, Entry, Registry, RegistryError
from training.report import write_report
from training.results import NIGHT_FILE, Data, Night, load_night, save_night

_DAY_S = 86_400.0


class CannotFit(Exception):
    """These data make no model; the message says why. The night ends refused."""


class Learner(Certifier, Protocol):
    """Makes models, reads and certifies them. `recipe` names everything but data and seed that shapes a model."""

    @property
    def recipe(self) -> str:
        """Changes when the same data would give another model."""

    def fit(
        self,
        data: Dataset,
        directory: Path,
        *,
        version: str,
        seed: int,
        target: float,
        now_s: float,
        progress: Callable[[str], None],
    ) -> Policy:
        """Fit, write a complete model into the empty `directory`, and give it as read from there. CannotFit."""

    def thresholds(self, policy: Policy) -> Mapping[str, float]:
        """The model's thresholds by name, to be shown."""


@dataclass(frozen=True, slots=True)
class NightSettings:
    """`target`: share of the best constant tier's quality. `held_out`: newest share of requests to judge on."""

    target: float = 0.99
    seed: int = 0
    held_out: float = 0.3
    window_days: int = 90
    max_requests: int = MAX_REQUESTS
    ladder: tuple[str, ...] = LADDER


def run_night(
    store: Store,
    registry: Registry,
    learner: Learner,
    settings: NightSettings,
    *,
    now_s: float,
    progress: Progress | None = None,
    report: Path | None = None,
) -> Night:
    """One night. Raises LockHeld, StoreError or RegistryError; a refusal by the gate is a result, not an error."""
    tell = progress or Silent()
    with registry.night() as staging:
        since = too_old(store.alarms(since_s=max(0.0, now_s - settings.window_days * _DAY_S)))
        held_in, held_out, night = _read(store, registry, learner, settings, now_s, tell)
        if registry.was_current(night.version):
            night = _nothing_to_do(registry, night)
        else:
            verdict = enough_data(night.data)
            if isinstance(verdict, Passed):
                try:
                    challenger, champion = _fit(registry, learner, held_in, night, staging / "model", tell)
                    challenger, night = _certify(learner, challenger, held_out, since, night, staging / "model", tell)
                    night = _evaluate(learner, challenger, champion, held_in, held_out, night, tell)
                    verdict = _judge(registry, night, tell)
                except CannotFit as reason:
                    verdict = Refused((str(reason),))
            night = _publish(registry, staging / "model", night, verdict, now_s, tell)
        if night.result != "published":
            everything = replace(held_in, rows=(*held_in.rows, *held_out.rows))
            night = _recertify(registry, learner, everything, since, night, staging / "certified", tell)
        _report(night, registry.root / "last_night.json", report, tell)
        return night


def _read(
    store: Store, registry: Registry, learner: Learner, settings: NightSettings, now_s: float, tell: Progress
) -> tuple[Dataset, Dataset, Night]:
    """The data, split by time, and the night as far as it is known from them."""
    tell.step("read outcomes")
    # Whole days, so that a second run a minute later reads the same requests.
    since_s = max(0.0, (now_s // _DAY_S - settings.window_days) * _DAY_S)
    before = store.corrupt_rows
    data = read_dataset(
        store.read(since_s=since_s), ladder=settings.ladder, max_requests=settings.max_requests, progress=tell.count
    )
    corrupt = store.corrupt_rows - before
    held_in, held_out = data.split(settings.held_out)
    fingerprint = data.fingerprint()
    times = [row.received_at_s for row in data.rows] or [now_s]
    recipe = f"{fingerprint}|{learner.recipe}|{settings.target}|{settings.seed}|{settings.held_out}"
    day = datetime.fromtimestamp(max(times), UTC).strftime("%Y%m%d")
    found = Data(
        requests=len(data.rows),
        labelled=data.labelled,
        held_in=len(held_in.rows),
        held_in_labelled=held_in.labelled,
        held_out=len(held_out.rows),
        first_request_s=min(times),
        last_request_s=max(times),
        labels=data.label_counts(),
        good_share={
            tier: float(np.average(each.good, weights=each.weight))
            for tier in data.ladder
            if len((each := held_in.examples(tier)).row)
        },
        skipped={**data.skipped, **({"corrupt in the store": corrupt} if corrupt else {})},
        simulated=data.simulated,
        fingerprint=fingerprint,
    )
    night = Night(
        result="refused",
        reasons=(),
        version=f"{day}-{sha256(recipe.encode()).hexdigest()[:10]}",
        champion=registry.current() or "",
        target=settings.target,
        seed=settings.seed,
        started_at_s=now_s,
        data=found,
        evaluation=None,
        audits=audited(store, since_s),
    )
    return held_in, held_out, night


def _fit(
    registry: Registry, learner: Learner, held_in: Dataset, night: Night, directory: Path, tell: Progress
) -> tuple[Policy, Policy | None]:
    tell.step("fit")
    directory.mkdir()
    challenger = learner.fit(
        held_in,
        directory,
        version=night.version,
        seed=night.seed,
        target=night.target,
        now_s=night.started_at_s,
        progress=tell.step,
    )
    tell.step("load the champion")
    champion = learner.load(registry.path(night.champion), held_in) if night.champion else None
    return challenger, champion


def _certify(
    learner: Learner,
    challenger: Policy,
    held_out: Dataset,
    since: Mapping[Cell, float],
    night: Night,
    directory: Path,
    tell: Progress,
) -> tuple[Policy, Night]:
    """On the held-out requests; what is certified binds the policy that is then evaluated."""
    tell.step("certify")
    certified, certificates = learner.certify(
        challenger, held_out, directory, version=night.version, seed=night.seed, since_s=since
    )
    return certified, replace(night, certificates=certificates)


def _recertify(
    registry: Registry,
    learner: Learner,
    data: Dataset,
    since: Mapping[Cell, float],
    night: Night,
    directory: Path,
    tell: Progress,
) -> Night:
    """The champion stays: its certificate follows the newest outcomes all the same."""
    tell.step("certify the champion")
    try:
        done = certify_current(
            registry, learner, data, directory, seed=night.seed, now_s=night.started_at_s, since_s=since
        )
    except CurrentChanged as changed:
        return replace(night, certificates={}, reasons=(*night.reasons, f"not certified: {changed}"))
    return replace(
        night, certificates=done.certificates, recertified=done.version if done.result == "published" else ""
    )


def _evaluate(
    learner: Learner,
    challenger: Policy,
    champion: Policy | None,
    held_in: Dataset,
    held_out: Dataset,
    night: Night,
    tell: Progress,
) -> Night:
    evaluation = evaluate(
        challenger, champion, held_in, held_out, seed=night.seed, progress=lambda name: tell.step(f"evaluate: {name}")
    )
    if night.champion and champion is None:
        note = f"the champion {night.champion} cannot be loaded any more: compared with what was served instead"
        evaluation = replace(evaluation, notes=(*evaluation.notes, note))
    return replace(
        night,
        evaluation=evaluation,
        thresholds=learner.thresholds(challenger),
        champion_thresholds=learner.thresholds(champion) if champion else {},
    )


def _judge(registry: Registry, night: Night, tell: Progress) -> Verdict:
    tell.step("gate")
    assert night.evaluation is not None
    before: Mapping[str, float] = {}
    if night.champion:
        try:
            before = load_night(registry.path(night.champion) / NIGHT_FILE).data.good_share
        except (OSError, ValueError):
            before = {}  # published by other means: there is nothing to compare the labels with
    return judge(night.evaluation, night.data, target=night.target, champion_good_share=before)


def _publish(
    registry: Registry, directory: Path, night: Night, verdict: Verdict, now_s: float, tell: Progress
) -> Night:
    """The finished night: the model is current, or the reasons why it is not."""
    if isinstance(verdict, Refused):
        return replace(night, result="refused", reasons=verdict.reasons)
    night = replace(night, result="published", reasons=verdict.reasons)
    assert night.evaluation is not None
    challenger = night.evaluation.of("challenger")[0]
    tell.step("publish")
    save_night(night, directory / NIGHT_FILE)
    entry = Entry(
        version=night.version,
        sequence=0,
        created_at_s=now_s,
        champion=night.champion,
        fingerprint=night.data.fingerprint,
        metrics={"quality": challenger.quality.value, "cost_usd": challenger.cost_usd.value},
    )
    try:
        registry.publish(directory, entry, expected=night.champion or None, now_s=now_s)
    except CurrentChanged as changed:
        return replace(night, result="refused", reasons=(str(changed),))
    return night


def _nothing_to_do(registry: Registry, night: Night) -> Night:
    """The night as it was when this version was published."""
    serves = "it serves" if registry.current() == night.version else f"{registry.current()} serves instead of it"
    reason = f"{night.version} was already trained from these outcomes, and {serves}"
    try:
        then = load_night(registry.path(night.version) / NIGHT_FILE)
    except (OSError, ValueError, RegistryError):
        then = night  # pruned since
    return replace(
        then, result="nothing_to_do", reasons=(reason,), started_at_s=night.started_at_s, audits=night.audits
    )


def _report(night: Night, saved: Path, report: Path | None, tell: Progress) -> None:
    tell.step("report")
    fresh = saved.with_name(f".{saved.name}.new")
    save_night(night, fresh)
    fresh.replace(saved)
    if report is not None:
        write_report(night, report)
