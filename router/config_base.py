"""What every section of the configuration is made of: strict values, and how a mistake is told."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

# Strict: a number in quotes, or true where a number belongs, is a mistake and not a number.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Seconds = Annotated[Number, Field(gt=0, le=86_400)]
Share = Annotated[Number, Field(ge=0, le=1)]
Usd = Annotated[Number, Field(gt=0)]
Count = Annotated[int, Field(strict=True, gt=0, le=1 << 40)]
Flag = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """A table of the file: nothing unknown in it, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def explain(error: ValidationError) -> list[str]:
    """One line for each thing that is wrong: its path, what was expected, and what was there unless secret."""
    lines = []
    for problem in error.errors(include_url=False):
        path = ".".join(str(part) for part in problem["loc"]) or "config"
        value = problem.get("input")
        shown = f", got {value!r}" if isinstance(value, str | int | float) and not _secret(path) else ""
        lines.append(f"{path}: {problem['msg'].removeprefix('Value error, ')}{shown}")
    return lines


def _secret(path: str) -> bool:
    return any(word in path for word in ("key", "token", "url", "secret", "password", "credential", "auth"))
