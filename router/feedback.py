"""The feedback service: callers' judgements, from proto to the store."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import grpc

from fallback.clock import Clock
from router.generation import Generation
from router.outcome import Feedback, RequestIds
from router.recorder import Recorder
from router.rpc import Context, Rpc
from router.status import Refusal
from router.store import FeedbackStatus, StoreError
from router.telemetry import Telemetry
from router.translate import feedback_of
from router.v1 import feedback_pb2, feedback_pb2_grpc


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
        rpc = Rpc("router.v1.FeedbackService/ReportOutcome", context, self._clock, self._telemetry)

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
