"""The retry budget: a failing provider costs each client a bounded number of extra calls. Pure.

The token scheme of gRPC A6 (grpc/proposal A6-client-retries.md): a Failure takes one token, a Reply
gives `ratio` back, and retries are allowed only while more than half of the tokens are left. There is
no clock in it, so the bound on extra calls in an outage is absolute: `max_tokens / 2`, at any rate. While
one is under way it counts as failed already, else as many more would be sent as callers wait on a hung provider.

A retry and a failover both ask the budget of the provider that would get the call. A hedge follows no
Failure, so nothing would bound it: it takes a token itself when it is sent, and is allowed only in the
upper quarter of the tokens, so that hedging never takes from retries what they need. Hedges come to at
most `ratio` of the replies.

The ratio is chosen on purpose: retrying goes on for good while the share of failures stays below
ratio/(1+ratio). 0.25 keeps retrying up to 20 % failures, where retries still rescue nearly all
requests, and stops above, where they mostly add load.
"""

from __future__ import annotations

from math import inf


class RetryBudget:
    """One per provider. Drawn on by retry and failover alike, never by escalation."""

    def __init__(self, *, max_tokens: float = 100.0, ratio: float = 0.25) -> None:
        if not 0 < max_tokens < inf or not 0 < ratio <= 1:
            raise ValueError("max_tokens must be positive and ratio in (0, 1]")
        self._max_tokens = max_tokens
        self._ratio = ratio
        self._tokens = max_tokens
        self._under_way = 0

    @property
    def tokens(self) -> float:
        """Tokens left, 0 to max_tokens."""
        return self._tokens

    @property
    def allows(self) -> bool:
        """Whether another call because of a Failure may be made now."""
        return self._tokens - self._under_way > self._max_tokens / 2

    @property
    def allows_hedge(self) -> bool:
        """Whether a call beside one that is late may be made now."""
        return self._tokens - self._under_way > self._max_tokens * 3 / 4

    def on_extra(self) -> None:
        """A retry or failover is being sent."""
        self._under_way += 1

    def on_extra_ended(self) -> None:
        """It has ended, in whatever way."""
        self._under_way -= 1

    def on_hedge(self) -> None:
        """A hedge is being sent."""
        self._take()

    def on_reply(self) -> None:
        """A call ended in a Reply."""
        self._tokens = min(self._max_tokens, self._tokens + self._ratio)

    def on_failure(self) -> None:
        """A call ended in a Failure that another call could mend."""
        self._take()

    def _take(self) -> None:
        self._tokens = max(0.0, self._tokens - 1.0)
