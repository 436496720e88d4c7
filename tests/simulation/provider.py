"""A provider that answers, fails, hangs and trickles as its weather says, and counts every call."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from fallback import errors
from fallback.types import Reply, Request, StopReason, TextBlock, Tier, Usage
from tests.simulation.guard_laws import GuardLaws
from tests.simulation.journal import History

Sky = Literal["fair", "outage", "hang", "flaky", "slow", "limited", "refused"]
SKIES: tuple[Sky, ...] = ("fair", "outage", "hang", "flaky", "slow", "limited", "refused")
_GOOD = {"haiku": 0.6, "sonnet": 0.8, "opus": 0.95}
_TYPICAL_S = {"haiku": 0.4, "sonnet": 1.2, "opus": 2.5}
_FLAKY = (errors.Overloaded, errors.UpstreamError, errors.ConnectionFailed, errors.MalformedReply, errors.TimedOut)


@dataclass
class Weather:
    """By tier; `share` is how often a flaky one fails."""

    sky: dict[str, Sky]
    share: float = 0.3


class SimProvider:
    """One endpoint. `calls` counts by call number, which stands at the end of the prompt's text."""

    def __init__(self, name: str, rng: random.Random, history: History, laws: GuardLaws) -> None:
        self.name = name
        self.weather = Weather({})
        self.calls: Counter[str] = Counter()
        self.under_way = 0
        self._rng = rng
        self._history = history
        self._laws = laws

    async def send(self, request: Request, tier: Tier, model: str, *, max_tokens: int, timeout_s: float) -> Reply:
        call = request.texts()[-1].rpartition(" ")[2]
        self.calls[call] += 1
        self._history.add("call", self.name, tier.name, call, f"{timeout_s:.6f}")
        token = self._laws.began(self.name, tier.name)
        self.under_way += 1
        failure: errors.Failure | None = errors.Cancelled()
        try:
            reply = await self._answer(tier, model, max_tokens, timeout_s)
            failure = None
            return reply
        except errors.Failure as failed:
            failure = failed
            raise
        finally:
            self.under_way -= 1
            self._laws.ended(token, failure)
            self._history.add("ended", self.name, tier.name, call, failure.kind if failure else "reply")

    async def close(self) -> None:
        self._history.add("closed", self.name)

    async def _answer(self, tier: Tier, model: str, max_tokens: int, timeout_s: float) -> Reply:
        sky = self.weather.sky.get(tier.name, "fair")
        typical_s = _TYPICAL_S[tier.name] * (8.0 if sky == "slow" else 1.0)
        takes_s = typical_s * self._rng.lognormvariate(0.0, 0.4)
        if sky == "hang":
            takes_s = 1e6
        elif sky in ("outage", "limited", "refused"):
            takes_s *= 0.1
        await asyncio.sleep(min(takes_s, timeout_s))
        if takes_s > timeout_s:
            raise errors.TimedOut("client_timeout_error")
        match sky:
            case "outage":
                raise errors.Overloaded("overloaded_error", http_status=529)
            case "limited":
                wait_s = self._rng.choice((None, 0.2, 5.0, 120.0))
                raise errors.RateLimited("rate_limit_error", http_status=429, retry_after_s=wait_s)
            case "refused":
                raise errors.CredentialsRefused("authentication_error", http_status=401)
            case "flaky" if self._rng.random() < self.weather.share:
                failure = self._rng.choice(_FLAKY)
                raise failure
            case _:
                return self._reply(tier, model, max_tokens)

    def _reply(self, tier: Tier, model: str, max_tokens: int) -> Reply:
        if self._rng.random() < 0.03:
            return Reply((TextBlock("good but cut"),), StopReason.MAX_TOKENS, Usage(50, max_tokens), model, "m")
        if self._rng.random() < 0.02:
            return Reply((TextBlock("I will not."),), StopReason.REFUSAL, Usage(50, 5), model, "m")
        word = "good" if self._rng.random() < _GOOD[tier.name] else "bad"
        text = f"{word} answer {self._rng.randrange(100)} of {tier.name}"
        return Reply((TextBlock(text),), StopReason.END_TURN, Usage(50, self._rng.randrange(5, 200)), model, "m")
