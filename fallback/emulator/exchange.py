"""One HTTP exchange, from the request's bytes to the response."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from fallback.emulator import compose, delivery
from fallback.emulator.answers import AnswerSource
from fallback.emulator.api_errors import STATUS_OF_TYPE, ApiError, invalid
from fallback.emulator.delivery import Sleep, whole
from fallback.emulator.fault_engine import Plan, Terminal
from fallback.emulator.faults import (
    Cut,
    Hang,
    Malformed,
    Refusal,
    Route,
    SlowHeaders,
    Status,
    StreamError,
    Trickle,
    Truncate,
)
from fallback.emulator.headers import EMULATED, ORGANIZATION_ID, RateMeter, retry_after_headers
from fallback.emulator.prompt_cache import PromptCache
from fallback.emulator.samples import Samples
from fallback.emulator.stats import Stats
from fallback.emulator.validate import Checked, check_body

_HTML = b"<html><head><title>Emulated fault</title></head><body><h1>Emulated fault</h1></body></html>"
_JSON = "application/json"
_EVENTS = "text/event-stream; charset=utf-8"


class Exchange:
    """The request, its id and the headers of every response to it."""

    def __init__(self, request: web.BaseRequest, number: int, ident: str) -> None:
        self.request = request
        self.number = number
        self.request_id = f"req_{ident}"
        self.message_id = f"msg_{ident}"
        self.body: object = None
        self.model: object = None
        self.headers = {
            "request-id": self.request_id,
            "anthropic-organization-id": ORGANIZATION_ID,
            EMULATED: "simulated",
        }

    async def read(self) -> None:
        """Read the body; what is no JSON stays None. Raises web.HTTPRequestEntityTooLarge."""
        raw = await self.request.read()
        try:
            self.body = json.loads(raw)
        except (ValueError, RecursionError):
            self.body = None
        if isinstance(self.body, dict):
            self.model = self.body.get("model")

    @property
    def authenticated(self) -> bool:
        """A key was sent; which one does not matter."""
        bearer = self.request.headers.get("Authorization", "")
        return bool(self.request.headers.get("x-api-key")) or (bearer.startswith("Bearer ") and len(bearer) > 7)

    def checked_body(self) -> dict[str, Any]:
        """The body of an authenticated request with its version header. Raises ApiError."""
        if not self.authenticated:
            raise ApiError(401, "x-api-key header is required")
        if "anthropic-version" not in self.request.headers:
            raise invalid("anthropic-version: header is required")
        if not isinstance(self.body, dict):
            raise invalid("The request body is not a JSON object")
        return self.body

    def refuse(self, error: ApiError) -> web.StreamResponse:
        """An error answer."""
        return self.reply(error.status, error.body(self.request_id), error.headers)

    def reply(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        """A JSON answer."""
        return whole(status, json.dumps(body).encode(), {**self.headers, **(headers or {})})


@dataclasses.dataclass(frozen=True, slots=True)
class Serving:
    """Turns exchanges into responses. `draw(tier, number)` is the latency in seconds of the numbered request."""

    source: AnswerSource
    cache: PromptCache
    samples: Samples
    meter: RateMeter
    wall: Callable[[], float]
    sleep: Sleep
    draw: Callable[[str, int], float]

    def forget(self) -> None:
        """Forget prompts asked and cached."""
        self.cache.clear()
        self.samples.clear()

    async def before(self, exchange: Exchange, plan: Plan) -> web.StreamResponse | None:
        """The part of a plan that does not need an answer; None where the exchange goes on."""
        if plan.delay_s:
            await self.sleep(plan.delay_s)
        match plan.action:
            case Status() as fault:
                return self._status(exchange, fault)
            case Hang():
                await asyncio.get_running_loop().create_future()  # ends by cancellation only
            case SlowHeaders(delay_s=delay_s):
                await self.sleep(delay_s)
            case Cut(when="before_headers"):
                delivery.cut(exchange.request)
            case _:
                pass
        return None

    async def serve(self, exchange: Exchange, route: Route, plan: Plan, stats: Stats) -> web.StreamResponse:
        """The response to a POST whose body has been read."""
        early = await self.before(exchange, plan)
        if early is not None:
            return early
        try:
            body = exchange.checked_body()
            checked = check_body(body, counting=route == "count_tokens")
            if route == "count_tokens":
                total = PromptCache(lambda: 0.0).charge(body, checked.spec).total
                return exchange.reply(200, {"input_tokens": total})
            message = self._message(exchange, checked, body)
        except ApiError as error:
            return exchange.refuse(error)
        match plan.action:
            case Refusal(category=category):
                message = compose.refuse(message, category)
            case Truncate(max_tokens=limit):
                message = compose.truncate(message, limit)
            case _:
                pass
        stats.billed(checked.spec.id, message["usage"])
        exchange.headers.update(self.meter.headers(f"{exchange.request.path} {checked.spec.id}", message["usage"]))
        latency_s = self.draw(checked.spec.tier, exchange.number)
        if latency_s:
            await self.sleep(latency_s)
        return await self._deliver(exchange, message, plan.action, streaming=checked.stream)

    def _message(self, exchange: Exchange, checked: Checked, body: Mapping[str, Any]) -> dict[str, Any]:
        tokens = self.cache.charge(body, checked.spec)
        ask = compose.ask_of(body, checked)
        sample = self.samples.next(ask.tier, ask.prompt)
        answer = self.source.answer(ask if sample == 1 else dataclasses.replace(ask, sample=sample))
        exchange.headers[EMULATED] = self.source.label
        stops = tuple(body.get("stop_sequences") or ())
        return compose.message_of(answer, checked, stops, tokens, exchange.message_id)

    async def _deliver(
        self, exchange: Exchange, message: dict[str, Any], action: Terminal | None, *, streaming: bool
    ) -> web.StreamResponse:
        if isinstance(action, Malformed):
            return whole(200, delivery.malform(action, message), exchange.headers)
        if streaming:
            return await self._deliver_events(
                exchange, [compose.sse(*event) for event in compose.events_of(message)], action
            )
        body = json.dumps(message).encode()
        match action:
            case StreamError(error_type=error_type):
                return exchange.refuse(ApiError(STATUS_OF_TYPE[error_type], "Emulated fault.", error_type=error_type))
            case Trickle():
                return await delivery.trickle(exchange.request, body, exchange.headers, _JSON, action, self.sleep)
            case Cut():
                await delivery.cut_mid_body(exchange.request, body, exchange.headers)
            case _:
                pass
        return whole(200, body, exchange.headers)

    async def _deliver_events(
        self, exchange: Exchange, events: list[bytes], action: Terminal | None
    ) -> web.StreamResponse:
        request, headers = exchange.request, exchange.headers
        match action:
            case Trickle():
                return await delivery.trickle(request, b"".join(events), headers, _EVENTS, action, self.sleep)
            case Cut(after_events=count):
                await delivery.stream(request, events[:count], headers, finish=False)
                delivery.cut(request)
            case StreamError(after_events=count, error_type=error_type):
                error = ApiError(STATUS_OF_TYPE[error_type], "Emulated fault.", error_type=error_type)
                events = [*events[:count], compose.sse("error", error.body(exchange.request_id))]
            case _:
                pass
        return await delivery.stream(request, events, headers)

    def _status(self, exchange: Exchange, fault: Status) -> web.StreamResponse:
        headers = {**fault.headers, **retry_after_headers(fault.retry_after, self.wall())}
        if fault.should_retry is not None:
            headers["x-should-retry"] = "true" if fault.should_retry else "false"
        if fault.html:
            return whole(fault.status, _HTML, {**exchange.headers, **headers}, "text/html")
        error = ApiError(
            fault.status,
            fault.message,
            error_type=fault.error_type,
            error_code=fault.error_code,
            headers=headers,
        )
        return exchange.refuse(error)
