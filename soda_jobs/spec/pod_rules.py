"""Rules about the pods of each role. They hold on a laptop too, which ignores these settings, so that a file that
runs there is not refused by a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Final

from soda_jobs.spec.base import LABEL_KEY, PATTERN_WORDS, QUANTITY, show
from soda_jobs.spec.conflict import Conflict, conflict
from soda_jobs.spec.pods import EnvVar, NodeRequirement, PodSettings, Resources, Toleration
from soda_jobs.spec.run import Metadata, Spec

LABEL_KEY_MAX: Final = 317  # 253 of the prefix, "/", 63 of the name
OWN_PREFIXES: Final = ("SODA_", "AWS_")
_WHOLE: Final = re.compile("-?[0-9]+")
_UNITS: Final = {"": Fraction(1), "m": Fraction(1, 1000)} | {
    unit: Fraction(base**power)
    for units, base in ((("k", "M", "G", "T"), 1000), (("Ki", "Mi", "Gi", "Ti"), 1024))
    for power, unit in enumerate(units, start=1)
}


def quantity(text: str) -> Fraction:
    """The amount that Kubernetes reads in a quantity: `"500m"` -> 1/2, `"4Gi"` -> 4 * 1024**3."""
    match = re.fullmatch(QUANTITY, text)
    if match is None:
        raise ValueError(f"{show(text)} is not {PATTERN_WORDS[QUANTITY]}")
    unit = match[2] or ""
    return Fraction(text.removesuffix(unit)) * _UNITS[unit]


def label_keys(field: str, block: Mapping[str, str]) -> Iterator[Conflict]:
    """Keys that Kubernetes would refuse for labels, node selectors and annotations."""
    for key in block:
        if re.fullmatch(LABEL_KEY, key) is None or len(key) > LABEL_KEY_MAX:
            use = f"use {PATTERN_WORDS[LABEL_KEY]}, at most {LABEL_KEY_MAX} characters"
            yield conflict(f"{field}.{show(key)}", key, "cannot be a key", use)


def pods(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    for role, settings in spec.pods:
        field = f"spec.pods.{role}"
        yield from label_keys(f"{field}.nodeSelector", settings.node_selector)
        yield from label_keys(f"{field}.annotations", settings.annotations)
        yield from _resources(field, settings)
        for index, requirement in enumerate(settings.node_affinity):
            yield from _requirement(f"{field}.nodeAffinity[{index}]", requirement)
        for index, toleration in enumerate(settings.tolerations):
            yield from _toleration(f"{field}.tolerations[{index}]", toleration)
        for index, variable in enumerate(settings.env):
            yield from _variable(f"{field}.env[{index}]", variable)
        yield from _variable_names(f"{field}.env", [variable.name for variable in settings.env])


def _resources(field: str, settings: PodSettings) -> Iterator[Conflict]:
    requests, limits = settings.requests, settings.limits
    for name, info in Resources.model_fields.items():
        request, limit = getattr(requests, name), getattr(limits, name)
        if request is not None and limit is not None and quantity(request) > quantity(limit):
            why, other = f"is more than the limit, which is {limit}", f"{field}.limits.{info.alias}"
            use = f"use at most {limit}, or raise {other}"
            yield conflict(f"{field}.requests.{info.alias}", request, why, use, other)


def _requirement(field: str, requirement: NodeRequirement) -> Iterator[Conflict]:
    operator, values = requirement.operator, list(requirement.values)
    if operator in ("In", "NotIn") and not values:
        why, use = f"gives the operator {operator} nothing to compare with", "use at least one value"
    elif operator in ("Exists", "DoesNotExist") and values:
        why, use = f"is not read by the operator {operator}", "use [], or the operator In or NotIn"
    elif operator in ("Gt", "Lt") and (len(values) != 1 or _WHOLE.fullmatch(values[0]) is None):
        why, use = f"does not fit the operator {operator}", 'use exactly one whole number in quotes, as in ["8"]'
    else:
        return
    yield conflict(f"{field}.values", values, why, use, f"{field}.operator")


def _toleration(field: str, toleration: Toleration) -> Iterator[Conflict]:
    if toleration.operator == "Exists" and toleration.value is not None:
        why, use = "is not read by the operator Exists", "leave it out, or use the operator Equal"
        yield conflict(f"{field}.value", toleration.value, why, use, f"{field}.operator")
    if toleration.operator == "Equal" and toleration.key is None:
        why, use = "does not say which taint to compare with", "use the taint's key, or the operator Exists"
        yield conflict(f"{field}.key", None, why, use, f"{field}.operator")
    if toleration.toleration_seconds is not None and toleration.effect != "NoExecute":
        why, use = "is only for the effect NoExecute", "leave it out, or use the effect NoExecute"
        yield conflict(f"{field}.tolerationSeconds", toleration.toleration_seconds, why, use, f"{field}.effect")


def _variable(field: str, variable: EnvVar) -> Iterator[Conflict]:
    if variable.name.startswith(OWN_PREFIXES):
        why, use = "starts like the variables that soda sets itself", "use another name, or spec.storage for S3"
        yield conflict(f"{field}.name", variable.name, why, use)
    if (variable.value is None) == (variable.secret_ref is None):
        left_open = variable.value is None
        why = f"leaves {variable.name} open" if left_open else f"is given beside {field}.secretRef"
        use = "use exactly one of value and secretRef"
        yield conflict(f"{field}.value", variable.value, why, use, f"{field}.secretRef")


def _variable_names(field: str, names: Iterable[str]) -> Iterator[Conflict]:
    names = list(names)
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        yield conflict(
            field, names, f"names {twice[0]} twice", f"use each once: {', '.join(dict.fromkeys(names))}"
        )
