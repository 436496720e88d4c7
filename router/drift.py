"""Has a tier become worse than its model believes? What is suspended while it has. Pure: time comes with the outcomes.

A model says beforehand how likely a tier's reply to a request is to be good, so each observation y in [0, 1] has an
expected value μ, and what is watched (`router.sequential`) is whether y exceeds μ on the whole: harder requests
raise both, a worse tier only y. Streams, by workload and tier:

- `truth`: an accepted reply was judged bad, by feedback or an audit; μ is 1 − the scorer's P(good) for the reply;
- `checks`: a free check or the workload's verifier rejected a first reply; μ is 1 − P(good) for the request;
- `doubt`: 1 − the scorer's P(good) for a first reply that passed; μ is 1 − P(good) for the request;
- `model`: an endpoint's replies carry another model id than before. One sighting is enough.

μ is taken times how far off the model was on requests that it had not seen (`RouterModel.expected`).

**An alarm suspends** the tier in its workload at once: no reply of it is accepted on the scorer's word, so that the
policy starts higher (`router.certificate.standing`). `doubt` and `model` do so only where something is promised: a
certificate rests on nothing having changed, while a probability that has learned to doubt is acted on anyway.

**It ends** when newer outcomes refute that the tier is still worse (exploration goes on trying it); or with a model
whose certificate for the tier has its evidence from after the alarm; or, where nothing is promised, with one that
has learned from requests after it. Bounded: so many workloads, a fixed state each, so many replies awaiting judgement.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from fallback.checks.scorer import ScorerCheck
from fallback.types import Attempt, Reject, Remedy, Reply, Unjudged
from router.alarms import Alarm, Stream, latest
from router.certificate import State
from router.outcome import Outcome
from router.scoring import RouterModel
from router.sequential import Detector, DriftSettings

_MAX_AWAITED = 20_000
_MAX_SOURCES = 1_000


@dataclass(slots=True)
class _Watched:
    """One tier of one workload: a detector by stream, and what suspends it."""

    detectors: dict[Stream, Detector] = field(default_factory=dict)
    alarms: dict[Stream, Alarm] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Awaited:
    """An accepted reply that may yet be judged."""

    workload: str
    tier: str
    expected: float
    model_version: str


class Drift:
    """All streams of one service. `tell` hears every alarm, raised or cleared."""

    def __init__(self, settings: DriftSettings, tell: Callable[[Alarm], None], *, max_workloads: int = 1_000) -> None:
        self._settings = settings
        self._tell = tell
        self._max_workloads = max_workloads
        self._model: RouterModel | None = None
        self._workloads: OrderedDict[str, dict[str, _Watched]] = OrderedDict()
        self._awaited: OrderedDict[str, _Awaited] = OrderedDict()
        self._ids: dict[tuple[str, str], str] = {}  # model id by endpoint and tier

    # --- what follows ------------------------------------------------------------------------

    def suspended(self, workload: str, *, promised: bool) -> dict[str, str]:
        """The tiers whose word counts for nothing in the workload now, and why."""
        found = {}
        for tier, watched in self._workloads.get(workload, {}).items():
            for alarm in watched.alarms.values():
                if promised or alarm.stream in (Stream.TRUTH, Stream.CHECKS):
                    found[tier] = alarm.words
        return found

    def alarms(self) -> list[Alarm]:
        """Every alarm that stands."""
        return [
            alarm
            for tiers in self._workloads.values()
            for watched in tiers.values()
            for alarm in watched.alarms.values()
        ]

    def restore(self, alarms: Iterable[Alarm]) -> None:
        """Begin with the alarms that stood when the service stopped."""
        for alarm in alarms:
            self._stand(alarm)

    def hear(self, events: Iterable[Alarm]) -> list[Alarm]:
        """Follow what all replicas raised and cleared, this one's own events among them; what was news comes back.

        An alarm that the model here has answered already does not stand here.
        """
        news = []
        for event in latest(events):
            workload, tier, stream = event.place
            here = self._workloads.get(workload, {}).get(tier, _Watched()).alarms.get(stream)
            if event.cleared:
                if here is not None and here.order <= event.order:
                    watched = self._watched(workload, tier)
                    del watched.alarms[stream]
                    watched.detectors.pop(stream, None)
                    news.append(event)
            elif here is None and not (self._model is not None and _answered(event, self._model, workload, tier)):
                self._stand(event)
                news.append(event)
        return news

    # --- what is seen ------------------------------------------------------------------------

    def use(self, model: RouterModel | None) -> None:
        """Another version serves: alarms that it answers are cleared; with other weights every stream begins anew."""
        if model is self._model:
            return
        anew = model is None or self._model is None or _weights(model.version) != _weights(self._model.version)
        self._model = model
        if anew:
            self._awaited.clear()
        for workload, tiers in self._workloads.items():
            for tier, watched in tiers.items():
                if anew:
                    watched.detectors.clear()
                for stream, alarm in list(watched.alarms.items()):
                    if model is not None and _answered(alarm, model, workload, tier):
                        watched.detectors.pop(stream, None)
                        self._clear(watched, stream, alarm)
                    elif anew:
                        self._detector(workload, tier, stream).alarm()

    def observe(self, outcome: Outcome) -> None:
        """One finished request."""
        decision, model = outcome.decision, self._model
        if model is None or _weights(decision.model_version) != _weights(model.version):
            return
        for attempt in outcome.attempts:
            if isinstance(attempt.result, Reply):
                self._identify(attempt.endpoint, attempt.tier, attempt.result.model, outcome)
        first = _last_reply(outcome.attempts, decision.start_tier)
        believed = decision.probabilities.get(decision.start_tier)
        if first is not None and believed is not None:
            rejected = _rejected(first)
            if rejected is not None:
                self._see(outcome, decision.start_tier, Stream.CHECKS, float(rejected), 1.0 - believed)
            if not rejected and (score := _score(first)) is not None:
                self._see(outcome, decision.start_tier, Stream.DOUBT, 1.0 - score, 1.0 - believed)
        last = _last_reply(outcome.attempts, outcome.resolved_tier) if outcome.accepted else None
        if last is not None and (score := _score(last)) is not None:
            self._awaited[outcome.request_id] = _Awaited(
                outcome.workload, outcome.resolved_tier, 1.0 - score, decision.model_version
            )
            if len(self._awaited) > _MAX_AWAITED:
                self._awaited.popitem(last=False)

    def judged(self, request_id: str, *, good: bool, at_s: float) -> None:
        """An accepted reply was judged, by feedback or an audit; an id not awaited says nothing here."""
        awaited = self._awaited.pop(request_id, None)
        if awaited is not None and self._model is not None:
            where = Alarm(awaited.workload, awaited.tier, Stream.TRUTH, at_s, request_id, awaited.model_version)
            self._count(where, float(not good), awaited.expected)

    # --- inside ------------------------------------------------------------------------------

    def _see(self, outcome: Outcome, tier: str, stream: Stream, y: float, expected: float) -> None:
        where = Alarm(
            outcome.workload,
            tier,
            stream,
            outcome.received_at_s,
            outcome.request_id,
            outcome.decision.model_version,
        )
        self._count(where, y, expected)

    def _count(self, where: Alarm, y: float, expected: float) -> None:
        """One observation of a stream; `where` becomes the alarm if it raises one."""
        detector = self._detector(where.workload, where.tier, where.stream)
        turned = detector.see(y, expected)
        if turned is None:
            return
        seen = replace(where, n=turned.n, observed=turned.observed, expected=turned.expected)
        watched = self._watched(where.workload, where.tier)
        if detector.alarmed:
            self._stand(seen)
            self._tell(seen)
        elif where.stream in watched.alarms:
            self._clear(watched, where.stream, seen)

    def _identify(self, endpoint: str, tier: str, model_id: str, outcome: Outcome) -> None:
        """Alarm for every certificate of the tier when its endpoint's model id changes."""
        before = self._ids.get((endpoint, tier))
        if len(self._ids) < _MAX_SOURCES or before is not None:
            self._ids[endpoint, tier] = model_id
        if before in (None, model_id) or self._model is None:
            return
        for workload, tiers in list(self._workloads.items()):  # what was seen before is of another model
            if tier in tiers:
                tiers[tier].detectors.clear()
                for stream in tiers[tier].alarms:
                    self._detector(workload, tier, stream).alarm()
        for workload, certificate in self._model.certificates.items():
            if tier in certificate.tiers:
                alarm = Alarm(
                    workload, tier, Stream.MODEL, outcome.received_at_s, outcome.request_id, self._model.version
                )
                self._stand(alarm)
                self._tell(alarm)

    def _stand(self, alarm: Alarm) -> None:
        """The alarm suspends; only what comes after it can clear it. A changed model id is cleared by truth."""
        workload, tier, stream = alarm.place
        self._watched(workload, tier).alarms[stream] = alarm
        self._detector(workload, tier, stream).alarm()

    def _clear(self, watched: _Watched, stream: Stream, at: Alarm) -> None:
        raised = watched.alarms.pop(stream)
        self._tell(replace(at, stream=raised.stream, cleared=True))

    def _detector(self, workload: str, tier: str, stream: Stream) -> Detector:
        detectors = self._watched(workload, tier).detectors
        if stream not in detectors:
            ratios: Mapping[str, float] = {}
            if self._model is not None:
                ratios = self._model.expected.get(workload, {}).get(tier, {})
            detectors[stream] = Detector(self._settings, ratio=ratios.get(stream, 1.0))
        return detectors[stream]

    def _watched(self, workload: str, tier: str) -> _Watched:
        tiers = self._workloads.setdefault(workload, {})
        self._workloads.move_to_end(workload)
        if len(self._workloads) > self._max_workloads:
            self._workloads.popitem(last=False)
        return tiers.setdefault(tier, _Watched())


def _weights(version: str) -> str:
    """What names the weights of a version: certifying them anew appends `.c` and a digest."""
    return version.partition(".c")[0]


def _answered(alarm: Alarm, model: RouterModel, workload: str, tier: str) -> bool:
    """Whether the model's evidence about the tier is from after the alarm."""
    certificate = model.certificates.get(workload)
    if certificate is not None and tier in certificate.tiers:
        own = certificate.tiers[tier]
        return own.accept.state is not State.NOT_CERTIFIED and own.since_s >= alarm.at_s
    return model.fitted_until > alarm.request_id


def _last_reply(attempts: Iterable[Attempt], tier: str) -> Attempt | None:
    found = [attempt for attempt in attempts if attempt.tier == tier and isinstance(attempt.result, Reply)]
    return found[-1] if found else None


def _rejected(attempt: Attempt) -> bool | None:
    """Whether a check that is not learned rejected the reply for its quality; None where they could not tell."""
    verdicts = [report.verdict for report in attempt.checks if report.check != ScorerCheck.name]
    for verdict in verdicts:
        if isinstance(verdict, Reject):
            return True if verdict.remedy is Remedy.ESCALATE else None
    return None if any(isinstance(verdict, Unjudged) for verdict in verdicts) or not verdicts else False


def _score(attempt: Attempt) -> float | None:
    return next((report.score for report in attempt.checks if report.check == ScorerCheck.name), None)
