"""The least that could answer Complete: the same grpc.aio and the same SDK, and nothing else.

The baseline of bench/overhead.py: no routing, no checks, no outcome, no telemetry.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anthropic
import grpc

from router.v1 import router_pb2, router_pb2_grpc


class PassThrough(router_pb2_grpc.RouterServiceServicer):
    """Hands the prompt's text to one tier and the text back."""

    def __init__(self, base_url: str) -> None:
        self._client = anthropic.AsyncAnthropic(
            api_key="bench",
            base_url=base_url,
            max_retries=0,
            open_telemetry=False,
            http_client=anthropic.DefaultAioHttpClient(),
        )

    async def Complete(  # noqa: N802 - the wire's name
        self,
        request: router_pb2.CompleteRequest,
        context: Any,  # noqa: ARG002 - the servicer's signature
    ) -> router_pb2.CompleteResponse:
        """One upstream call."""
        message = await self._client.messages.create(
            model="claude-haiku-5-5",
            max_tokens=request.prompt.max_tokens,
            messages=[{"role": "user", "content": request.prompt.messages[0].content[0].text.text}],
            timeout=60,
        )
        text = "".join(block.text for block in message.content if block.type == "text")
        block = router_pb2.ContentBlock(text=router_pb2.TextBlock(text=text))
        return router_pb2.CompleteResponse(content=[block], stop_reason=message.stop_reason or "")


async def main(base_url: str) -> None:
    """Serve until killed; the port goes to standard output."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    router_pb2_grpc.add_RouterServiceServicer_to_server(PassThrough(base_url), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening on {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
