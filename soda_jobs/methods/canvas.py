"""A graph in the making: how one stage is put on it. The strokes themselves are in drawing.py."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from soda_jobs import prompts
from soda_jobs.graph import Kind, Service, Stage
from soda_jobs.names import stage_name
from soda_jobs.spec import DistillationRun


def pinned(revision: str | None) -> dict[str, Any]:
    """A hub id's revision as settings: absent when none is given, so that it changes no other key."""
    return {} if revision is None else {"revision": revision}


class Canvas:
    """The stages drawn so far, and what every stroke needs of the spec."""

    def __init__(self, run: DistillationRun) -> None:
        self.run, self.spec = run, run.spec
        self.stages: list[Stage] = []

    def has(self, part: str) -> bool:
        """False when the run's ablation takes this part of the method away."""
        return part not in self.spec.ablation.skip

    def _teacher_model(self) -> str:
        return self.spec.teacher.model or "tutor"

    def _teacher_revision(self) -> dict[str, Any]:
        return pinned(self.spec.teacher.revision)

    def _prompts(self, role: str, names: Sequence[str]) -> dict[str, Any]:
        prompt_set = getattr(self.spec.prompts, role)
        return {
            "prompt_set": prompt_set,
            "prompt_digests": {name: prompts.digest(f"{prompt_set}/{name}") for name in names},
        }

    def _prompt(self, role: str, name: str) -> dict[str, Any]:
        prompt_id = f"{getattr(self.spec.prompts, role)}/{name}"
        return {"prompt_id": prompt_id, "prompt_digest": prompts.digest(prompt_id)}

    def _select(self, t: int, mode: str, inputs: dict[str, Sequence[str]], **settings: Any) -> str:
        return self._add(stage_name(t, mode), Kind.SELECT, t, inputs=inputs, mode=mode, **settings)

    def _drawn(self, pattern: str) -> list[str]:
        return [stage.name for stage in self.stages if re.fullmatch(pattern, stage.name)]

    def _add(
        self,
        name: str,
        kind: Kind,
        t: int,
        /,
        *,
        inputs: dict[str, Sequence[str]] | None = None,
        service: Service | None = None,
        **settings: Any,
    ) -> str:
        drawn = {key: tuple(refs) for key, refs in (inputs or {}).items() if refs}
        self.stages.append(Stage(name, kind, t, settings, drawn, service))
        return name
