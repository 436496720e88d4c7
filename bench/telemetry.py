"""What telemetry costs: CPU per finished request, with spans and metrics on, metrics only, and all off.

    python bench/telemetry.py [--requests 2000]

The request escalated once: 8 spans (two attempts, four checks). Spans go over gRPC to a collector in another
process that throws them away, so what is measured is this process: the caller's share, and all threads together
(batching, encoding and sending included). Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent import futures
from multiprocessing.connection import Connection
from typing import Any

import grpc

from fallback.types import Accept, Attempt, CheckReport, Purpose, Reject, Reply, StopReason, TextBlock, Usage
from router.outcome import Decision, Mode, Outcome, RequestIds
from router.telemetry import RpcCall, Settings, Telemetry

SPANS = 8
COLLECTOR = "opentelemetry.proto.collector.trace.v1.TraceService"


def outcome(request_id: str, wall_s: float) -> Outcome:
    """A request whose cheapest tier was rejected and whose next one was accepted."""
    usage = Usage(input_tokens=900, output_tokens=120)

    def attempt(tier: str, purpose: Purpose, verdict: Accept | Reject, at_s: float) -> Attempt:
        model = f"claude-{tier}-5-5"
        reply = Reply((TextBlock("forty-two"),), StopReason.END_TURN, usage, model, f"msg_{request_id}")
        checks = (
            CheckReport("stop_reason", "1", Accept(), None, 0.0, at_s + 0.5, 0.000_01),
            CheckReport("judge", "1", verdict, 0.8, 0.000_9, at_s + 0.5, 0.3),
        )
        return Attempt(tier, model, "first-party", purpose, reply, at_s, 0.5, 0.003, checks)

    return Outcome(
        request_id=request_id,
        workload="triage",
        received_at_s=wall_s,
        duration_s=1.6,
        status="OK",
        decision=Decision(
            Mode.CHAIN,
            ("haiku", "sonnet", "opus"),
            "chain from haiku: P(good) 0.71 is below 0.90",
            {"haiku": 0.71, "sonnet": 0.93, "opus": 0.97},
            {"haiku": 0.95, "sonnet": 0.05},
            model_version="20261123-7f3a",
        ),
        attempts=(
            attempt("haiku", Purpose.FIRST, Reject("judge:below"), 0.0),
            attempt("sonnet", Purpose.ESCALATION, Accept(), 0.8),
        ),
        resolved_tier="sonnet",
        accepted=True,
        reasons=(),
        cost_usd=0.007_8,
        top_tier_cost_usd=0.012,
        features_version="1",
        request_features=b"",
        reply_features=(b"", b""),
    )


def collect(ready: Connection) -> None:
    """A collector that throws away what it gets; ends with the pipe."""

    def export(_request: bytes, _context: Any) -> bytes:
        return b""

    server = grpc.server(futures.ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(export)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(COLLECTOR, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    ready.send(port)
    ready.recv()
    server.stop(None)


def measure(settings: Settings, requests: int) -> dict[str, float]:
    """CPU microseconds per request."""
    telemetry = Telemetry.start(settings)
    ids, wall_s = RequestIds(), time.time()
    rpc = RpcCall("router.v1.RouterService/Complete", "OK", wall_s, 1.61, {"user-agent": "bench"})
    told = [outcome(ids.next(wall_s), wall_s) for _ in range(requests)]
    telemetry.record(told[0], rpc)
    telemetry.flush(30.0)  # connections and caches
    before, own_before = time.process_time(), time.thread_time()
    for number, one in enumerate(told, 1):
        telemetry.record(one, rpc)
        if number % 100 == 0:
            time.sleep(0.1)  # a thousand requests a second at most: the queue must not overflow
    own = time.thread_time() - own_before
    telemetry.flush(30.0)
    all_threads = time.process_time() - before
    telemetry.shutdown(10.0)
    scale = 1e6 / requests
    return {"caller_us": round(own * scale, 1), "process_us": round(all_threads * scale, 1)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    requests = parser.parse_args().requests
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    collector = multiprocessing.get_context("spawn").Process(target=collect, args=(theirs,), daemon=True)
    collector.start()
    endpoint = f"http://127.0.0.1:{ours.recv()}"
    os.environ["OTEL_METRICS_EXPORTER"] = "none"
    found = {
        "off": measure(Settings(), requests),
        "metrics_only": measure(Settings(prometheus_port=0), requests),
        "spans_and_metrics": measure(Settings(otlp_endpoint=endpoint, prometheus_port=0), requests),
    }
    ours.send(None)
    collector.join()
    print(json.dumps({"requests": requests, "spans_per_request": SPANS, **found}, indent=2))


if __name__ == "__main__":
    main()
