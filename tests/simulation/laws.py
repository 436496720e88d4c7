"""What must hold of every reply when it is given, and of the whole history when all is quiet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fallback.errors import Cancelled
from fallback.types import Reply
from router.config import Config
from router.outcome import Outcome
from router.store import Recorded
from router.v1 import router_pb2
from tests.simulation.callers import Plan
from tests.simulation.disk import Disk
from tests.simulation.guard_laws import extra_calls
from tests.simulation.journal import History
from tests.simulation.provider import SimProvider
from training.dataset import LADDER, labels_of

_PENNY = 1e-9
_STATUSES = frozenset(
    {"OK", "INVALID_ARGUMENT", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"}
)


def check_reply(
    history: History, plan: Plan, reply: router_pb2.CompleteResponse, disk: Disk, config: Config, calls: int
) -> None:
    """Of one reply, at the moment when it reaches its caller."""
    spent = sum(each.cost_usd + sum(verdict.cost_usd for verdict in each.verdicts) for each in reply.attempts)
    history.law("money adds up", holds=abs(spent - reply.cost_usd) < _PENNY, detail=(plan.number, spent))
    on_disk = disk.holds(reply.request_id)
    history.law("recorded means on disk", holds=not reply.recorded or on_disk, detail=plan.number)
    # One tier more may come in by failover; the raised limit is one call more a tier.
    bound = (len(config.tiers) + 1) * (config.resilience.attempts_per_tier + 1)
    history.law("attempts are bounded", holds=len(reply.attempts) <= bound, detail=len(reply.attempts))
    if not reply.replayed:
        history.law("attempts are calls", holds=len(reply.attempts) == calls, detail=(plan.number, calls))
    if cap := plan.request.bounds.cost_cap_usd:
        history.law("the cost cap holds", holds=reply.cost_usd <= cap + _PENNY, detail=(reply.cost_usd, cap))


def check_status(history: History, plan: Plan, status: str) -> None:
    """Of one refusal."""
    history.law("statuses are typed", holds=status in _STATUSES, detail=(plan.number, status))
    mistaken = plan.request.prompt.max_tokens <= 0 or plan.request.bounds.cost_cap_usd > 0
    history.law(
        "only a mistake is named as one", holds=mistaken or status != "INVALID_ARGUMENT", detail=(plan.number, status)
    )


def check_outcome(history: History, outcome: Outcome) -> None:
    """Of one request that has ended, however it ended."""
    replied = {attempt.tier for attempt in outcome.attempts if isinstance(attempt.result, Reply)}
    failed_only = {attempt.tier for attempt in outcome.attempts} - replied
    labels = labels_of(Recorded(outcome, None), LADDER)
    history.law("a Failure gives no label", holds=not failed_only & labels.keys(), detail=outcome.labels)
    for attempt in outcome.attempts:
        judged = bool(attempt.checks) and not isinstance(attempt.result, Reply)
        history.law("a Failure gets no verdict", holds=not judged, detail=outcome.labels)
        versions = {report.version for report in attempt.checks if report.check == "scorer"}
        history.law(
            "one model a request", holds=versions <= {outcome.decision.model_version}, detail=(outcome.labels, versions)
        )
    spent = sum(a.cost_usd + sum(report.cost_usd for report in a.checks) for a in outcome.attempts)
    history.law("the outcome's money adds up", holds=abs(spent - outcome.cost_usd) < _PENNY, detail=outcome.labels)


def check_calls(history: History, outcomes: list[Outcome], providers: Mapping[str, SimProvider]) -> None:
    """Of every outcome that one process made: its attempts are the calls that the providers counted."""
    for outcome in outcomes:
        call = outcome.labels["call"]
        counted = sum(provider.calls[call] for provider in providers.values())
        history.law("attempts are upstream calls", holds=len(outcome.attempts) == counted, detail=(call, counted))


def check_budgets(history: History, outcomes: list[Outcome], replies: Mapping[str, int], config: Config) -> None:
    """Of one process: calls because of Failures that fail too, per provider, stay within the A6 budget's bound.

    Those that are answered cost the budget nothing: a whole outage of one provider may move to the other. What
    a caller cancels says nothing about the provider.
    """
    made = Counter[str]()
    for outcome in outcomes:
        failed = [attempt for attempt in outcome.attempts if not isinstance(attempt.result, Reply | Cancelled)]
        made.update(extra_calls([(attempt.endpoint, attempt.purpose.value) for attempt in failed]))
    settings = config.resilience
    for endpoint, extra in made.items():
        bound = settings.budget_tokens / 2 + settings.budget_ratio * replies.get(endpoint, 0) + 1
        history.law("the retry budget holds", holds=extra <= bound, detail=(endpoint, extra, bound))
