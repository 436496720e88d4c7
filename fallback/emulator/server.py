"""The loopback HTTP server."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web

from fallback.emulator.answers import AnswerSource
from fallback.emulator.api_errors import ApiError
from fallback.emulator.delivery import CutError, Sleep, whole
from fallback.emulator.exchange import Exchange, Serving
from fallback.emulator.fault_engine import FaultEngine
from fallback.emulator.faults import FaultScript, FaultScriptError, Route
from fallback.emulator.headers import EMULATED, LIMITS, ORGANIZATION_ID, RateMeter
from fallback.emulator.latency import PLAUSIBLE, Latency
from fallback.emulator.models import MODELS, find_model, model_info
from fallback.emulator.prompt_cache import PromptCache
from fallback.emulator.recorded import RecordedSource
from fallback.emulator.samples import Samples
from fallback.emulator.simulated import SimulatedSource
from fallback.emulator.stats import Stats

_MAX_BODY = 32 * 1024 * 1024
_ROUTES: tuple[tuple[str, Route], ...] = (("/v1/messages", "messages"), ("/v1/messages/count_tokens", "count_tokens"))


class Emulator:
    """Speaks the Messages API on a loopback port, with answers from `source`.

    A base URL may have a path of its own (`{base_url}/eu`): one emulator can stand for several endpoints.
    `faults` is a FaultScript or a plain value for one. `seed` decides which requests a probability picks, the
    latencies and the ids. `latency` is added before each answer, one for all tiers or one per tier.
    `limits` are shown in the rate-limit headers (requests, input-tokens, output-tokens a minute).
    `clock` is monotonic and `wall` since the epoch, both in seconds.
    """

    def __init__(
        self,
        source: AnswerSource,
        *,
        faults: object = None,
        seed: int = 0,
        latency: Latency | Mapping[str, Latency] | None = None,
        limits: Mapping[str, int] = LIMITS,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._seed = seed
        self._latency = {spec.tier: latency for spec in MODELS.values()} if isinstance(latency, Latency) else latency
        self._clock = clock
        self._serial = 0
        self._stats = Stats()
        self._engine = FaultEngine(FaultScript.parse(faults), seed, clock)
        self._serving = Serving(source, PromptCache(clock), Samples(), RateMeter(wall, limits), wall, sleep, self._draw)
        self._handlers: set[asyncio.Task[Any]] = set()
        self._server: web.Server | None = None
        self._runner: web.ServerRunner | None = None
        self._base_url = ""

    # --- for Python callers ----------------------------------------------------------------------

    async def start(self, port: int = 0, host: str = "127.0.0.1") -> str:
        """Listen, and give the base URL. Port 0 is any free one. Raises ValueError for a host beyond loopback."""
        if not _is_loopback(host):
            raise ValueError(f"host: the emulator listens on loopback only, got {host!r}")
        if self._runner is not None:
            raise RuntimeError("the emulator is already started")
        self._server = web.Server(
            self._handle, request_factory=_request, handler_cancellation=True, access_log=None, tcp_keepalive=False
        )
        runner = web.ServerRunner(self._server, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, backlog=1024).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        bound = runner.addresses[0][1]
        self._base_url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        return self._base_url

    async def stop(self) -> None:
        """Stop listening and end what is under way, hangs included."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        for task in list(self._handlers):
            task.cancel()
        await runner.cleanup()

    @property
    def base_url(self) -> str:
        """Where it listens; empty before the first start."""
        return self._base_url

    def stats(self) -> dict[str, Any]:
        """See Stats, and `connections_open`: TCP connections open now."""
        return {**self._stats.as_dict(), "connections_open": len(self._server.connections) if self._server else 0}

    def set_faults(self, faults: object) -> None:
        """Replace the script; its counters and its clock start anew. Raises FaultScriptError."""
        self._engine = FaultEngine(FaultScript.parse(faults), self._seed, self._clock)

    def reset(self) -> None:
        """Zero the counters, forget prompts asked and cached, start the fault script anew."""
        # What is still under way ends in the old counters, so that the new ones stay consistent.
        self._stats = Stats()
        self._serving.forget()
        self._engine = FaultEngine(self._engine.script, self._seed, self._clock)

    # --- HTTP ------------------------------------------------------------------------------------

    def _draw(self, tier: str, number: int) -> float:
        latency = self._latency.get(tier) if self._latency else None
        return latency.draw(Random(f"{self._seed}:latency:{number}")) if latency else 0.0

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path.startswith("/emulator/"):
            return await self._control(request, path)
        self._serial += 1
        exchange = Exchange(request, self._serial, f"{self._seed & 0xFFFF:04x}{self._serial:016x}")
        task = asyncio.current_task()
        if task is not None:
            self._handlers.add(task)
        try:
            for suffix, route in _ROUTES:
                if path.endswith(suffix):
                    return await self._post(exchange, route, path.removesuffix(suffix))
            return await self._get(exchange, path)
        except CutError:
            return web.Response()  # goes nowhere: the connection is closed
        finally:
            if task is not None:
                self._handlers.discard(task)

    async def _post(self, exchange: Exchange, route: Route, endpoint: str) -> web.StreamResponse:
        if exchange.request.method != "POST":
            self._stats.other_requests += 1
            return exchange.refuse(ApiError(405, "Method Not Allowed"))
        stats = self._stats
        if route != "messages":
            stats.other_requests += 1
            return await self._serve(exchange, route, endpoint, stats)
        stats.arrived(endpoint)
        status = "cancelled"
        try:
            response = await self._serve(exchange, route, endpoint, stats)
            status = str(response.status)
            return response
        except CutError:
            status = "cut"
            raise
        finally:
            stats.ended(status)

    async def _serve(self, exchange: Exchange, route: Route, endpoint: str, stats: Stats) -> web.StreamResponse:
        try:
            await exchange.read()
        except web.HTTPRequestEntityTooLarge:
            return exchange.refuse(ApiError(413, "Request exceeds the maximum size"))
        spec = find_model(exchange.model)
        if route == "messages":
            stats.for_model(spec.id if spec else "(unknown)")
        plan = self._engine.plan(route, endpoint, spec)
        stats.by_rule.update(plan.fired)
        return await self._serving.serve(exchange, route, plan, stats)

    async def _get(self, exchange: Exchange, path: str) -> web.StreamResponse:
        self._stats.other_requests += 1
        endpoint, found, rest = path.partition("/v1/models")
        if not found or (rest and not rest.startswith("/")):
            return exchange.refuse(ApiError(404, "Not Found"))
        plan = self._engine.plan("models", endpoint, find_model(rest[1:]))
        self._stats.by_rule.update(plan.fired)
        early = await self._serving.before(exchange, plan)
        if early is not None:
            return early
        if not exchange.authenticated:
            return exchange.refuse(ApiError(401, "x-api-key header is required"))
        if rest in ("", "/"):
            data = [model_info(spec) for spec in MODELS.values()]
            page = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
            return exchange.reply(200, page)
        spec = find_model(rest[1:])
        if spec is None:
            return exchange.refuse(ApiError(404, f"model: {rest[1:129]}"))
        return exchange.reply(200, model_info(spec))

    async def _control(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        # A page in somebody's browser must not be able to script the emulator under a name of its own.
        if not _is_loopback(request.host.rsplit(":", 1)[0].strip("[]")):
            return _control_reply(403, {"error": "loopback only"})
        match request.method, path:
            case "GET", "/emulator/stats":
                return _control_reply(200, self.stats())
            case "POST", "/emulator/faults":
                try:
                    self.set_faults(json.loads(await request.read()))
                except FaultScriptError as error:
                    return _control_reply(400, {"error": str(error)})
                except ValueError:
                    return _control_reply(400, {"error": "the body is not JSON"})
                return _control_reply(200, {"rules": len(self._engine.script.rules)})
            case "POST", "/emulator/reset":
                self.reset()
                return _control_reply(200, {})
            case _:
                return _control_reply(404, {"error": "known: GET stats, POST faults, POST reset"})


async def run_forever(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    recorded: Path | None = None,
    generation: str | None = None,
    faults: Path | None = None,
    latency: str = "",
    seed: int = 0,
    announce: Callable[[str], object] = print,
) -> None:
    """Serve until cancelled: from a recorded file, else from the simulated workloads.

    `latency` is empty (none), `plausible` (simulated, per tier), `SECONDS` or `P50,P99` in seconds. `announce`
    gets one line with the base URL. Raises ValueError naming what is wrong, and OSError where the port is taken.
    """
    source: AnswerSource
    if recorded is None:
        source, what = SimulatedSource(seed), "SIMULATED workloads"
    elif generation:
        source, what = RecordedSource.load(recorded, generation), f"RECORDED answers of {generation}"
    else:
        raise ValueError("generation: required with a recorded file")
    script = FaultScript.load(faults) if faults else None
    delays = PLAUSIBLE if latency == "plausible" else Latency.parse(latency) if latency else None
    emulator = Emulator(source, faults=script, seed=seed, latency=delays)
    base_url = await emulator.start(port, host)
    announce(f"emulator: {base_url} ({what}; no model is asked)")
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await emulator.stop()


def _control_reply(status: int, body: Mapping[str, Any]) -> web.StreamResponse:
    return whole(
        status, json.dumps(body).encode(), {EMULATED: "simulated", "anthropic-organization-id": ORGANIZATION_ID}
    )


def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MAX_BODY)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
