"""How often each tier was asked each prompt."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

_MAX_PROMPTS = 200_000


class Samples:
    """A bounded count; the prompts asked longest ago are forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[bytes, int] = OrderedDict()

    def next(self, tier: str, prompt: str) -> int:
        """The number of this ask, from 1."""
        key = blake2b(prompt.encode("utf-8", "surrogatepass"), digest_size=12, key=tier.encode()).digest()
        number = self._counts.pop(key, 0) + 1
        self._counts[key] = number
        if len(self._counts) > _MAX_PROMPTS:
            self._counts.popitem(last=False)
        return number

    def clear(self) -> None:
        """Forget everything."""
        self._counts.clear()
