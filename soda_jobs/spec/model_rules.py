"""Rules about the teacher, the student, the judge and their servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from soda_jobs.spec.conflict import Conflict, conflict
from soda_jobs.spec.models import Judge, Server, Student, Teacher
from soda_jobs.spec.run import Metadata, Spec

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")


def teacher(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    block, field = spec.teacher, "spec.teacher"
    is_tutor = block.server is not None and block.server.engine == "tutor"
    if spec.method != "ssd" and block.model is None and not is_tutor:
        yield conflict(
            f"{field}.model",
            None,
            f"is not enough for the method {spec.method}, which learns from a teacher",
            "use a hub id, an s3:// URL or a path, or server.engine tutor",
            "spec.method",
            f"{field}.server",
        )
    yield from _served(field, block)


def judge(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    block, field = spec.judge, "spec.judge"
    if block.ready and block.model is None:
        use = "name the scoring model in spec.judge.model, or use false to train one"
        yield conflict(f"{field}.ready", True, "does not say which model is ready", use, f"{field}.model")
    if block.endpoint is not None and not block.ready:
        why = "is an endpoint, and the model behind it cannot be trained here"
        use = "use ready: true for it, or a model without an endpoint"
        yield conflict(f"{field}.endpoint", block.endpoint, why, use, f"{field}.ready")
    yield from _served(field, block)


def _revision(field: str, block: Teacher | Student | Judge, endpoint: str | None) -> Iterator[Conflict]:
    is_on_hub = block.model is not None and block.model[0].isalnum() and not block.model.startswith("s3://")
    if block.revision is not None and (endpoint is not None or not is_on_hub):
        why, use = "is only for a model of a hub", "leave it out, or use a model as in owner/name"
        yield conflict(f"{field}.revision", block.revision, why, use, f"{field}.model", f"{field}.endpoint")


def _served(field: str, block: Teacher | Judge) -> Iterator[Conflict]:
    yield from _revision(field, block, block.endpoint)
    if block.endpoint is None:
        given = {"secretRef": block.secret_ref, "rateLimits": block.rate_limits, "price": block.price}
        for name, value in given.items():
            if value is not None:
                why, use = "has no endpoint to be used for", f"use {field}.endpoint with it, or leave it out"
                yield conflict(f"{field}.{name}", value, why, use, f"{field}.endpoint")
        return
    if block.server is not None:
        use = f"use one of {field}.endpoint and {field}.server"
        yield conflict(
            f"{field}.server", block.server, "would not be used beside an endpoint", use, f"{field}.endpoint"
        )
    if block.model is None:
        why, use = "does not say which model to ask the endpoint for", "use the name the endpoint knows it by"
        yield conflict(f"{field}.model", None, why, use, f"{field}.endpoint")
    if block.secret_ref is None and not _is_local(block.endpoint):
        why = "is not on this machine and no API key is named"
        use = f"use {field}.secretRef with the name of a Secret, or an http://localhost URL"
        yield conflict(f"{field}.endpoint", block.endpoint, why, use, f"{field}.secretRef")


def _is_local(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and parts.hostname in LOCAL_HOSTS
    except ValueError:  # such as "http://[::1": not an address at all
        return False


def student(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    block, init = spec.student, spec.student.init
    if (block.model is None) == (init is None):
        why = "leaves the student open" if init is None else "is given beside spec.student.init"
        use = "use exactly one of spec.student.model and spec.student.init"
        yield conflict("spec.student.model", block.model, why, use, "spec.student.init")
    yield from _revision("spec.student", block, None)
    if init is None:
        return
    if init.width % (2 * init.heads):
        why = f"cannot be split into {init.heads} heads of even size"
        use = f"use a multiple of {2 * init.heads} (twice spec.student.init.heads)"
        yield conflict("spec.student.init.width", init.width, why, use, "spec.student.init.heads")
    yield from _fits_context(spec, init.context_length)


def _fits_context(spec: Spec, context: int) -> Iterator[Conflict]:
    """A student made from nothing, and a judge that starts from it, have a context that is known beforehand."""
    limits = [
        ("spec.training.sft.maxLength", spec.training.sft.max_length, context),
        ("spec.training.preference.maxLength", spec.training.preference.max_length, context),
        ("spec.student.sampling.maxTokens", spec.student.sampling.max_tokens, context - 1),
        ("spec.evaluation.sampling.maxTokens", spec.evaluation.sampling.max_tokens, context - 1),
    ]
    if spec.judge.model is None:
        limits += [
            ("spec.judge.train.maxLength", spec.judge.train.max_length, context),
            ("spec.judge.sampling.maxTokens", spec.judge.sampling.max_tokens, context - 1),
        ]
    for field, value, limit in limits:
        if value > limit:
            why = f"does not fit into the student's context of {context}"
            use = f"use at most {limit}, or raise spec.student.init.contextLength"
            yield conflict(field, value, why, use, "spec.student.init.contextLength", "spec.judge.model")


def servers(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    servers: Sequence[tuple[str, Server | None]] = (
        ("teacher", spec.teacher.server),
        ("student", spec.student.server),
        ("judge", spec.judge.server),
    )
    for role, server in servers:
        if server is None:
            continue
        field = f"spec.{role}.server"
        if server.engine == "tutor" and role != "teacher":
            why, use = f"only knows its own tasks and cannot be the {role}", "use vllm or cpu"
            yield conflict(f"{field}.engine", server.engine, why, use)
        if server.engine != "vllm" and server.gpus:
            why, use = f"is not possible with the engine {server.engine}", "use 0, or the engine vllm"
            yield conflict(f"{field}.gpus", server.gpus, why, use, f"{field}.engine")
        if server.engine == "vllm" and server.gpus == 0:
            why, use = "is not possible with the engine vllm", "use 1 to 16, or the engine cpu"
            yield conflict(f"{field}.gpus", server.gpus, why, use, f"{field}.engine")
        if server.engine != "vllm" and server.quantization:
            why, use = f"is not possible with the engine {server.engine}", "use null, or the engine vllm"
            yield conflict(f"{field}.quantization", server.quantization, why, use, f"{field}.engine")
