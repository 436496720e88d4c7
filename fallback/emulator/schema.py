"""JSON schemas: which ones the API takes for structured outputs, and instances that satisfy them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from fallback.emulator.api_errors import invalid

# Refused by the API in an output schema; the SDK's transform_schema moves them into the description.
_UNSUPPORTED = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength"),
    *("maxItems", "uniqueItems", "minProperties", "maxProperties", "patternProperties"),
    *("oneOf", "not", "if", "then", "else"),
)
_MAX_DEPTH = 12


def check_output_schema(schema: dict[str, Any]) -> None:
    """Raises ApiError where the API would refuse the schema."""
    _check_refs(schema, 0)
    try:
        jsonschema_rs.meta.validate(schema)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        raise invalid("output_config.format.schema: is not a valid JSON schema") from error
    _check_node(schema, "output_config.format.schema", 0)


def _check_refs(node: object, depth: int) -> None:
    """References stay inside the schema: nothing is ever fetched."""
    if depth > 4 * _MAX_DEPTH:
        raise invalid("output_config.format.schema: nested too deeply")
    if isinstance(node, Mapping):
        ref = node.get("$ref", "#")
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise invalid("output_config.format.schema: external $ref is not supported")
        for child in node.values():
            _check_refs(child, depth + 1)
    elif isinstance(node, list):
        for child in node:
            _check_refs(child, depth + 1)


def _check_node(node: object, where: str, depth: int) -> None:
    if not isinstance(node, Mapping):
        return
    if depth > _MAX_DEPTH:
        raise invalid(f"{where}: nested too deeply")
    for word in _UNSUPPORTED:
        if word in node:
            raise invalid(f"{where}: For '{node.get('type', 'any')}' type, property '{word}' is not supported")
    if node.get("type") == "object" and node.get("additionalProperties") is not False:
        raise invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for name in ("properties", "$defs"):
        if isinstance(node.get(name), Mapping):
            for key, child in node[name].items():
                _check_node(child, f"{where}.{name}.{key}", depth + 1)
    for name in ("anyOf", "allOf"):
        for n, child in enumerate(node.get(name) or ()):
            _check_node(child, f"{where}.{name}.{n}", depth + 1)
    _check_node(node.get("items"), f"{where}.items", depth + 1)


def instance(schema: Mapping[str, Any], hints: Mapping[str, Any]) -> Any:
    """A value that satisfies the schema, with `hints` taken for properties of the same name where they fit.

    Falls back to the smallest instance when the hints make it invalid.
    """
    value = _build(schema, schema, hints, 0)
    if hints and not jsonschema_rs.is_valid(dict(schema), value):
        value = _build(schema, schema, {}, 0)
    return value


def _build(node: Any, root: Mapping[str, Any], hints: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(node, Mapping) or depth > _MAX_DEPTH:
        return None
    ref = node.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/$defs/"):
        return _build(root.get("$defs", {}).get(ref.removeprefix("#/$defs/")), root, hints, depth + 1)
    if "const" in node:
        return node["const"]
    if node.get("enum"):
        return node["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if node.get(name):
            return _build(node[name][0], root, hints, depth + 1)
    kind = node.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind == "object":
        return _build_object(node, root, hints, depth)
    if kind == "array":
        least = node.get("minItems", 0)
        return [
            _build(node.get("items"), root, hints, depth + 1) for _ in range(least if isinstance(least, int) else 0)
        ]
    if kind == "string":
        return "simulated"[: node["maxLength"]] if isinstance(node.get("maxLength"), int) else "simulated"
    if kind in ("integer", "number"):
        return node.get("minimum", 0)
    return False if kind == "boolean" else None


def _build_object(
    node: Mapping[str, Any], root: Mapping[str, Any], hints: Mapping[str, Any], depth: int
) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for name, child in node.get("properties", {}).items():
        wanted = hints.get(name)
        if name in hints and _fits(child, root, wanted):
            built[name] = wanted
        elif isinstance(wanted, (int, float)) and _fits(child, root, str(wanted)):
            built[name] = str(wanted)
        elif name in node.get("required", ()):
            built[name] = _build(child, root, hints, depth + 1)
    return built


def _fits(child: Any, root: Mapping[str, Any], value: Any) -> bool:
    schema = {**child, "$defs": root["$defs"]} if isinstance(child, Mapping) and "$defs" in root else child
    return jsonschema_rs.is_valid(schema, value)
