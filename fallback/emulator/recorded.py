"""Answers recorded from real models, read from a Parquet file (columns: see `COLUMNS`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

from fallback.emulator.answers import Answer, Ask, Label
from fallback.emulator.api_errors import ApiError

COLUMNS = ("generation", "prompt", "tier", "sample", "response", "output_tokens")


class RecordedError(ValueError):
    """The file cannot be served from."""


class RecordedSource:
    """Finds a row by prompt text and tier.

    A repeated ask gets the next sample that was recorded; when there are no more, the last one again. Old
    recordings have no thinking, so there are no thinking tokens.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        found: dict[tuple[bytes, str], dict[int, Answer]] = {}
        for row in rows:
            samples = found.setdefault((_key(row["prompt"]), row["tier"]), {})
            samples[int(row["sample"])] = Answer(text=row["response"], output_tokens=int(row["output_tokens"]))
        self._rows = {key: tuple(samples[n] for n in sorted(samples)) for key, samples in found.items()}

    @classmethod
    def load(cls, path: str | Path, generation: str) -> Self:
        """Read one generation of a file. Raises RecordedError naming what is missing."""
        from pyarrow import parquet  # 0.3 s to import: only who serves recordings pays for it

        try:
            names = set(parquet.read_schema(path).names)
        except (OSError, ValueError) as error:
            raise RecordedError(f"{path}: not a readable Parquet file ({type(error).__name__})") from error
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise RecordedError(f"{path}: lacks the columns {', '.join(missing)}")
        table = parquet.read_table(path, columns=list(COLUMNS))
        known = sorted(set(table.column("generation").to_pylist()))
        if generation not in known:
            raise RecordedError(f"{path}: no generation {generation!r}; it has {', '.join(known)}")
        return cls(row for row in table.to_pylist() if row["generation"] == generation)

    def __len__(self) -> int:
        """Pairs of prompt and tier that can be answered."""
        return len(self._rows)

    @property
    def label(self) -> Label:
        """These are recordings."""
        return "recorded"

    def answer(self, ask: Ask) -> Answer:
        """The recorded answer. A prompt is also looked for with the system text and a blank line before it."""
        samples = self._rows.get((_key(ask.prompt), ask.tier))
        if samples is None and ask.system:
            samples = self._rows.get((_key(f"{ask.system}\n\n{ask.prompt}"), ask.tier))
        if samples is None:
            raise ApiError(404, f"emulator: no recorded answer of tier {ask.tier} to this prompt")
        return samples[min(ask.sample, len(samples)) - 1]


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
