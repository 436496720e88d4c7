"""Breakers and retry budgets as laws about calls, kept apart from the code that implements them."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field

from fallback.clock import Clock
from fallback.errors import Failure, RateLimited, Transient
from fallback.guards import GuardSettings
from tests.simulation.journal import History

_EDGE_S = 1e-6


@dataclass
class _Line:
    """One endpoint's one tier. `since_s`: calls begun earlier say nothing of the breaker's present state."""

    recent: deque[bool]
    opened_s: float = -1.0
    failed_probes: int = 0
    since_s: float = -1.0
    probes_out: int = 0

    @property
    def half_open(self) -> bool:
        return self.opened_s >= 0


@dataclass(frozen=True)
class Token:
    """One call under way."""

    endpoint: str
    tier: str
    at_s: float
    probe: bool


@dataclass
class GuardLaws:
    """Told of every call's beginning and end; breaks when a call was made that should not have been.

    Of one process: `forget` when it is restarted. Only failures that a breaker must count are taken as proof;
    with fewer than `failures` of them in the window nothing is claimed.
    """

    settings: GuardSettings
    clock: Clock
    history: History
    lines: dict[tuple[str, str], _Line] = field(default_factory=dict)
    replies: Counter[str] = field(default_factory=Counter)
    extra: Counter[str] = field(default_factory=Counter)

    def forget(self) -> None:
        """A new process knows nothing."""
        self.lines, self.replies, self.extra = {}, Counter(), Counter()

    def began(self, endpoint: str, tier: str) -> Token:
        """A call begins."""
        line, now_s = self._line(endpoint, tier), self.clock.monotonic_s()
        probe = line.half_open
        if probe:
            least_s = self._open_s(line) * (1 - self.settings.endpoint.jitter)
            self.history.law(
                "an open breaker lets no call pass",
                holds=now_s >= line.opened_s + least_s - _EDGE_S,
                detail=(endpoint, tier, line.opened_s),
            )
            line.probes_out += 1
            self.history.law(
                "half open admits a counted few",
                holds=line.probes_out <= self.settings.endpoint.probes,
                detail=(endpoint, tier, line.probes_out),
            )
        return Token(endpoint, tier, now_s, probe)

    def ended(self, token: Token, failure: Failure | None) -> None:
        """It ended, in a reply where there is no failure."""
        line = self.lines.get((token.endpoint, token.tier))
        if failure is None:
            self.replies[token.endpoint] += 1
        if line is None or token.at_s < line.since_s:
            return
        if token.probe:
            line.probes_out = max(0, line.probes_out - 1)
            if failure is None:
                line.opened_s, line.failed_probes, line.since_s = -1.0, 0, self.clock.monotonic_s()
                line.recent.clear()
            elif _ill(failure):
                line.failed_probes += 1
                self._open(line)
            return
        if failure is None or _ill(failure):
            line.recent.append(failure is not None)
            if sum(line.recent) >= self.settings.endpoint.failures:
                self._open(line)

    def _open_s(self, line: _Line) -> float:
        """How long it stays open: twice as long for every probe that failed since one was answered."""
        settings = self.settings.endpoint
        return min(settings.open_s, settings.first_open_s * 2**line.failed_probes)

    def _open(self, line: _Line) -> None:
        line.opened_s = line.since_s = self.clock.monotonic_s()
        line.probes_out = 0
        line.recent.clear()

    def _line(self, endpoint: str, tier: str) -> _Line:
        key = (endpoint, tier)
        if key not in self.lines:
            self.lines[key] = _Line(deque(maxlen=self.settings.endpoint.window))
        return self.lines[key]


def _ill(failure: Failure) -> bool:
    """Whether a failure is proof of ill health: a 4xx never is."""
    refused = isinstance(failure, RateLimited) or 400 <= (failure.http_status or 0) < 500
    return isinstance(failure, Transient) and not refused


def extra_calls(purposes: list[tuple[str, str]]) -> dict[str, int]:
    """Calls because of a Failure, by endpoint, of (endpoint, purpose) pairs."""
    found: defaultdict[str, int] = defaultdict(int)
    for endpoint, purpose in purposes:
        found[endpoint] += purpose in ("retry", "failover", "hedge")
    return found
