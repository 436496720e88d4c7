"""Sequential tests of a stream of observations against what was expected of each. Pure, of fixed size.

**Worse.** An e-detector of Shiryaev–Roberts type (Shin, Ramdas & Rinaldo, "E-detectors: a nonparametric framework
for sequential change detection", arXiv 2203.03532): R ← (R + 1)·(1 + λ(y − μ)), averaged over a few rises, with λ such
that a y of 1 counts as a rise of μ by that factor would make it count. While E[y | past] ≤ μ, R less the number of
observations is a supermartingale, so that alarms come no more often, on average, than every `false_alarm_every`
observations. Neither independence nor a distribution is assumed.

**Good again.** After an alarm the opposite is tested by newer observations alone: that E[y | past] is still at least
a bar, twice what is allowed (or halfway to 1). An e-process, e ← e·(1 − λ(y − bar)), refutes it at
1 / (1 − confidence), by
Ville's inequality. It is not let fall below a floor, or a tier that was worse for long could not come back; from
there it refutes wrongly no more often, on average, than every 1 / ((1 − confidence)·floor) observations.
"""

from __future__ import annotations

from dataclasses import dataclass

_RISES = (1.5, 2.5, 4.0)
_FALLS = (0.7, 0.45, 0.2)
_LEAST, _MOST = 0.01, 0.98  # what may be expected
_FLOOR = 1e-3


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """`false_alarm_every`: observations of one stream between false alarms, on average at least.

    A rise by the share `tolerance` is none. `confidence` that a tier is good again.
    """

    false_alarm_every: float = 100_000.0
    tolerance: float = 0.2
    confidence: float = 0.95


@dataclass(frozen=True, slots=True)
class Turned:
    """The mind changed, after `n` observations of this sum where at most `expected` was allowed."""

    n: int
    observed: float
    expected: float


class Detector:
    """One stream. `ratio` is how far off expectations were where nothing was wrong."""

    __slots__ = ("_better", "_expected", "_n", "_observed", "_ratio", "_settings", "_worse", "alarmed")

    def __init__(self, settings: DriftSettings, *, ratio: float = 1.0) -> None:
        self._settings = settings
        self._ratio = ratio
        self.alarmed = False
        self._n, self._observed, self._expected = 0, 0.0, 0.0
        self._worse = [0.0] * len(_RISES)
        self._better = [1.0] * len(_FALLS)

    def see(self, y: float, expected: float) -> Turned | None:
        """One more observation in [0, 1]; not None where it turns the alarm on or off."""
        allowed = expected * self._ratio * (1.0 + self._settings.tolerance)
        mu = min(_MOST, max(_LEAST, allowed))
        self._n += 1
        self._observed += y
        self._expected += mu
        if self.alarmed:
            bar = min(2.0 * mu, 0.5 + 0.5 * mu)
            self._better = [
                max(_FLOOR, e * (1.0 - (1.0 - fall) / (1.0 - bar) * (y - bar)))
                for e, fall in zip(self._better, _FALLS, strict=True)
            ]
            turned = sum(self._better) / len(_FALLS) >= 1.0 / (1.0 - self._settings.confidence)
        else:
            self._worse = [(r + 1.0) * _factor(y, mu, rise) for r, rise in zip(self._worse, _RISES, strict=True)]
            turned = sum(self._worse) / len(_RISES) >= self._settings.false_alarm_every
        if not turned:
            return None
        found = Turned(self._n, self._observed, self._expected)
        self.alarmed = not self.alarmed
        self._reset()
        return found

    def alarm(self) -> None:
        """Alarmed by somebody else, or again: only observations from now on count."""
        self.alarmed = True
        self._reset()

    def _reset(self) -> None:
        self._n, self._observed, self._expected = 0, 0.0, 0.0
        self._worse = [0.0] * len(_RISES)
        self._better = [1.0] * len(_FALLS)


def _factor(y: float, mu: float, rise: float) -> float:
    """1 + λ(y − μ): for a y of 0 or 1 the likelihood ratio of `rise`·μ against μ."""
    rate = min(rise * mu, 0.5 + 0.5 * mu)
    return 1.0 + (rate / mu - 1.0) / (1.0 - mu) * (y - mu)
