"""Join what models wrote into training rows: right answers, right against wrong, answers with their scores."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from soda_jobs import prompts
from soda_jobs.extract import answer_code
from soda_jobs.models.parse import check_pair, check_solution, has_similar_length, is_self_revealing, strip_opener
from soda_jobs.records import record_id

Row = dict[str, Any]

_RULE: Final = re.compile(r"^Rule (\d)\. ([^:\n]+):", re.MULTILINE)


@dataclass
class Built:
    """Training rows, and {"id", "reason"} for each question or completion that gave none."""

    sft: list[Row] = field(default_factory=list)
    preference: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)

    def drop(self, row_id: str, reason: str) -> None:
        self.dropped.append({"id": row_id, "reason": reason})


def build_pairs(
    *,
    sft: Iterable[Row],
    preference: Iterable[Row],
    correct: Iterable[Row],
    fault: Iterable[Row] | None,
    prompt_id: str,
    strict: bool,
) -> Built:
    """SFT rows of the one share and preference rows of the other (SODA, section 3.2).

    `fault` None is the ablation without fault learning: every question is then for SFT. `strict` also drops faults
    that name themselves and pairs of very different length, and strips polite openers from both sides.
    """
    built = Built()
    right = _by_question(correct)
    wrong = _by_question(fault or ())
    questions = list(preference)
    for question in [*sft, *(questions if fault is None else [])]:
        chosen = right.get(question["id"])
        reason = "no_correct" if chosen is None else check_solution(chosen["text"], chosen["finish_reason"])
        if chosen is None or reason:
            built.drop(question["id"], f"{reason}")
        else:
            built.sft.append(_sft_row(prompt_id, question, chosen))
    for question in [] if fault is None else questions:
        row, reason = _preference_row(
            prompt_id, question, right.get(question["id"]), wrong.get(question["id"]), strict=strict
        )
        if row is None:
            built.drop(question["id"], reason)
        else:
            built.preference.append(row)
    return built


def _sft_row(prompt_id: str, question: Row, chosen: Row) -> Row:
    return {
        "id": record_id("sft", prompt_id, question["id"], chosen["id"]),
        "iteration": chosen["iteration"],
        "parents": [question["id"], chosen["id"]],
        "prompt": prompts.render(prompt_id, question=question["instruction"]),
        "response": chosen["text"],
    }


def _preference_row(
    prompt_id: str, question: Row, chosen: Row | None, rejected: Row | None, *, strict: bool
) -> tuple[Row | None, str]:
    """The row, or None and why not."""
    if chosen is None:
        return None, "no_correct"
    if rejected is None:
        return None, "no_fault"
    right, wrong = chosen["text"], rejected["text"]
    if strict:
        right, wrong = strip_opener(right), strip_opener(wrong)
    reason = check_solution(right, chosen["finish_reason"]) or check_pair(right, wrong)
    if reason is None and strict:
        reason = _shortcut(right, wrong)
    if reason is not None:
        return None, reason
    return {
        "id": record_id("preference", prompt_id, question["id"], chosen["id"], rejected["id"], strict),
        "iteration": max(chosen["iteration"], rejected["iteration"]),
        "parents": [question["id"], chosen["id"], rejected["id"]],
        "prompt": prompts.render(prompt_id, question=question["instruction"]),
        "chosen": right,
        "rejected": wrong,
        "meta": {"question_id": question["id"], "fault_types": rejected.get("fault_types", [])},
    }, ""


def _shortcut(chosen: str, rejected: str) -> str | None:
    """What lets a model tell the sides apart without reading the code."""
    if is_self_revealing(rejected):
        return "self_revealing"
    return None if has_similar_length(chosen, rejected) else "length_ratio"


def build_annotations(
    *, questions: Iterable[Row], completions: Iterable[Row], judgements: Iterable[Row], prompt_id: str
) -> Built:
    """Training rows of the scoring model: the scoring prompt, and the annotator's analysis and scores.

    Only judgements that could be read in full are taught, all in the one form the parser reads.
    """
    built = Built()
    asked = {row["id"]: row for row in questions}
    answers = {row["id"]: row for row in completions}
    for judgement in judgements:
        if judgement["parse_status"] != "ok":
            built.drop(judgement["id"], f"parse_{judgement['parse_status']}")
            continue
        question, answer = asked[judgement["question_id"]], answers[judgement["completion_id"]]
        built.sft.append(
            {
                "id": record_id("annotation", prompt_id, judgement["id"]),
                "iteration": judgement["iteration"],
                "parents": [question["id"], answer["id"], judgement["id"]],
                "prompt": prompts.render(
                    prompt_id, question=question["instruction"], code=answer_code(answer["text"])
                ),
                "response": annotation_text(prompt_id, judgement),
            }
        )
    return built


def annotation_text(prompt_id: str, judgement: Row) -> str:
    """`Code Analysis:`, `Score:` and a line for each rule, named when the prompt names the rules."""
    names = _rule_names(prompt_id)
    lines = [
        f"Rule {number}{names.get(number, '')}: {points:g}" for number, points in judgement["per_rule"].items()
    ]
    return "\n".join([f"Code Analysis: {judgement['analysis']}", "Score:", *lines])


@cache
def _rule_names(prompt_id: str) -> dict[str, str]:
    """`{"1": ". Basic Functionality", ...}` as the prompt lists them; empty when it lists none."""
    text = "\n".join(message["content"] for message in prompts.render(prompt_id, question="", code=""))
    return {number: f". {name}" for number, name in _RULE.findall(text)}


def _by_question(completions: Iterable[Row]) -> dict[str, Row]:
    """The first completion of each question."""
    rows: dict[str, Row] = {}
    for row in completions:
        rows.setdefault(row["question_id"], row)
    return rows
