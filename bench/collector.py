"""A collector that takes every export unread, in a process of its own: what one on another machine costs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class _Taken(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> Any:
        """The same empty answer to all."""
        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((_Taken(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on {port}", flush=True)
    server.wait_for_termination()
