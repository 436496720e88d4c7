"""`tierwise ask` and `tierwise explain`: a running service, called from a shell."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from router.cli_route import decision_line, show_route


def _prompt_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that ask and explain share."""
    for option in (
        click.argument("text", required=False),
        click.option("--target", default="127.0.0.1:50051", show_default=True, help="Where the service listens."),
        click.option("--workload", default="", help="Name of the kind of request; empty is default."),
        click.option("--system", default="", help="System prompt."),
        click.option("--max-tokens", default=1_024, show_default=True, help="Output limit."),
        click.option("--schema", type=click.Path(exists=True, path_type=Path), help="File with an output JSON schema."),
        click.option("--effort", default="", help="low, medium, high, xhigh or max."),
        click.option("--lowest-tier", default="", help="Lowest tier that may answer."),
        click.option("--highest-tier", default="", help="Highest tier that may answer."),
        click.option("--cost-cap-usd", default=0.0, help="The most that the request may cost; 0 is no cap."),
        click.option("--timeout-s", default=120.0, show_default=True, help="Deadline of the call."),
        click.option("--json", "as_json", is_flag=True, help="Print the whole response as JSON."),
    ):
        command = option(command)
    return command


@click.command()
@_prompt_options
def ask(text: str | None, target: str, timeout_s: float, *, as_json: bool, **prompt: Any) -> None:
    """Ask the service. TEXT is the prompt, read from standard input where it is left out.

    The reply goes to standard output, how it came about to standard error.
    """
    from router.v1 import router_pb2

    request = router_pb2.CompleteRequest(**_request(text, **prompt))
    response = _call(target, "Complete", request, timeout_s)
    if as_json:
        _print_json(response)
        return
    for block in response.content:
        use = block.tool_use
        click.echo(block.text.text if block.WhichOneof("block") == "text" else f"{use.name}({use.input_json})")
    verdict = "accepted" if response.accepted else f"not accepted: {', '.join(response.reasons)}"
    click.echo(f"\n{response.tier}, {verdict}. {decision_line(response.decision)}", err=True)
    for attempt in response.attempts:
        seconds = attempt.duration.ToTimedelta().total_seconds()
        checks = ", ".join(f"{v.check} {v.verdict}" for v in attempt.verdicts)
        click.echo(
            f"  {attempt.purpose:<10} {attempt.tier:<8} {attempt.result:<8} {seconds:6.2f} s"
            f"  ${attempt.cost_usd:.6f}  {checks}",
            err=True,
        )
    click.echo(
        f"  cost ${response.cost_usd:.6f}; the highest tier alone ${response.top_tier_cost_usd:.6f};"
        f" request {response.request_id}",
        err=True,
    )


@click.command()
@_prompt_options
@click.option("--what-if", "lists_plans", is_flag=True, help="List every plan, what it would come to, and why not.")
@click.option("--mistake-cost", type=float, help="What if a bad reply cost so many US dollars.")
@click.option("--second-cost", type=float, help="What if a second of waiting cost so many US dollars.")
@click.option("--quality-target", type=float, help="What if this share of the best tier's quality had to be kept.")
@click.option("--latency-p95", type=float, help="What if 95 % of such requests had to end within so many seconds.")
@click.option("--start", default="", help="What if it started at this tier.")
def explain(
    text: str | None,
    target: str,
    timeout_s: float,
    *,
    as_json: bool,
    lists_plans: bool,
    mistake_cost: float | None,
    second_cost: float | None,
    quality_target: float | None,
    latency_p95: float | None,
    start: str,
    **prompt: Any,
) -> None:
    """Say what the service would do with a request, and why. Nothing is called and nothing is spent.

    With --what-if, or any option that changes the policy for this question, every plan is listed with what it would
    come to on average.
    """
    from router.v1 import router_pb2

    changes: dict[str, Any] = {
        "mistake_cost_usd": mistake_cost,
        "second_cost_usd": second_cost,
        "quality_target": quality_target,
        "latency_p95_s": latency_p95,
        "start_tier": start or None,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    request = router_pb2.RouteRequest(**_request(text, **prompt))
    if lists_plans or given:
        request.what_if.CopyFrom(router_pb2.WhatIf(**given))
    response = _call(target, "Route", request, timeout_s)
    if as_json:
        _print_json(response)
        return
    show_route(response)


def _request(
    text: str | None,
    *,
    workload: str,
    system: str,
    max_tokens: int,
    schema: Path | None,
    effort: str,
    lowest_tier: str,
    highest_tier: str,
    cost_cap_usd: float,
) -> dict[str, Any]:
    from router.v1 import router_pb2

    if text is None:
        text = sys.stdin.read()
    message = router_pb2.Message(role="user", content=[router_pb2.ContentBlock(text=router_pb2.TextBlock(text=text))])
    prompt = router_pb2.Prompt(
        messages=[message],
        system=[router_pb2.TextBlock(text=system)] if system else [],
        max_tokens=max_tokens,
        output_schema_json=schema.read_text(encoding="utf-8") if schema else "",
        effort=effort,
    )
    bounds = router_pb2.Bounds(lowest_tier=lowest_tier, highest_tier=highest_tier, cost_cap_usd=cost_cap_usd)
    return {"workload": workload, "prompt": prompt, "bounds": bounds}


def _call(target: str, method: str, request: Any, timeout_s: float) -> Any:
    """One call; a gRPC error is said in one line and ends the command with exit code 1."""
    import grpc

    from router.v1 import router_pb2_grpc

    with grpc.insecure_channel(target) as channel:
        try:
            stub: Any = router_pb2_grpc.RouterServiceStub(channel)
            return getattr(stub, method)(request, timeout=timeout_s)
        except grpc.RpcError as error:
            click.echo(f"tierwise: {error.code().name}: {error.details()}", err=True)
            sys.exit(1)


def _print_json(message: Any) -> None:
    from google.protobuf.json_format import MessageToDict

    click.echo(json.dumps(MessageToDict(message, preserving_proto_field_name=True), indent=2))
