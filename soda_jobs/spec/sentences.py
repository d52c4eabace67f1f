"""Accepted values in words, read off the JSON schema, so that no sentence can drift from the bounds it names."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from soda_jobs.spec.base import PATTERN_WORDS, show
from soda_jobs.spec.resource import DistillationRun

Schema = Mapping[str, Any]
Loc = Sequence[str | int]  # as pydantic gives it: YAML keys and list positions


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of a run in YAML spelling."""
    return DistillationRun.model_json_schema(by_alias=True)


def resolve(node: Schema) -> Schema:
    """The node itself, behind `$ref` and without the null that may stand beside it."""
    while True:
        if "$ref" in node:
            node = schema()["$defs"][node["$ref"].removeprefix("#/$defs/")]
        elif "anyOf" in node:
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
        else:
            return node


def node_at(loc: Loc) -> Schema:
    """The schema of the place `loc`; empty where the schema knows no such place."""
    node: Schema = resolve(schema())
    for step in loc:
        if isinstance(step, int):
            node = resolve(node.get("items", {}))
        else:
            properties: Schema = node.get("properties", {})
            node = resolve(properties.get(step, node.get("additionalProperties") or {}))
    return node


def path(loc: Loc) -> str:
    """`("spec", "evaluation", "benchmarks", 0)` -> `"spec.evaluation.benchmarks[0]"`."""
    text = ""
    for step in loc:
        text += f"[{step}]" if isinstance(step, int) else f".{show(step)}"
    return text.removeprefix(".") or "document"


def accepted(node: Schema) -> str:
    """`{"type": "integer", "minimum": 1, "maximum": 20}` -> `"a whole number from 1 to 20"`."""
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(node["enum"])
    match node.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number from {node['minimum']} to {node['maximum']}"
        case "number":
            return _accepted_number(node)
        case "string":
            return _accepted_text(node)
        case "array":
            least = node.get("minItems", 0)
            items = accepted(resolve(node["items"])).removeprefix("one of ")
            return f"a list of {least} to {node['maxItems']} items: {items}"
        case _:
            return _accepted_block(node)


def _accepted_number(node: Schema) -> str:
    """`above 0 and up to 1`, `from 0 and below 1`, `from 0 to 2`: each bound as the schema has it."""
    if "exclusiveMinimum" in node:
        return f"a number above {_plain(node['exclusiveMinimum'])} and up to {_plain(node['maximum'])}"
    if "exclusiveMaximum" in node:
        return f"a number from {_plain(node['minimum'])} and below {_plain(node['exclusiveMaximum'])}"
    return f"a number from {_plain(node['minimum'])} to {_plain(node['maximum'])}"


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _accepted_text(node: Schema) -> str:
    words = PATTERN_WORDS[node["pattern"]] if "pattern" in node else "text"
    least = node.get("minLength", 1 if "pattern" in node else 0)
    return f"{words} ({least} to {node['maxLength']} characters)"


def _accepted_block(node: Schema) -> str:
    if "properties" in node:
        return "a block with the keys " + ", ".join(node["properties"])
    return f"a block of at most {node['maxProperties']} texts"


def refused(loc: Loc, value: Any) -> str:
    """The sentence for a value that does not fit its place."""
    node = node_at(loc)
    is_text = node.get("type") == "string"
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, str) and not is_text else value
    quotes = ", in quotes" if is_text and isinstance(value, int | float) and "enum" not in node else ""
    return f"{show(shown)} is not allowed; use {accepted(node)}{quotes}"


def nearest(loc: Loc) -> str | None:
    """The known key that an unknown one was probably meant to be."""
    known = list(node_at(loc[:-1]).get("properties", {}))
    key = str(loc[-1])
    by_letters = {name.lower(): name for name in known}
    plain = key.lower().replace("_", "").replace("-", "")
    close = difflib.get_close_matches(plain, by_letters, n=1, cutoff=0.7)
    return by_letters[close[0]] if close else None


def unknown(loc: Loc) -> str:
    """The sentence for a key that does not exist there."""
    key, near = show(str(loc[-1])), nearest(loc)
    if near is not None:
        return f"{key} is not a known key; use {near}"
    elsewhere = [place for place, name in _places() if name == loc[-1]]
    if 0 < len(elsewhere) <= 4:
        return f"{key} is not a key of {path(loc[:-1])}; use {' or '.join(elsewhere)}"
    return f"{key} is not a known key; use one of {', '.join(node_at(loc[:-1])['properties'])}"


def missing(loc: Loc) -> str:
    """The sentence for a field that has no default and was not given."""
    return f"is missing; use {accepted(node_at(loc))}"


@cache
def _places() -> tuple[tuple[str, str], ...]:
    """Every field: its path and its own name."""
    return tuple(_walk(resolve(schema()), ""))


def _walk(node: Schema, prefix: str) -> Iterator[tuple[str, str]]:
    for name, child in node.get("properties", {}).items():
        place = f"{prefix}.{name}".removeprefix(".")
        yield place, name
        yield from _walk(resolve(child), place)
