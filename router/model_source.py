"""The model of the moment: loaded from the registry's folder, checked, swapped whole, never half."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from fallback.clock import Clock
from router.model import ModelError, load_model
from router.outcome import RequestIds
from router.scoring import RouterModel

_log = logging.getLogger(__name__)
_POINTER_BYTES = 64 * 1024


class ModelSource:
    """Looks at `<directory>/current` every `poll_s` seconds and loads the version that it names.

    A version that cannot be used is refused, said once in the log, and the one before goes on serving;
    without any the static plan does. The swap is one assignment: a request keeps the model it began with.
    """

    def __init__(self, directory: Path, *, poll_s: float, clock: Clock) -> None:
        self._directory = directory
        self._poll_s = poll_s
        self._clock = clock
        self._model: RouterModel | None = None
        self._seen = ""
        self._problem = ""

    @property
    def model(self) -> RouterModel | None:
        """The model to use for a request that begins now."""
        return self._model

    @property
    def version(self) -> str:
        """Its version; empty without one."""
        return self._model.version if self._model is not None else ""

    @property
    def learned_until_s(self) -> float | None:
        """The wall time of the newest request that it learned from; None where that is not known."""
        return RequestIds.made_at_s(self._model.fitted_until) if self._model is not None else None

    @property
    def problem(self) -> str:
        """Why the version named by `current` is not in use; empty when it is, or when none is named."""
        return self._problem

    async def refresh(self) -> None:
        """Load what `current` names, where it changed. Reading and checking happen off the event loop."""
        named = await asyncio.to_thread(self._named)
        if named == self._seen:
            return
        self._seen = named
        if not named:
            self._model, self._problem = None, ""
            return
        try:
            self._model = await asyncio.to_thread(load_model, self._directory / "versions" / named)
        except ModelError as error:
            self._problem = str(error)
            _log.error("model %s refused, %s serves on: %s", named, self.version or "the static plan", error)
            return
        self._problem = ""
        _log.info("model %s in use", named)

    async def watch(self) -> None:
        """Refresh for ever."""
        while True:
            await self._clock.sleep(self._poll_s)
            await self.refresh()

    def _named(self) -> str:
        """The version on the pointer's first line; empty while there is no pointer."""
        try:
            with (self._directory / "current").open(encoding="utf-8") as pointer:
                lines = pointer.read(_POINTER_BYTES).split()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            _log.warning("the model pointer cannot be read: %s", type(error).__name__)
            return self._seen
        name = lines[0] if lines else ""
        return name if name and "/" not in name and not name.startswith(".") else ""
