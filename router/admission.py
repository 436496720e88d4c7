"""Who may come in: a bound on the requests in flight, refused at once with when to try again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from router.status import Refusal


class Admission:
    """Counts the requests in flight, up to `limit`. `arrived` counts all that ever came, admitted or not."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0
        self.arrived = 0
        self._closed = False

    def close(self) -> None:
        """Admit nobody any more: the process is about to end."""
        self._closed = True

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for one request.

        Refusal when there is none: RESOURCE_EXHAUSTED with RetryInfo, or UNAVAILABLE once closed.
        """
        self.arrived += 1
        if self._closed:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "STOPPING", "the service is stopping; ask another replica", 0.5)
        if self.in_flight >= self.limit:
            raise Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_REQUESTS", "the service is at its limit", 0.5)
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
