"""Ways of sending a body to the Messages API, each with exactly one HTTP request.

`SdkPost` is the SDK's own low-level call. Most of what that call costs goes into building the same request again
each time and into the client between it and aiohttp. So where the credentials are a fixed key, `PreparedPost` asks
the SDK once for what its calls have in common and hands each body to aiohttp, which is the SDK's transport here
anyway. A test holds the two to the same request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.request import getproxies, proxy_bypass

import aiohttp
import anthropic
import httpx2

from fallback.errors import ConnectionFailed

PATH = "/v1/messages"
_dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

Client = (
    anthropic.AsyncAnthropic
    | anthropic.AsyncAnthropicBedrock
    | anthropic.AsyncAnthropicVertex
    | anthropic.AsyncAnthropicFoundry
)


Answer = tuple[Mapping[str, str], bytes]  # headers, body


class Post(Protocol):
    """A way to the Messages API."""

    async def send(self, body: Mapping[str, Any], timeout_s: float) -> Answer:
        """A good response. Raises anthropic.AnthropicError or a Failure.

        The caller bounds the whole call; `timeout_s` is for ways that want to know of it.
        """

    async def close(self) -> None:
        """Close the connections; idempotent."""


class SdkPost:
    """The SDK's documented low-level call: for platforms that sign each request or fetch a token for it.

    Authentication, platforms and typed errors as in messages.create, without building its response models.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def send(self, body: Mapping[str, Any], timeout_s: float) -> Answer:
        """One HTTP request."""
        response = await self._client.post(
            PATH,
            body=body,
            cast_to=httpx2.Response,
            # A redirect would be a second request, with the prompt in it, to who knows where.
            options={"timeout": timeout_s, "follow_redirects": False},
        )
        return response.headers, response.content

    async def close(self) -> None:
        """Close the client's connections."""
        await self._client.close()


class PreparedPost:
    """The SDK's URL and headers, made once, with an aiohttp session of the SDK's limits, trust and proxies.

    `credentials` are the headers that the SDK's client adds to its default ones only when it sends. The session
    keeps no cookies.
    """

    def __init__(self, client: Client, credentials: Mapping[str, str]) -> None:
        self._client = client
        self._credentials = credentials
        self._url = str(client.base_url).rstrip("/") + PATH
        self._tls = httpx2.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None

    async def send(self, body: Mapping[str, Any], timeout_s: float) -> Answer:  # noqa: ARG002 - see Post
        """One HTTP request."""
        session = self._session = self._session or self._open()
        content = _dumps(body).encode()
        try:
            async with session.post(self._url, data=content, allow_redirects=False) as response:
                answer = await response.read()
        except Exception:  # noqa: BLE001 - aiohttp's errors, the socket's, the decoder's: the SDK reads them all so
            raise ConnectionFailed("connection_error") from None
        if not response.ok or response.status >= 300:
            raise self._status_error(response, answer)
        return response.headers, answer

    def _open(self) -> aiohttp.ClientSession:
        """At the first call, not before: the session and one of the headers belong to the running loop."""
        sdk = {name: value for name, value in self._client.default_headers.items() if isinstance(value, str)}
        limits = anthropic.DEFAULT_CONNECTION_LIMITS
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=limits.max_connections or 0, keepalive_timeout=limits.keepalive_expiry, ssl=self._tls
            ),
            headers={"x-stainless-retry-count": "0", "Accept-Encoding": "gzip, deflate", **sdk, **self._credentials},
            timeout=aiohttp.ClientTimeout(total=None),  # the caller's: see Post
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=_proxy_of(httpx2.URL(self._url)),
        )

    def _status_error(self, response: aiohttp.ClientResponse, content: bytes) -> anthropic.APIStatusError:
        """The SDK's error, which takes type and code from the body; without the request, which holds the key."""
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        told = httpx2.Response(
            response.status, headers=list(response.headers.items()), request=httpx2.Request("POST", self._url)
        )
        return anthropic.APIStatusError("", response=told, body=body)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
        await self._client.close()


def _proxy_of(url: httpx2.URL) -> str | None:
    """The proxy that the environment names for the URL; None without one."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
