"""`soda_jobs.spec.model_rules` in CEL: the teacher, the student, the judge and their servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from soda_operator.crd.cel import REQUIRED, Rule, matches

LOCAL: Final = r"(?i)^http://([^/@]*@)?(localhost|127\.0\.0\.1|\[::1\])(:[0-9]*)?(/.*)?$"


def rules() -> Iterator[Rule]:
    yield from _teacher_and_judge()
    yield from _student()
    yield from _servers()


def _teacher_and_judge() -> Iterator[Rule]:
    yield Rule(
        "model_rules.teacher",
        "spec",
        "teacher.model",
        "self.method == 'ssd' || has(self.teacher.model)"
        " || (has(self.teacher.server) && self.teacher.server.engine == 'tutor')",
        "null is not enough for the method ${self.method}, which learns from a teacher; "
        "use a hub id, an s3:// URL or a path, or server.engine tutor",
        REQUIRED,
    )
    judge = "model_rules.judge"
    yield Rule(
        judge,
        "spec.judge",
        "ready",
        "!self.ready || has(self.model)",
        "true does not say which model is ready; "
        "name the scoring model in spec.judge.model, or use false to train one",
    )
    yield Rule(
        judge,
        "spec.judge",
        "endpoint",
        "!has(self.endpoint) || self.ready",
        "${self.endpoint} is an endpoint, and the model behind it cannot be trained here; use ready: true for it, "
        "or a model without an endpoint",
    )
    yield from _served("model_rules.teacher", "spec.teacher")
    yield from _served(judge, "spec.judge")


def _revision(of: str, at: str, *also: str) -> Rule:
    elsewhere = (f"!self.model.startsWith('{start}')" for start in ("s3://", "/", "."))
    return Rule(
        of,
        at,
        "revision",
        f"!has(self.revision) || ({' && '.join([*also, 'has(self.model)', *elsewhere])})",
        "${self.revision} is only for a model of a hub; leave it out, or use a model as in owner/name",
    )


def _served(of: str, at: str) -> Iterator[Rule]:
    yield _revision(of, at, "!has(self.endpoint)")
    for name in ("secretRef", "rateLimits", "price"):
        yield Rule(
            of,
            at,
            name,
            f"!has(self.{name}) || has(self.endpoint)",
            f"has no endpoint to be used for; use {at}.endpoint with it, or leave it out",
        )
    yield Rule(
        of,
        at,
        "server",
        "!has(self.server) || !has(self.endpoint)",
        f"would not be used beside an endpoint; use one of {at}.endpoint and {at}.server",
    )
    yield Rule(
        of,
        at,
        "model",
        "has(self.model) || !has(self.endpoint)",
        "null does not say which model to ask the endpoint for; use the name the endpoint knows it by",
        REQUIRED,
    )
    yield Rule(
        of,
        at,
        "endpoint",
        f"!has(self.endpoint) || has(self.secretRef) || {matches('self.endpoint', LOCAL)}",
        "${self.endpoint} is not on this machine and no API key is named; "
        f"use {at}.secretRef with the name of a Secret, or an http://localhost URL",
    )


def _student() -> Iterator[Rule]:
    of, use = "model_rules.student", "use exactly one of spec.student.model and spec.student.init"
    yield Rule(
        of,
        "spec.student",
        "model",
        "has(self.model) || has(self.init)",
        f"null leaves the student open; {use}",
        REQUIRED,
    )
    yield _revision(of, "spec.student")
    yield Rule(
        of,
        "spec.student",
        "model",
        "!has(self.model) || !has(self.init)",
        f"${{self.model}} is given beside spec.student.init; {use}",
    )
    yield Rule(
        of,
        "spec.student.init",
        "width",
        "self.width % (2 * self.heads) == 0",
        "${self.width} cannot be split into ${self.heads} heads of even size; use a multiple of "
        "${2 * self.heads} (twice spec.student.init.heads)",
    )
    context = "self.student.init.contextLength"
    for field, less in (
        ("training.sft.maxLength", 0),
        ("training.preference.maxLength", 0),
        ("student.sampling.maxTokens", 1),
        ("evaluation.sampling.maxTokens", 1),
        ("judge.train.maxLength", 0),
        ("judge.sampling.maxTokens", 1),
    ):
        free = "!has(self.student.init) || "
        free += "has(self.judge.model) || " if field.startswith("judge.") else ""
        limit = f"{context} - {less}" if less else context
        yield Rule(
            of,
            "spec",
            field,
            f"{free}self.{field} <= {limit}",
            f"${{self.{field}}} does not fit into the student's context of ${{{context}}}; "
            f"use at most ${{{limit}}}, or raise spec.student.init.contextLength",
        )


def _servers() -> Iterator[Rule]:
    of, other = "model_rules.servers", "is not possible with the engine ${self.engine}"
    for role in ("teacher", "student", "judge"):
        at = f"spec.{role}.server"
        if role != "teacher":
            why = f"tutor only knows its own tasks and cannot be the {role}; use vllm or cpu"
            yield Rule(of, at, "engine", "self.engine != 'tutor'", why)
        yield Rule(
            of,
            at,
            "gpus",
            "self.engine == 'vllm' || !has(self.gpus) || self.gpus == 0",
            f"${{self.gpus}} {other}; use 0, or the engine vllm",
        )
        yield Rule(
            of,
            at,
            "gpus",
            "self.engine != 'vllm' || !has(self.gpus) || self.gpus > 0",
            "0 is not possible with the engine vllm; use 1 to 16, or the engine cpu",
        )
        yield Rule(
            of,
            at,
            "quantization",
            "self.engine == 'vllm' || !has(self.quantization)",
            f"${{self.quantization}} {other}; use null, or the engine vllm",
        )
