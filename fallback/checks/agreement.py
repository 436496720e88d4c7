"""Agreement: further samples of a cheap tier give the same answer as the first reply, or do not.

Self-consistency (Wang et al. 2022, arXiv 2203.11171) as a check: right answers are alike, wrong ones differ.
Fit for closed answers; where several answers are right, samples differ and nothing is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from fallback.checks import Case, Judgement
from fallback.checks.paid import cause_of, check_band, check_timeout, ended_whole, pinned_to
from fallback.errors import Failure
from fallback.sameness import Notion, same_answer
from fallback.types import Accept, Reject, Reply, Unjudged


@dataclass(frozen=True, slots=True)
class AgreementCheck:
    """Asks `tier` (the one that replied where it is empty) `samples` times more, all at once, and lets them vote.

    It accepts where at least `share` of the samples give the first reply's answer, and rejects otherwise; the
    score is the share that agreed. As soon as the vote is decided the other calls are cancelled. A sample
    that failed or was cut off has no vote; where fewer than half have one, the check is Unjudged.

    `answer` says what the same answer is: the answer found by its form (`auto`), the whole reply (`exact`), a
    JSON field (`field`), a number within `tolerance` (relative), a label, or texts alike by at least `similarity`.
    """

    name: ClassVar[str] = "agreement"
    paid: ClassVar[bool] = True

    answer: Notion = "auto"
    field: str = ""
    tolerance: float = 1e-6
    similarity: float = 0.7
    samples: int = 2
    share: float = 0.5
    tier: str = ""
    model: str = ""
    uncertain: tuple[float, float] = (0.2, 0.9)
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        check_band(self.uncertain)
        check_timeout(self.timeout_s)
        if not 1 <= self.samples <= 10:
            raise ValueError("samples must be 1 to 10")
        for name, value in (("share", self.share), ("similarity", self.similarity)):
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1")
        if not 0 <= self.tolerance < 1:
            raise ValueError("tolerance must be in [0, 1)")
        if bool(self.field) != (self.answer == "json_field"):
            raise ValueError('field is needed with answer = "json_field", and only there')

    @property
    def version(self) -> str:
        """Of the rule, with the model that is asked where it is always the same."""
        return f"1+{self.model}" if self.model else "1"

    def pinned(self, model: str) -> Self:
        """Pinned to the model of its tier."""
        return pinned_to(self, model)

    async def judge(self, case: Case) -> Judgement:
        """By the vote."""
        tasks = [asyncio.ensure_future(self._sample(case)) for _ in range(self.samples)]
        try:
            return await self._vote(case, tasks)
        finally:
            await _cancel(tasks)

    async def _vote(self, case: Case, tasks: Iterable[asyncio.Future[Reply | str]]) -> Judgement:
        agreed = against = 0
        cause = "no_sample"
        for ended in asyncio.as_completed(tasks):
            sample = await ended
            if isinstance(sample, str):
                cause = sample
            elif self._same(case.reply, sample):
                agreed += 1
            else:
                against += 1
            verdict = self._decided(agreed, against)
            if verdict is not None:
                return Judgement(verdict, score=agreed / (agreed + against))
        votes = agreed + against
        if votes == 0 or 2 * votes < self.samples:
            return Judgement(Unjudged(cause))
        verdict = Accept() if agreed >= self.share * votes else Reject("minority")
        return Judgement(verdict, score=agreed / votes)

    def _decided(self, agreed: int, against: int) -> Accept | Reject | None:
        """The verdict that no vote still to come could change."""
        if agreed >= self.share * self.samples and 2 * agreed >= self.samples:
            return Accept()
        if self.samples - against < self.share * self.samples and 2 * (agreed + against) >= self.samples:
            return Reject("minority")
        return None

    async def _sample(self, case: Case) -> Reply | str:
        """A further sample, or why there is none."""
        request = replace(case.request, max_tokens=case.request.max_tokens_ceiling)
        try:
            reply = await case.ask(self.tier or case.tier, request, timeout_s=self.timeout_s)
        except Failure as failure:
            return cause_of(failure)
        return reply if ended_whole(reply) else reply.stop_reason.value

    def _same(self, one: Reply, other: Reply) -> bool:
        return same_answer(self.answer, one, other, field=self.field, tolerance=self.tolerance, alike=self.similarity)


async def _cancel(tasks: Iterable[asyncio.Future[Reply | str]]) -> None:
    """Cancel what is still under way, and wait until it has ended: only then is its account closed."""
    pending = [task for task in tasks if not task.done()]
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
