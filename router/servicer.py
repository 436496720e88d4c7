"""The router service: proto ⇄ values. No decisions: it validates, hands over, and says how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc

from fallback.clock import Clock
from router import logs
from router.admission import Admission, Priority
from router.audit.auditor import Auditor
from router.completer import Ask
from router.completion import Completion
from router.fields import InvalidField
from router.generation import Generation
from router.pacing import Pacing
from router.policy import mistake_cost_usd
from router.prompts import request_of
from router.replays import Replays
from router.replies import decision_of, plan_of, response_of
from router.rpc import Context, Response, Rpc
from router.status import Refusal
from router.telemetry import Telemetry
from router.translate import bounds_of, idempotency_key_of, labels_of, what_if_of, workload_of
from router.v1 import router_pb2, router_pb2_grpc


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
        rpc = Rpc("router.v1.RouterService/Complete", context, self._clock, self._telemetry)

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
        rpc = Rpc("router.v1.RouterService/Route", context, self._clock, self._telemetry)

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
