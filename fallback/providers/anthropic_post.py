"""Ways of sending a body to the Messages API, each with exactly one HTTP request.

`SdkPost` is the SDK's own low-level call. Half of what that call costs goes into building the same request
again each time, so where the credentials are a fixed key, `PreparedPost` asks the SDK once for what its calls
have in common and sends by the SDK's HTTP client. A test holds the two to the same request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

import anthropic
import httpx2

from fallback.errors import ConnectionFailed, TimedOut

PATH = "/v1/messages"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

Client = (
    anthropic.AsyncAnthropic
    | anthropic.AsyncAnthropicBedrock
    | anthropic.AsyncAnthropicVertex
    | anthropic.AsyncAnthropicFoundry
)


class Post(Protocol):
    """A way to the Messages API."""

    async def send(self, body: Mapping[str, Any], timeout_s: float) -> bytes:
        """The body of a good response. Raises anthropic.AnthropicError or a Failure.

        `timeout_s` bounds each wait of the transport (connecting, one read), not the whole call.
        """

    async def close(self) -> None:
        """Close the connections; idempotent."""


class SdkPost:
    """The SDK's documented low-level call: for platforms that sign each request or fetch a token for it.

    Authentication, platforms and typed errors as in messages.create, without building its response models.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, body: Mapping[str, Any], timeout_s: float) -> bytes:
        """One HTTP request."""
        response = await self._client.post(
            PATH,
            body=body,
            cast_to=httpx2.Response,
            # A redirect would be a second request, with the prompt in it, to who knows where.
            options={"timeout": timeout_s, "follow_redirects": False},
        )
        return response.content

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()


class PreparedPost:
    """The SDK's URL and headers, made once, sent by the HTTP client that the SDK was given.

    `credentials` are the headers that the SDK's client adds to its default ones only when it sends.
    """

    def __init__(self, client: Client, http: httpx2.AsyncClient, credentials: Mapping[str, str]) -> None:
        self._client = client
        self._http = http
        self._credentials = credentials
        self._prepared: httpx2.Request | None = None

    async def send(self, body: Mapping[str, Any], timeout_s: float) -> bytes:
        """One HTTP request."""
        # Made at the first call, not before: one of the headers names the event loop's library.
        prepared = self._prepared = self._prepared or self._prepare()
        request = httpx2.Request(
            "POST",
            prepared.url,
            headers=prepared.headers,
            content=_dumps(body).encode(),
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout_s)},
        )
        try:
            response = await self._http.send(request, follow_redirects=False)
        except httpx2.TimeoutException:
            raise TimedOut("client_timeout_error") from None
        except Exception:  # noqa: BLE001 - the transport's errors are of three libraries; the SDK reads them like this
            raise ConnectionFailed("connection_error") from None
        if not response.is_success:
            raise anthropic.APIStatusError("", response=response, body=_json(response))
        return response.content

    def _prepare(self) -> httpx2.Request:
        sdk = {name: value for name, value in self._client.default_headers.items() if isinstance(value, str)}
        url = str(self._client.base_url).rstrip("/") + PATH
        headers = {"x-stainless-retry-count": "0", **sdk, **self._credentials}
        prepared = self._http.build_request("POST", url, headers=headers)
        del prepared.headers["content-length"]  # of no content
        return prepared

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()


def _json(response: httpx2.Response) -> object:
    """An error's body, of which the SDK's error takes type and code; None where it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
