"""proto ⇄ values. No decisions: it validates, hands over, and says how it ended."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import grpc
from grpc_status import rpc_status

from fallback.clock import Clock
from router import logs
from router.admission import Admission, Priority
from router.audit.auditor import Auditor
from router.completer import Ask
from router.completion import Completion
from router.fields import InvalidField
from router.generation import Generation
from router.outcome import Feedback, RequestIds
from router.pacing import Pacing
from router.policy import mistake_cost_usd
from router.prompts import request_of
from router.recorder import Recorder
from router.replays import Replays
from router.replies import decision_of, plan_of, response_of
from router.status import Refusal, invalid
from router.store import FeedbackStatus, StoreError
from router.telemetry import RpcCall, Telemetry
from router.translate import bounds_of, feedback_of, idempotency_key_of, labels_of, what_if_of, workload_of
from router.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc

Response = TypeVar("Response")
_log = logging.getLogger(__name__)
Context = grpc.aio.ServicerContext[Any, Any]


class _Rpc:
    """Times one call, ends it with its status, and reports it to telemetry exactly once."""

    def __init__(self, method: str, context: Context, clock: Clock, telemetry: Telemetry) -> None:
        self._method = method
        self._context: Any = context  # the stubs do not know abort_with_status
        self._clock = clock
        self._telemetry = telemetry
        self._wall_s, self._started_s = clock.wall_s(), clock.monotonic_s()
        self.metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        self.completion: Completion | None = None

    async def answer(self, work: Callable[[], Awaitable[Response]]) -> Response:
        """What `work` gives; a Refusal becomes its gRPC status with details."""
        try:
            response = await work()
        except InvalidField as error:
            refusal = invalid(error)
        except Refusal as error:
            refusal = error
        except asyncio.CancelledError:
            left_s = self._context.time_remaining()
            self._ended("DEADLINE_EXCEEDED" if left_s is not None and left_s <= 0 else "CANCELLED")
            raise
        except Exception as error:  # noqa: BLE001 - the edge: whatever it was, the caller gets a status
            _log.error("unexpected %s in %s", type(error).__name__, self._method, exc_info=error)
            refusal = Refusal(grpc.StatusCode.INTERNAL, "INTERNAL", "an unexpected error; see the service's log")
        else:
            self._ended("OK")
            return response
        self._ended(refusal.code.name)
        await self._context.abort_with_status(rpc_status.to_status(refusal.status))
        raise AssertionError("abort never returns")

    def _ended(self, status: str) -> None:
        duration_s = self._clock.monotonic_s() - self._started_s
        rpc = RpcCall(self._method, status, self._wall_s, duration_s, self.metadata)
        outcome = self.completion.outcome if self.completion is not None else None
        if outcome is None:
            self._telemetry.rpc(rpc)
        else:
            self._telemetry.record(outcome, rpc)


class RouterServicer(router_pb2_grpc.RouterServiceServicer):
    """Complete and Route."""

    def __init__(
        self,
        *,
        generation: Callable[[], Generation],
        admission: Admission,
        pacing: Pacing,
        replays: Replays,
        clock: Clock,
        telemetry: Telemetry,
        auditor: Auditor,
    ) -> None:
        self._auditor = auditor
        self._generation = generation
        self._admission = admission
        self._pacing = pacing
        self._replays = replays
        self._clock = clock
        self._telemetry = telemetry

    def turned_away(self, request: router_pb2.CompleteRequest) -> Refusal | None:
        """The refusal of a request for which there is no place, before anything else of it is looked at."""
        return self._admission.turned_away(_priority(self._generation(), request))

    async def Complete(  # noqa: N802 - the wire's name
        self, request: router_pb2.CompleteRequest, context: Context
    ) -> router_pb2.CompleteResponse:
        """Answer a request."""
        refusal = self.turned_away(request)
        if refusal is not None:
            return _refused(context, refusal, router_pb2.CompleteResponse())
        priority = _priority(self._generation(), request)
        rpc = _Rpc("router.v1.RouterService/Complete", context, self._clock, self._telemetry)

        async def work() -> router_pb2.CompleteResponse:
            async with self._admission.admitted(priority):
                await self._pacing.turn()
                _check_priority(request)
                key = idempotency_key_of(request.idempotency_key)
                generation = self._generation()
                ask = _ask(generation, request.workload, request.prompt, request.bounds, request.labels, context)

                async def make() -> router_pb2.CompleteResponse:
                    completion = rpc.completion = Completion(generation.completer, ask)
                    trace_id = self._telemetry.trace_id(rpc.metadata, completion.request_id)
                    with generation.in_use(), logs.request(logs.RequestIds(completion.request_id, trace_id)):
                        completed = await completion.run()
                    await self._pacing.turn()
                    self._auditor.consider(generation, ask, completed, trace_id)
                    return response_of(completed.outcome, completed.reply, recorded=completed.recorded)

                if not key:
                    return await make()
                digest = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
                return await self._replays.once((ask.request.workload, key), digest, make)

        return await rpc.answer(work)

    async def Route(  # noqa: N802 - the wire's name
        self, request: router_pb2.RouteRequest, context: Context
    ) -> router_pb2.RouteResponse:
        """The decision alone."""
        rpc = _Rpc("router.v1.RouterService/Route", context, self._clock, self._telemetry)

        async def work() -> router_pb2.RouteResponse:
            await self._pacing.turn()
            generation = self._generation()
            ask = _ask(generation, request.workload, request.prompt, request.bounds, {}, context)
            if not request.HasField("what_if"):
                return router_pb2.RouteResponse(decision=decision_of(generation.completer.decide(ask).decision))
            what_if = what_if_of(request.what_if, generation.completer.allowed(ask))
            policy = ask.policy.model_copy(update={**what_if.policy, "explore": 0.0})
            decided = generation.completer.decide(replace(ask, policy=policy, forced_start=what_if.start_tier))
            return router_pb2.RouteResponse(
                decision=decision_of(decided.decision),
                plans=[plan_of(one) for one in generation.completer.plans(decided)],
                mistake_cost_usd=mistake_cost_usd(decided.question, decided.model),
            )

        return await rpc.answer(work)


class FeedbackServicer(feedback_pb2_grpc.FeedbackServiceServicer):
    """ReportOutcome."""

    def __init__(
        self, *, generation: Callable[[], Generation], recorder: Recorder, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._generation = generation
        self._recorder = recorder
        self._clock = clock
        self._telemetry = telemetry

    async def ReportOutcome(  # noqa: N802 - the wire's name
        self, request: feedback_pb2.ReportOutcomeRequest, context: Context
    ) -> feedback_pb2.ReportOutcomeResponse:
        """Record a caller's judgement."""
        rpc = _Rpc("router.v1.FeedbackService/ReportOutcome", context, self._clock, self._telemetry)

        async def work() -> feedback_pb2.ReportOutcomeResponse:
            generation = self._generation()
            feedback_of(request, generation.limits)
            feedback = Feedback(
                request_id=request.request_id,
                good=request.quality == feedback_pb2.QUALITY_GOOD,
                sufficient_tier=request.sufficient_tier,
                score=request.score if request.HasField("score") else None,
                reason=request.reason,
                reported_at_s=self._clock.wall_s(),
            )
            store_config = generation.config.store
            window_s = store_config.feedback_window_s
            try:
                async with asyncio.timeout(store_config.max_wait_s):
                    status, workload = await self._recorder.run(
                        lambda store: (
                            store.report(feedback, window_s=window_s),
                            store.workload_of(feedback.request_id),
                        )
                    )
            except (StoreError, TimeoutError):
                raise _later("the store cannot take feedback now") from None
            if status is FeedbackStatus.UNKNOWN:
                since_s = self._since_made_s(feedback)
                if self._recorder.behind or since_s < store_config.settle_s:
                    raise _later("the outcome may not have reached the store yet", since_s)
            already = _recorded(status)
            if not already:
                self._telemetry.feedback(workload, good=feedback.good)
                drift = generation.completer.drift
                drift.judged(feedback.request_id, good=feedback.good, at_s=feedback.reported_at_s)
            return feedback_pb2.ReportOutcomeResponse(already_reported=already)

        return await rpc.answer(work)

    @staticmethod
    def _since_made_s(feedback: Feedback) -> float:
        """How long ago its request was made, by the id; inf for what no replica makes. Replicas' clocks may differ."""
        made_at_s = RequestIds.made_at_s(feedback.request_id)
        return math.inf if made_at_s is None else abs(feedback.reported_at_s - made_at_s)


def _later(why: str, since_s: float = 0.0) -> Refusal:
    """What a report needs is not there now. A report is not journalled: its answer is what the store says of it.

    The longer it has not been there, the later it is worth asking again: 1 s to 60 s.
    """
    retry_s = min(60.0, max(1.0, since_s / 4))
    return Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", why, retry_s)


def _recorded(status: FeedbackStatus) -> bool:
    """Whether it was reported before; Refusal where it could not be recorded."""
    match status:
        case FeedbackStatus.RECORDED:
            return False
        case FeedbackStatus.REPEATED:
            return True
        case FeedbackStatus.UNKNOWN:
            raise Refusal(grpc.StatusCode.NOT_FOUND, "UNKNOWN_REQUEST", "no outcome with this request id")
        case FeedbackStatus.EXPIRED:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "EXPIRED", "the outcome is past the feedback window")
        case FeedbackStatus.NO_REPLY:
            raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, "NO_REPLY", "the request had no reply to judge")


_PRIORITIES = {
    router_pb2.PRIORITY_LOW: Priority.LOW,
    router_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    router_pb2.PRIORITY_HIGH: Priority.HIGH,
}


def _priority(generation: Generation, request: router_pb2.CompleteRequest) -> Priority:
    """The request's own priority, else its workload's; before anything else of it is looked at."""
    own = _PRIORITIES.get(request.priority)
    if own is not None:
        return own
    policy, _ = generation.policy(request.workload or "default")
    return Priority[policy.priority.upper()]


def _check_priority(request: router_pb2.CompleteRequest) -> None:
    if request.priority not in _PRIORITIES and request.priority != router_pb2.PRIORITY_UNSPECIFIED:
        raise InvalidField("priority", "unknown value")


def _refused(context: Context, refusal: Refusal, nothing: Response) -> Response:
    """End a call with the refusal's status. An abort says the same by an exception, at twice the price."""
    context.set_trailing_metadata(refusal.trailers)
    context.set_code(refusal.code)
    context.set_details(refusal.message)
    return nothing


def _ask(
    generation: Generation,
    name: str,
    prompt: router_pb2.Prompt,
    bounds: router_pb2.Bounds,
    labels: Any,
    context: Context,
) -> Ask:
    """A validated Ask; InvalidField or Refusal otherwise."""
    workload = workload_of(name)
    if not generation.knows(workload):
        raise Refusal(grpc.StatusCode.NOT_FOUND, "UNKNOWN_WORKLOAD", "no such workload in the configuration")
    policy, checks = generation.policy(workload)
    return Ask(
        request=request_of(workload, prompt, generation.limits),
        policy=policy,
        checks=checks,
        bounds=bounds_of(bounds, generation.limits),
        labels=labels_of(labels),
        time_left_s=context.time_remaining(),
    )
