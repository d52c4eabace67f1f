"""From a model to a structural schema. In: a pydantic model. Out: what the API server takes as `openAPIV3Schema`.

Null means "left out" in a run, and so it does here: no field is `nullable`, the server drops nulls it is given.
Every default but null is written into the stored object, so that `kubectl get -o yaml` shows what the run does and
so that a default that is written out equals one that is not. Two kinds stay away. Empty defaults of `spec.pods`
would be fifty lines of nothing in every run. And a default inside a list's item would make the stored list another
one than the user's: client-side apply, and what compares like it, would find a change in every run for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from soda_jobs.spec.sentences import accepted
from soda_operator.crd.cel import matches

Schema = dict[str, Any]

_BOUNDS: Final = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "enum")
_FORMATS: Final = {"integer": "int64", "number": "double"}
_BARE: Final = "spec.pods"


def structural(model: type[BaseModel], place: str, *, defaults: bool) -> Schema:
    """The schema of a model that stands at `place`, as in "spec"."""
    schema = model.model_json_schema(by_alias=True)
    return _Builder(schema.get("$defs", {}), defaults).node(schema, place)


@dataclass(frozen=True)
class _Builder:
    blocks: Mapping[str, Schema]
    defaults: bool

    def node(self, given: Schema, place: str) -> Schema:
        node = self._resolved(given)
        if "const" in node:
            node = {**node, "enum": [node["const"]]}
        kind = node["type"]
        made: Schema = {"type": kind}
        if text := _description(given, node):
            made["description"] = text
        if kind in _FORMATS or "format" in node:
            made["format"] = node.get("format", _FORMATS.get(kind))
        made |= {key: node[key] for key in _BOUNDS if key in node} | _range(node)
        if "pattern" in node:
            made["x-kubernetes-validations"] = [_pattern_rule(node)]
        made |= self._children(node, place)
        default = self._default(given, node, place)
        return made if default is None else {**made, "default": default}

    def _resolved(self, node: Schema) -> Schema:
        """Behind `$ref` and without the null that may stand beside it."""
        while True:
            if "$ref" in node:
                node = self.blocks[node["$ref"].removeprefix("#/$defs/")]
            elif "anyOf" in node:
                (node,) = [option for option in node["anyOf"] if option.get("type") != "null"]
            else:
                return node

    def _children(self, node: Schema, place: str) -> Schema:
        if node["type"] == "array":
            return {"items": self.node(node["items"], f"{place}[]")}
        if "properties" in node:
            made: Schema = {}
            if required := node.get("required"):
                made["required"] = required
            children = node["properties"].items()
            return made | {"properties": {name: self.node(child, f"{place}.{name}") for name, child in children}}
        if node["type"] == "object":
            return {"additionalProperties": self.node(node["additionalProperties"], f"{place}{{}}")}
        return {}

    def _default(self, given: Schema, node: Schema, place: str) -> Any:
        default = _without_nulls(given.get("default"))
        if not self.defaults or default is None or "[]" in place:
            return None
        if "properties" in node:
            default = {}  # the fields bring their own
        return None if place.startswith(_BARE) and default in ({}, []) else default


def _description(given: Schema, node: Schema) -> str:
    """What the field is, then what its block is, unless the one only begins the other."""
    field, block = (" ".join(text.get("description", "").split()) for text in (given, node))
    return block if block.startswith(field.removesuffix(".")) else f"{field} {block}".strip()


def _range(node: Schema) -> Schema:
    """Bounds of a number; OpenAPI 3.0 says "above" by a flag beside the bound."""
    made: Schema = {}
    for bound in ("minimum", "maximum"):
        exclusive = f"exclusive{bound.capitalize()}"
        if bound in node:
            made[bound] = node[bound]
        elif exclusive in node:
            made |= {bound: node[exclusive], exclusive: True}
    return made


def _pattern_rule(node: Schema) -> Schema:
    """A rule instead of `pattern`, so that nobody has to read a regular expression to learn what is accepted."""
    return {"rule": matches("self", node["pattern"]), "message": f"is not allowed; use {accepted(node)}"}


def _without_nulls(value: Any, empty: tuple[Any, ...] = (None,)) -> Any:
    """The value without nulls; items of lists also without empty lists."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner, empty) for key, inner in value.items() if inner not in empty}
    return [_without_nulls(inner, (None, [])) for inner in value] if isinstance(value, list) else value
