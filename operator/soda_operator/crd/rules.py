"""Which of soda's rules the API server checks, as CEL, and where each stands. One table.

The operator applies soda's own rules again: a run that got past the server in another way is refused by the same
sentences. Rules on `spec` and below are not asked again for a part that has not changed, so a new version of the
CRD cannot lock a run that it would refuse; only what needs the name or the status stands at the root.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from soda_jobs.names import run_name_limit
from soda_jobs.spec import CHANGEABLE, PATTERN_WORDS, Spec
from soda_jobs.spec.base import RUN_NAME
from soda_operator.crd import model_rules, pod_rules, spec_rules
from soda_operator.crd.cel import Rule, matches

# Soda's rules that no row of the table stands for, and why.
ELSEWHERE: Final = {"rules._label_keys": "Kubernetes checks the keys of labels and annotations itself"}

# What soda checks in another way: the pattern of the name, and what only an object with a past can break.
CRD_ONLY: Final = frozenset({"Metadata.name", "resource.forbidden_changes", "cancel"})

# The longest name has one digit in each number: every further digit costs one character.
_NAME_ROOM: Final = run_name_limit(1, 1) + 2
_GROUPS: Final = ("training.nodes", "execution.replicas", "parallelism")
_GROUP: Final = f"[{', '.join(f'self.spec.{each}' for each in _GROUPS)}].max()"
_NAME_LIMIT: Final = f"({_NAME_ROOM} - size(string(self.spec.rounds)) - size(string({_GROUP} - 1)))"


def _root() -> Iterator[Rule]:
    yield Rule(
        "Metadata.name",
        "",
        "metadata.name",
        matches("self.metadata.name", RUN_NAME),
        f"${{self.metadata.name}} is not allowed; use {PATTERN_WORDS[RUN_NAME]} (1 to 63 characters)",
    )
    yield Rule(
        "rules._name_fits",
        "",
        "metadata.name",
        f"size(self.metadata.name) <= {_NAME_LIMIT}",
        "${self.metadata.name} has ${size(self.metadata.name)} characters, too many for what is named "
        f"after it; use at most ${{{_NAME_LIMIT}}} characters for this run",
    )
    for name, field in Spec.model_fields.items():
        alias = field.alias or name
        if f"spec.{alias}" not in CHANGEABLE:
            yield _fixed(alias)


def _fixed(name: str) -> Rule:
    """A part of the spec that the started run is bound to."""
    new, old = f"self.spec.{name}", f"oldSelf.spec.{name}"
    started = "has(oldSelf.status) && has(oldSelf.status.startTime)"
    same = f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"
    return Rule(
        "resource.forbidden_changes",
        "",
        f"spec.{name}",
        f"!({started}) || ({same})",
        "cannot change once the run has started; make a new run with another name: it reuses every stage whose "
        "inputs are equal",
    )


def _cancel() -> Iterator[Rule]:
    yield Rule(
        "cancel",
        "spec",
        "cancel",
        "self.cancel || !oldSelf.cancel || (has(self.retryToken) && "
        "(!has(oldSelf.retryToken) || self.retryToken != oldSelf.retryToken))",
        "false alone does not bring a cancelled run back; use a new spec.retryToken with it to go on from what is "
        "committed",
    )


RULES: Final[tuple[Rule, ...]] = (
    *_root(),
    *_cancel(),
    *model_rules.rules(),
    *spec_rules.rules(),
    *pod_rules.rules(),
)
