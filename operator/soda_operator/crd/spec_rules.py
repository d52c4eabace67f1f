"""`soda_jobs.spec.rules` in CEL: questions, machines, batches, evaluation, lists, ablation, storage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from soda_jobs.spec.rules import SODA_METHODS
from soda_operator.crd.cel import Rule, quoted

_IS_SODA: Final = f"self.method in [{', '.join(quoted(name) for name in SODA_METHODS)}]"
_EACH_ONCE: Final = "self.all(one, self.exists_one(other, other == one))"


def rules() -> Iterator[Rule]:
    yield from _questions()
    yield from _machines()
    yield from _batches()
    yield from _evaluation()
    yield from _unique()
    yield from _ablation()
    yield from _storage()


def _questions() -> Iterator[Rule]:
    of, at = "rules._questions", "spec.questions"
    yield Rule(
        of,
        at,
        "ratio",
        "self.ratio.easy + self.ratio.medium + self.ratio.hard > 0",
        "takes questions from no level; use at least one number above 0 among easy, medium and hard",
    )
    yield Rule(
        of,
        f"{at}.screen",
        "minChars",
        "self.minChars < self.maxChars",
        "${self.minChars} leaves no length below maxChars, which is ${self.maxChars}; "
        "use at most ${self.maxChars - 1}",
    )
    yield Rule(
        of,
        at,
        "count",
        "!has(self.count) || self.source.startsWith('builtin:')",
        "${self.count} is only for questions that are made to order; use spec.questions.limit with this source",
    )
    for name in ("config", "revision"):
        yield Rule(
            of,
            at,
            name,
            f"!has(self.{name}) || self.source.startsWith('hf:')",
            f"${{self.{name}}} is only for datasets of a hub; "
            "leave it out, or use a source as in hf:owner/dataset",
        )
    yield Rule(
        of,
        at,
        "format",
        "self.format == 'auto' || (self.format == 'datasets') == self.source.startsWith('hf:')",
        "${self.format} does not fit the source ${self.source}; "
        "use auto, jsonl or parquet for files and auto or datasets for hf:owner/dataset",
    )
    yield Rule(
        of,
        "spec",
        "questions.preferenceShare",
        f"self.questions.preferenceShare > 0.0 || !({_IS_SODA}) || 'fault' in self.ablation.skip",
        "0 leaves nothing for contrastive learning; use more than 0, or ablation: {skip: [fault]}",
    )


def _machines() -> Iterator[Rule]:
    of, at = "rules._machines", "spec.training"
    devices = _devices("self")
    together = "(self.nodes > 1 && self.gpusPerNode == 0)"
    yield Rule(
        of,
        at,
        "nodes",
        f"!{together}",
        "${self.nodes} needs GPUs to train together; use 1, or gpusPerNode from 1 to 16",
    )
    yield Rule(
        of,
        at,
        "strategy",
        f"{together} || self.strategy != 'single' || {devices} == 1",
        f"single trains on one device, and there are ${{{devices}}}; "
        "use ddp, zero1, zero2, zero3 or fsdp, or one node with one GPU",
    )
    yield Rule(
        of,
        at,
        "strategy",
        f"{together} || self.strategy == 'single' || self.gpusPerNode > 0",
        "${self.strategy} needs GPUs; use single on the CPU, or gpusPerNode from 1 to 16",
    )
    yield Rule(
        of,
        at,
        "precision",
        "self.gpusPerNode > 0 || !(self.precision in ['bf16', 'fp16'])",
        "${self.precision} needs a GPU; use auto or fp32 on the CPU",
    )


def _devices(training: str) -> str:
    product = f"{training}.nodes * {training}.gpusPerNode"
    return f"({product} < 1 ? 1 : {product})"


def _batches() -> Iterator[Rule]:
    devices = _devices("self.training")
    for place in ("training.sft", "training.preference", "judge.train"):
        block = f"self.{place}"
        equal, share = f"{block}.batchSize % {devices} == 0", f"{block}.batchSize / {devices}"
        yield Rule(
            "rules._batches",
            "spec",
            f"{place}.batchSize",
            equal,
            f"${{{block}.batchSize}} cannot be shared equally by ${{{devices}}} devices; "
            f"use a multiple of ${{{devices}}}",
        )
        yield Rule(
            "rules._batches",
            "spec",
            f"{place}.microBatchSize",
            f"!has({block}.microBatchSize) || !({equal}) || ({share}) % {block}.microBatchSize == 0",
            f"${{{block}.microBatchSize}} does not divide the ${{{share}}} sequences of each device; "
            f"use a divisor of ${{{share}}}",
        )


def _evaluation() -> Iterator[Rule]:
    of, at = "rules._evaluation", "spec.evaluation"
    yield Rule(
        of,
        at,
        "passK",
        "self.passK.all(k, k <= self.samples)",
        "${self.passK} needs more answers to a task than samples, which is "
        "${self.samples}; use numbers up to ${self.samples}, or samples of at least "
        "${self.passK.max()}",
    )
    yield Rule(
        of,
        at,
        "samples",
        "self.samples == 1 || self.sampling.temperature > 0.0",
        "${self.samples} would give equal answers, as spec.evaluation.sampling.temperature is 0; "
        "use 1, or a temperature above 0",
    )
    yield Rule(
        of,
        "spec",
        "evaluation.benchmarks",
        "self.evaluation.benchmarks.all(one, "
        "!has(one.languages) || one.languages.all(name, name in self.execution.languages))",
        "has languages that are not executed; use some of ${self.execution.languages.join(', ')}, "
        "or add to spec.execution.languages",
    )


def _unique() -> Iterator[Rule]:
    of, use = "rules._unique", "use each once"
    for at in ("spec.execution.languages", "spec.ablation.skip", "spec.evaluation.benchmarks[].languages"):
        yield Rule(of, at, "", _EACH_ONCE, f"${{self}} names one of them twice; {use}")
    yield Rule(
        of,
        "spec.evaluation.passK",
        "",
        _EACH_ONCE,
        f"${{self}} names one of them twice; {use}",
    )
    yield Rule(
        of,
        "spec.evaluation.benchmarks",
        "",
        "self.all(one, self.exists_one(other, other.name == one.name))",
        f"${{self.map(one, one.name)}} names one of them twice; {use}",
    )


def _ablation() -> Iterator[Rule]:
    of, skip = "rules._ablation", "self.ablation.skip"
    yield Rule(
        of,
        "spec",
        "ablation.skip",
        f"size({skip}) == 0 || {_IS_SODA}",
        f"${{{skip}}} leaves out parts that the method ${{self.method}} does not have; use [] or the method soda",
    )
    yield Rule(
        of,
        "spec",
        "ablation.skip",
        f"!({_IS_SODA}) || !('judge' in {skip} && 'execution' in {skip}) || 'classification' in {skip}",
        f"${{{skip}}} leaves nothing to sort questions by; add classification, or keep judge or execution",
    )


def _storage() -> Iterator[Rule]:
    shown = {"endpoint": "${self.endpoint} ", "region": "${self.region} ", "pathStyle": "${self.pathStyle} "}
    for name in ("endpoint", "region", "secretRef", "caSecretRef", "pathStyle"):
        yield Rule(
            "rules._storage",
            "spec.storage",
            name,
            f"!has(self.{name}) || self.url.startsWith('s3://')",
            f"{shown.get(name, '')}is only for S3; leave it out, or use a url as in s3://bucket/prefix",
        )
