"""SODA: self-paced knowledge distillation (the paper's figure 2, one cycle per round).

    I    correct-and-fault knowledge delivery: the teacher writes right and wrong; SFT, then DPO against that model
    II   multi-view feedback: the student answers everything; a scoring model and a sandbox judge it
    III  feedback-based knowledge update: easy, medium, hard; the teacher writes new questions from each

The last round ends after I. IterKD is the same graph: it is the earlier name of the same work.
"""

from __future__ import annotations

from soda_jobs.graph import Graph
from soda_jobs.methods.drawing import Drawing
from soda_jobs.spec import DistillationRun, Spec


def soda(run: DistillationRun) -> Graph:
    spec, draw = run.spec, Drawing(run)
    fault, feedback = draw.has("fault"), draw.has("judge")
    benchmarks = draw.benchmarks()
    questions = [draw.screen(0, draw.source(), existing=[], benchmarks=benchmarks)]
    splits: list[str] = []
    correct: list[str] = []
    faults: list[str] = []
    base = student = scorer = ""

    for t in range(1, spec.rounds + 1):
        # I. Teach what is right, then contrast it with what is wrong.
        splits.append(draw.split(t, questions[-1]))
        correct.append(draw.teacher(t, "correct", questions[-1]))
        if fault:
            faults.append(draw.teacher(t, "fault", f"{splits[-1]}:preference.jsonl"))
        if t == 1:
            base = student = draw.student(texts=[questions[0], correct[0]])
        pairs = draw.pairs(t, splits, correct, faults)
        student = draw.sft(t, f"{pairs}:sft.jsonl", base if spec.training.restart_from_base else student)
        if fault:
            student = draw.preference(t, f"{pairs}:preference.jsonl", student)

        # II. Ask the student everything; score it and run it.
        last = t == spec.rounds
        train_scorer = feedback and needs_scorer(spec, t)
        attempts = draw.attempts(t, student, questions) if train_scorer or not last else ""
        if train_scorer:
            scorer = draw.scorer(t, base, attempts, questions)
        if t == 1:
            draw.evaluate(0, base, benchmarks, scorer)
        if last or spec.evaluation.every == "round":
            draw.evaluate(t, student, benchmarks, scorer)
        if last:
            break
        judged = [draw.judge(t, scorer, attempts, questions)] if feedback else []
        executed = [draw.execute(t, attempts)] if draw.has("execution") else []

        # III. Sort the questions by how the student did, and ask for new ones where it matters.
        levels = draw.classify(t, questions, executed, judged)
        parents = draw.parents(t, questions, levels)
        created = draw.new_questions(t, parents)
        questions.append(draw.screen(t, created, existing=questions, benchmarks=benchmarks))

    return draw.report()


def needs_scorer(spec: Spec, t: int) -> bool:
    """True in the first round, and in every other but the last when the spec asks for it; an endpoint is ready."""
    if spec.judge.endpoint is not None:
        return False
    return t == 1 or (spec.judge.train.retrain_every_round and not spec.judge.ready and t < spec.rounds)
