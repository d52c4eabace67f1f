"""Rules between fields. In: metadata and spec whose fields are each fine. Out: every conflict, as one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from soda_jobs.names import run_name_limit
from soda_jobs.spec import model_rules, pod_rules
from soda_jobs.spec.base import show
from soda_jobs.spec.conflict import Conflict, conflict
from soda_jobs.spec.run import Metadata, Spec
from soda_jobs.spec.training import Optimisation

SODA_METHODS: Final = ("soda", "iterkd")


Rule = Callable[[Metadata, Spec], Iterator[Conflict]]


def conflicts(metadata: Metadata, spec: Spec) -> list[Conflict]:
    """Every conflict of a run, in the order of `RULES`."""
    return [found for rule in RULES for found in rule(metadata, spec)]


def _name_fits(metadata: Metadata, spec: Spec) -> Iterator[Conflict]:
    group = max(spec.training.nodes, spec.execution.replicas, spec.parallelism)
    limit = run_name_limit(spec.rounds, group)
    if len(metadata.name) > limit:
        yield conflict(
            "metadata.name",
            metadata.name,
            f"has {len(metadata.name)} characters, too many for what is named after it",
            f"use at most {limit} characters for this run",
            "spec.rounds",
            "spec.training.nodes",
            "spec.execution.replicas",
            "spec.parallelism",
        )


def _label_keys(metadata: Metadata, _: Spec) -> Iterator[Conflict]:
    yield from pod_rules.label_keys("metadata.labels", metadata.labels)
    yield from pod_rules.label_keys("metadata.annotations", metadata.annotations)


def _questions(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    questions, field = spec.questions, "spec.questions"
    if questions.ratio.total == 0:
        use = "use at least one number above 0 among easy, medium and hard"
        yield conflict(f"{field}.ratio", questions.ratio, "takes questions from no level", use)
    if questions.screen.min_chars >= questions.screen.max_chars:
        why = f"leaves no length below maxChars, which is {questions.screen.max_chars}"
        use = f"use at most {questions.screen.max_chars - 1}"
        yield conflict(
            f"{field}.screen.minChars", questions.screen.min_chars, why, use, f"{field}.screen.maxChars"
        )
    if questions.count is not None and not questions.source.startswith("builtin:"):
        why, use = "is only for questions that are made to order", "use spec.questions.limit with this source"
        yield conflict(f"{field}.count", questions.count, why, use, f"{field}.source")
    for name, value in (("config", questions.config), ("revision", questions.revision)):
        if value is not None and not questions.source.startswith("hf:"):
            why, use = "is only for datasets of a hub", "leave it out, or use a source as in hf:owner/dataset"
            yield conflict(f"{field}.{name}", value, why, use, f"{field}.source")
    is_hub_format = questions.format == "datasets"
    if questions.format != "auto" and is_hub_format != questions.source.startswith("hf:"):
        why = f"does not fit the source {show(questions.source)}"
        use = "use auto, jsonl or parquet for files and auto or datasets for hf:owner/dataset"
        yield conflict(f"{field}.format", questions.format, why, use, f"{field}.source")
    if questions.preference_share == 0 and spec.method in SODA_METHODS and "fault" not in spec.ablation.skip:
        why, use = "leaves nothing for contrastive learning", "use more than 0, or ablation: {skip: [fault]}"
        yield conflict(
            f"{field}.preferenceShare", questions.preference_share, why, use, "spec.ablation.skip", "spec.method"
        )


def _batches(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    devices = spec.training.devices
    blocks: Sequence[tuple[str, Optimisation]] = (
        ("spec.training.sft", spec.training.sft),
        ("spec.training.preference", spec.training.preference),
        ("spec.judge.train", spec.judge.train),
    )
    machines = ("spec.training.nodes", "spec.training.gpusPerNode")
    for field, block in blocks:
        if block.batch_size % devices:
            why, use = f"cannot be shared equally by {devices} devices", f"use a multiple of {devices}"
            yield conflict(f"{field}.batchSize", block.batch_size, why, use, *machines)
        elif block.micro_batch_size and (block.batch_size // devices) % block.micro_batch_size:
            why = f"does not divide the {block.batch_size // devices} sequences of each device"
            use = f"use a divisor of {block.batch_size // devices}"
            yield conflict(
                f"{field}.microBatchSize", block.micro_batch_size, why, use, f"{field}.batchSize", *machines
            )


def _machines(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    training, field = spec.training, "spec.training"
    strategy = f"{field}.strategy"
    if training.nodes > 1 and training.gpus_per_node == 0:
        why, use = "needs GPUs to train together", "use 1, or gpusPerNode from 1 to 16"
        yield conflict(f"{field}.nodes", training.nodes, why, use, f"{field}.gpusPerNode")
    elif training.strategy == "single" and training.devices > 1:
        why = f"trains on one device, and there are {training.devices}"
        use = "use ddp, zero1, zero2, zero3 or fsdp, or one node with one GPU"
        yield conflict(strategy, "single", why, use, f"{field}.nodes", f"{field}.gpusPerNode")
    elif training.strategy != "single" and training.gpus_per_node == 0:
        why, use = "needs GPUs", "use single on the CPU, or gpusPerNode from 1 to 16"
        yield conflict(strategy, training.strategy, why, use, f"{field}.gpusPerNode")
    if training.precision in ("bf16", "fp16") and training.gpus_per_node == 0:
        why, use = "needs a GPU", "use auto or fp32 on the CPU"
        yield conflict(f"{field}.precision", training.precision, why, use, f"{field}.gpusPerNode")


def _evaluation(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    evaluation, field = spec.evaluation, "spec.evaluation"
    if max(evaluation.pass_k) > evaluation.samples:
        why = f"needs more answers to a task than samples, which is {evaluation.samples}"
        use = f"use numbers up to {evaluation.samples}, or samples of at least {max(evaluation.pass_k)}"
        yield conflict(f"{field}.passK", list(evaluation.pass_k), why, use, f"{field}.samples")
    if evaluation.samples > 1 and evaluation.sampling.temperature == 0:
        other = f"{field}.sampling.temperature"
        why, use = f"would give equal answers, as {other} is 0", "use 1, or a temperature above 0"
        yield conflict(f"{field}.samples", evaluation.samples, why, use, other)
    for index, benchmark in enumerate(evaluation.benchmarks):
        unknown = [name for name in benchmark.languages if name not in spec.execution.languages]
        if unknown:
            why = f"has languages that are not executed: {', '.join(unknown)}"
            use = f"use some of {', '.join(spec.execution.languages)}, or add to spec.execution.languages"
            where = f"{field}.benchmarks[{index}].languages"
            yield conflict(where, list(benchmark.languages), why, use, "spec.execution.languages")


def _unique(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    lists: list[tuple[str, Sequence[Any]]] = [
        ("spec.execution.languages", spec.execution.languages),
        ("spec.evaluation.passK", spec.evaluation.pass_k),
        ("spec.evaluation.benchmarks", [benchmark.name for benchmark in spec.evaluation.benchmarks]),
        ("spec.ablation.skip", spec.ablation.skip),
    ]
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        lists.append((f"spec.evaluation.benchmarks[{index}].languages", benchmark.languages))
    for field, values in lists:
        twice = [value for value in dict.fromkeys(values) if list(values).count(value) > 1]
        if twice:
            once = ", ".join(show(value) for value in dict.fromkeys(values))
            yield conflict(field, list(values), f"names {show(twice[0])} twice", f"use each once: {once}")


def _ablation(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    skip, field = spec.ablation.skip, "spec.ablation.skip"
    if skip and spec.method not in SODA_METHODS:
        why, use = f"leaves out parts that the method {spec.method} does not have", "use [] or the method soda"
        yield conflict(field, list(skip), why, use, "spec.method")
    elif {"judge", "execution"} <= set(skip) and "classification" not in skip:
        why, use = "leaves nothing to sort questions by", "add classification, or keep judge or execution"
        yield conflict(field, list(skip), why, use)


def _storage(_: Metadata, spec: Spec) -> Iterator[Conflict]:
    storage, field = spec.storage, "spec.storage"
    if storage.url.startswith("s3://"):
        return
    for name, value in (
        ("endpoint", storage.endpoint),
        ("region", storage.region),
        ("secretRef", storage.secret_ref),
        ("caSecretRef", storage.ca_secret_ref),
        ("pathStyle", storage.path_style),
    ):
        if value is not None:
            why, use = "is only for S3", "leave it out, or use a url as in s3://bucket/prefix"
            yield conflict(f"{field}.{name}", value, why, use, f"{field}.url")


RULES: Final[tuple[Rule, ...]] = (
    _name_fits,
    _label_keys,
    model_rules.teacher,
    model_rules.student,
    model_rules.judge,
    model_rules.servers,
    _questions,
    _machines,
    _batches,
    _evaluation,
    _unique,
    _ablation,
    _storage,
    pod_rules.pods,
)
