"""`soda_jobs.spec.pod_rules` in CEL. Empty defaults are not written into `spec.pods`, nor any into its
lists, so fields may be missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from soda_jobs.spec import PATTERN_WORDS, Block, NodeRequirement, Resources, Toleration
from soda_jobs.spec.base import LABEL_KEY
from soda_jobs.spec.pod_rules import LABEL_KEY_MAX, OWN_PREFIXES
from soda_operator.crd.cel import REQUIRED, Rule, matches

OF: Final = "pod_rules.pods"
ROLE: Final = "spec.pods.*"


def rules() -> Iterator[Rule]:
    for name in ("nodeSelector", "annotations"):
        yield _keys(name)
    for field in Resources.model_fields.values():
        yield _request(str(field.alias))
    yield from _requirement()
    yield from _toleration()
    yield from _variable()


def _keys(name: str) -> Rule:
    must = f"self.all(key, size(key) <= {LABEL_KEY_MAX} && {matches('key', LABEL_KEY)})"
    use = f"use {PATTERN_WORDS[LABEL_KEY]}, at most {LABEL_KEY_MAX} characters"
    return Rule(OF, f"{ROLE}.{name}", "", must, f"has a word that cannot be a key; {use}")


def _request(name: str) -> Rule:
    request, limit = f"self.requests.{name}", f"self.limits.{name}"
    given = " && ".join(f"has({part})" for part in ("self.requests", request, "self.limits", limit))
    # What is no amount has its own rule; to compare it would be an error here.
    amounts = f"isQuantity({request}) && isQuantity({limit})"
    return Rule(
        OF,
        ROLE,
        f"requests.{name}",
        f"!({given}) || !({amounts}) || quantity({request}).compareTo(quantity({limit})) <= 0",
        f"${{{request}}} is more than the limit, which is ${{{limit}}}; use at most ${{{limit}}}, "
        f"or raise limits.{name}",
    )


def _requirement() -> Iterator[Rule]:
    at, none = f"{ROLE}.nodeAffinity[]", "(!has(self.values) || size(self.values) == 0)"
    operator = _operator(NodeRequirement)
    yield Rule(
        OF,
        at,
        "values",
        f"!({operator} in ['In', 'NotIn']) || !{none}",
        f"[] gives the operator ${{{operator}}} nothing to compare with; use at least one value",
        REQUIRED,
    )
    yield Rule(
        OF,
        at,
        "values",
        f"!({operator} in ['Exists', 'DoesNotExist']) || {none}",
        "${self.values} is not read by the operator ${self.operator}; use [], or the operator In or NotIn",
    )
    whole = "has(self.values) && size(self.values) == 1 && self.values[0].matches('^-?[0-9]+$')"
    yield Rule(
        OF,
        at,
        "values",
        f"!({operator} in ['Gt', 'Lt']) || ({whole})",
        "${has(self.values) ? self.values : []} does not fit the operator ${self.operator}; "
        'use exactly one whole number in quotes, as in ["8"]',
    )


def _operator(block: type[Block]) -> str:
    default = block.model_fields["operator"].default
    return f"(has(self.operator) ? self.operator : '{default}')"


def _toleration() -> Iterator[Rule]:
    at, operator = f"{ROLE}.tolerations[]", _operator(Toleration)
    yield Rule(
        OF,
        at,
        "value",
        f"{operator} != 'Exists' || !has(self.value)",
        "${self.value} is not read by the operator Exists; leave it out, or use the operator Equal",
    )
    yield Rule(
        OF,
        at,
        "key",
        f"{operator} != 'Equal' || has(self.key)",
        "null does not say which taint to compare with; use the taint's key, or the operator Exists",
        REQUIRED,
    )
    yield Rule(
        OF,
        at,
        "tolerationSeconds",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "${self.tolerationSeconds} is only for the effect NoExecute; leave it out, or use the effect NoExecute",
    )


def _variable() -> Iterator[Rule]:
    at, use = f"{ROLE}.env", "use exactly one of value and secretRef"
    own = " || ".join(f"self.name.startsWith('{prefix}')" for prefix in OWN_PREFIXES)
    yield Rule(
        OF,
        f"{at}[]",
        "name",
        f"!({own})",
        "${self.name} starts like the variables that soda sets itself; use another name, or spec.storage for S3",
    )
    yield Rule(
        OF,
        f"{at}[]",
        "value",
        "has(self.value) || has(self.secretRef)",
        f"null leaves ${{self.name}} open; {use}",
        REQUIRED,
    )
    yield Rule(
        OF,
        f"{at}[]",
        "value",
        "!has(self.value) || !has(self.secretRef)",
        f"${{self.value}} is given beside secretRef; {use}",
    )
    yield Rule(
        OF,
        at,
        "",
        "self.all(one, self.exists_one(other, other.name == one.name))",
        "${self.map(one, one.name)} names one of them twice; use each once",
    )
