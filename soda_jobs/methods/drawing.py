"""The strokes a method's figure is drawn with: each adds one stage with its resolved settings, returns its name.

Everything a stage's result depends on goes into its settings here, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from soda_jobs.graph import Graph, Kind, Service
from soda_jobs.methods.canvas import Canvas, pinned
from soda_jobs.names import stage_name


class Drawing(Canvas):
    """The strokes. Stage names are `r<round>-<what>`, unique in the run."""

    # -- data ------------------------------------------------------------------------------------------------

    def source(self) -> str:
        questions = self.spec.questions
        return self._add(
            "source",
            Kind.SOURCE,
            0,
            what="questions",
            source=questions.source,
            format=questions.format,
            config=questions.config,
            split=questions.split,
            limit=questions.limit,
            count=questions.count,
            **pinned(questions.revision),
        )

    def benchmarks(self) -> list[str]:
        return [
            self._add(
                f"benchmark-{item.name}",
                Kind.SOURCE,
                0,
                what="benchmark",
                name=item.name,
                source=item.source,
                limit=item.limit,
                languages=item.languages or self.spec.execution.languages,
            )
            for item in self.spec.evaluation.benchmarks
        ]

    def screen(self, t: int, candidates: str, *, existing: Sequence[str], benchmarks: Sequence[str]) -> str:
        rules = self.spec.questions.screen
        return self._add(
            stage_name(t, "screen"),
            Kind.SCREEN,
            t,
            inputs={"questions": [candidates], "existing": existing, "benchmarks": benchmarks},
            **rules.model_dump(mode="json"),
        )

    def split(self, t: int, questions: str) -> str:
        return self._select(t, "split", {"questions": [questions]}, fraction=self.spec.questions.preference_share)

    def pairs(self, t: int, splits: Sequence[str], correct: Sequence[str], faults: Sequence[str]) -> str:
        since = -1 if self.spec.questions.new_only else 0
        inputs = {
            "sft": [f"{name}:sft.jsonl" for name in splits[since:]],
            "preference": [f"{name}:preference.jsonl" for name in splits[since:]],
            "correct": correct[since:],
            "fault": faults[since:],
        }
        prompt = self._prompt("student", "correct")
        return self._select(t, "pairs", inputs, preset=self.spec.questions.pair_filters.preset, **prompt)

    def classify(self, t: int, questions: Sequence[str], executed: Sequence[str], judged: Sequence[str]) -> str:
        inputs = {"questions": questions, "executions": executed, "judgements": judged}
        return self._add(
            stage_name(t, "classify"), Kind.CLASSIFY, t, inputs=inputs, rules=self.spec.classification.rules
        )

    def parents(self, t: int, questions: Sequence[str], levels: str) -> str:
        asked = self.spec.questions
        return self._select(
            t,
            "parents",
            {"questions": questions, "classifications": [levels]},
            count=asked.new_per_round,
            ratio=asked.ratio.model_dump(),
            max_children=asked.max_children,
            random=not self.has("classification"),
            seed=self.spec.seed,
        )

    # -- the teacher -----------------------------------------------------------------------------------------

    def teacher(self, t: int, kind: str, questions: str) -> str:
        return self._teach(t, kind, kind, [questions], sampling=getattr(self.spec.teacher.sampling, kind))

    def new_questions(self, t: int, parents: str) -> str:
        return self._teach(t, "new", "question", [parents], sampling=self.spec.teacher.sampling.question)

    def _teach(self, t: int, name: str, kind: str, questions: Sequence[str], *, sampling: Any) -> str:
        names = ["new_harder", "new_similar"] if kind == "question" else [kind]
        return self._add(
            stage_name(t, name),
            Kind.GENERATE,
            t,
            inputs={"questions": questions},
            service=Service("teacher"),
            role="teacher",
            kind=kind,
            model=self._teacher_model(),
            sampling=sampling.model_dump(),
            minimum_yield=self.spec.questions.minimum_yield,
            seed=self.spec.seed,
            **self._teacher_revision(),
            **self._prompts("teacher", names),
        )

    # -- the student -----------------------------------------------------------------------------------------

    def student(self, *, texts: Sequence[str]) -> str:
        """The untouched student: made from nothing, or copied in from where the spec says."""
        student = self.spec.student
        if student.init is None:
            return self._checkpoint("student", 0, student.model, student.revision)
        init = {**student.init.model_dump(), "seed": self.spec.seed}
        return self._add("student", Kind.TRAIN, 0, inputs={"texts": texts}, objective="init", init=init)

    def _checkpoint(self, name: str, t: int, model: str | None, revision: str | None) -> str:
        return self._add(name, Kind.SOURCE, t, what="model", source=model, **pinned(revision))

    def sft(self, t: int, rows: str, base: str) -> str:
        return self._train(stage_name(t, "sft"), t, "sft", rows, base, self.spec.training.sft)

    def preference(self, t: int, rows: str, base: str) -> str:
        return self._train(stage_name(t, "preference"), t, "preference", rows, base, self.spec.training.preference)

    def attempts(self, t: int, student: str, questions: Sequence[str]) -> str:
        return self._answer(
            t, stage_name(t, "attempts"), student, questions, sampling=self.spec.student.sampling, samples=1
        )

    def _answer(
        self, t: int, name: str, student: str, questions: Sequence[str], *, sampling: Any, samples: int
    ) -> str:
        service = Service("student", checkpoint=student)
        return self._add(
            name,
            Kind.GENERATE,
            t,
            inputs={"questions": questions},
            service=service,
            role="student",
            kind="attempt",
            model=service.name,
            sampling=sampling.model_dump(),
            samples=samples,
            seed=self.spec.seed,
            **self._prompts("student", ["correct"]),
        )

    def _train(self, name: str, t: int, objective: str, rows: str, base: str, block: Any) -> str:
        shared = self.spec.training
        settings = {
            **block.model_dump(exclude={"samples", "retrain_every_round"}),
            "objective": objective,
            "precision": shared.precision,
            "gradient_checkpointing": shared.gradient_checkpointing,
            "lora": shared.lora.model_dump() if shared.lora else None,
            "seed": self.spec.seed,
        }
        return self._add(
            name, Kind.TRAIN, t, inputs={"rows": [rows], "base": [base]}, objective=objective, train=settings
        )

    # -- feedback --------------------------------------------------------------------------------------------

    def scorer(self, t: int, base: str, attempts: str, questions: Sequence[str]) -> str:
        """The scoring model: given ready, or trained once on the annotator's scores (paper section 3.3.1)."""
        judge = self.spec.judge
        if judge.ready:
            return self._checkpoint("scorer", t, judge.model, judge.revision)
        sample = self._select(t, "sample", {"rows": [attempts]}, count=judge.train.samples, seed=self.spec.seed)
        inputs = {"questions": questions, "completions": [sample]}
        annotated = self._add(
            stage_name(t, "annotate"),
            Kind.JUDGE,
            t,
            inputs=inputs,
            service=Service("teacher"),
            role="teacher",
            model=self._teacher_model(),
            sampling=self.spec.teacher.sampling.annotation.model_dump(),
            retries=self.spec.judge.retries,
            retry_temperature=self.spec.judge.retry_temperature,
            seed=self.spec.seed,
            **self._teacher_revision(),
            **self._prompts("teacher", ["score"]),
        )
        rows = self._select(
            t, "annotations", {**inputs, "judgements": [annotated]}, **self._prompt("judge", "score")
        )
        if judge.model is not None:
            base = self._checkpoint("scorer-base", t, judge.model, judge.revision)
        return self._train(stage_name(t, "scorer"), t, "sft", rows, base, judge.train)

    def judge(self, t: int, scorer: str, completions: str, questions: Sequence[str], name: str = "judge") -> str:
        service = Service("judge", checkpoint=scorer or None)
        return self._add(
            stage_name(t, name),
            Kind.JUDGE,
            t,
            inputs={"questions": questions, "completions": [completions]},
            service=service,
            role="judge",
            model=service.name if scorer else self.spec.judge.model,
            sampling=self.spec.judge.sampling.model_dump(),
            retries=self.spec.judge.retries,
            retry_temperature=self.spec.judge.retry_temperature,
            seed=self.spec.seed,
            **self._prompts("judge", ["score"]),
        )

    def execute(self, t: int, completions: str) -> str:
        return self._execute(stage_name(t, "execute"), t, completions)

    def _execute(
        self, name: str, t: int, completions: str, tasks: Sequence[str] = (), protocol: str | None = None
    ) -> str:
        """Answers to questions are run as they are; those to tasks with their tests, proved by `protocol`."""
        limits = self.spec.execution
        settings = {"rules": "feedback"} if protocol is None else {"rules": "benchmark", "protocol": protocol}
        return self._add(
            name,
            Kind.EXECUTE,
            t,
            inputs={"completions": [completions], "questions": tasks},
            service=Service("sandbox"),
            languages=limits.languages,
            timeout_seconds=limits.timeout_seconds,
            memory_mib=limits.memory_mib,
            **settings,
        )

    def evaluate(self, t: int, student: str, benchmarks: Sequence[str], scorer: str) -> None:
        asked = self.spec.evaluation
        for stage, item in zip(benchmarks, asked.benchmarks, strict=True):
            answers = self._answer(
                t,
                stage_name(t, f"{item.name}-answer"),
                student,
                [stage],
                sampling=asked.sampling,
                samples=asked.samples,
            )
            executed = self._execute(stage_name(t, f"{item.name}-run"), t, answers, [stage], asked.protocol)
            scored = self.has("judge") and asked.model_score
            judged = [self.judge(t, scorer, answers, [stage], f"{item.name}-judge")] if scored else []
            self._add(
                stage_name(t, f"{item.name}-eval"),
                Kind.EVALUATE,
                t,
                inputs={"tasks": [stage], "executions": [executed], "judgements": judged},
                benchmark=item.name,
                pass_k=asked.pass_k,
                bootstrap_samples=asked.bootstrap_samples,
                seed=self.spec.seed,
            )

    def report(self) -> Graph:
        """The last stroke: a report that reads what every round left, and the finished graph."""
        self._add(
            "report",
            Kind.REPORT,
            self.spec.rounds,
            inputs={name: self._drawn(pattern) for name, pattern in REPORT_INPUTS.items()},
            method=self.spec.method,
            rounds=self.spec.rounds,
        )
        return Graph(self.spec.method, self.spec.rounds, tuple(self.stages))


# What the report reads: its input's name, and the stages whose whole name matches.
REPORT_INPUTS = {
    "metrics": r"r\d+-.+-eval",
    "screened": r"r0-screen",
    "new": r"r[1-9]\d*-screen",
    "questions": r"r\d+-screen",
    "attempts": r"r\d+-attempts",
    "executions": r"r\d+-execute",
    "judgements": r"r\d+-judge",
    "classifications": r"r\d+-classify",
    "tasks": r"benchmark-.+",
    "answers": r"r\d+-.+-answer",
    "answer_executions": r"r\d+-.+-run",
    "history": r"r\d+-(sft|preference|scorer)",
}
