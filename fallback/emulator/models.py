"""The models that the emulator knows and what each one's API accepts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

EFFORTS = ("low", "medium", "high", "xhigh", "max")
THINKING_TYPES = ("adaptive", "between_tools", "disabled", "enabled")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model. `thinking` lists the accepted `thinking.type` values; limits are in tokens."""

    id: str
    tier: str
    display_name: str
    released: str  # RFC 3339
    thinking: frozenset[str]
    default_effort: str
    forced_tool_choice: bool
    fast_mode: bool
    max_input_tokens: int = 1_000_000
    max_output_tokens: int = 128_000
    min_cache_tokens: int = 512


def _spec(tier: str, released: str, thinking: tuple[str, ...], effort: str, *, force: bool, fast: bool) -> ModelSpec:
    return ModelSpec(
        id=f"claude-{tier}-5-5",
        tier=tier,
        display_name=f"Claude {tier.capitalize()} 5.5",
        released=f"{released}T00:00:00Z",
        thinking=frozenset(thinking),
        default_effort=effort,
        forced_tool_choice=force,
        fast_mode=fast,
    )


MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
        spec.id: spec
        for spec in (
            _spec("haiku", "2026-10-07", ("adaptive", "disabled"), "medium", force=True, fast=False),
            _spec("sonnet", "2026-09-28", ("adaptive", "between_tools"), "high", force=False, fast=False),
            _spec("opus", "2026-09-22", ("adaptive",), "medium", force=False, fast=True),
        )
    }
)
TIERS: tuple[str, ...] = tuple(spec.tier for spec in MODELS.values())


def find_model(model_id: object) -> ModelSpec | None:
    """The model by its id; the `anthropic.` prefix of other platforms is accepted."""
    if not isinstance(model_id, str):
        return None
    return MODELS.get(model_id) or MODELS.get(model_id.removeprefix("anthropic."))


def model_info(spec: ModelSpec) -> dict[str, Any]:
    """The body of GET /v1/models/{id}."""
    yes, no = {"supported": True}, {"supported": False}
    types = {kind: (yes if kind in spec.thinking else no) for kind in THINKING_TYPES}
    return {
        "type": "model",
        "id": spec.id,
        "display_name": spec.display_name,
        "created_at": spec.released,
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": spec.tier,
        "max_input_tokens": spec.max_input_tokens,
        "max_tokens": spec.max_output_tokens,
        "capabilities": {
            "batch": no,
            "citations": no,
            "code_execution": no,
            "context_management": {"supported": False},
            "effort": {"supported": True, **dict.fromkeys(EFFORTS, yes)},
            "image_input": yes,
            "pdf_input": yes,
            "server_tools": {"supported": False, "code_execution": no, "web_search": no},
            "structured_outputs": yes,
            "thinking": {"supported": True, "types": types},
        },
    }
