"""Execution, classification, evaluation, storage and limits of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soda_jobs.spec.base import (
    SODA_LANGUAGES,
    Block,
    DnsName,
    HttpUrl,
    Language,
    SecretRef,
    SourceRef,
    StoreUrl,
    Word,
)
from soda_jobs.spec.models import Sampling

Languages = Annotated[tuple[Language, ...], Field(min_length=1, max_length=9, strict=False)]
BenchmarkName = Literal["humaneval", "mbpp", "tutor-heldout"]


class Execution(Block):
    """Running what a model wrote, in a sandbox (SODA 3.3.2)."""

    languages: Languages = SODA_LANGUAGES
    """Languages that are executed; an answer in another one is `unsupported`. Default: SODA 3.3.2."""
    timeout_seconds: Annotated[int, Field(ge=1, le=600)] = 10
    """CPU seconds of one program. SODA's released runner waits 100; its programs have no tests and those that end
    do so in a few seconds."""
    memory_mib: Annotated[int, Field(ge=64, le=65_536, alias="memoryMiB")] = 1024
    """Memory of one program in MiB."""
    replicas: Annotated[int, Field(ge=1, le=256)] = 1
    """Sandbox pods for each language."""
    runtime_class_name: DnsName = "gvisor"
    """RuntimeClass of the sandbox pods in a cluster. Without it nothing is executed."""


class Classification(Block):
    """Sorting questions into easy, medium and hard by execution and score (SODA 3.4)."""

    rules: Literal["total", "strict"] = "total"
    """`strict`: only the three cells that SODA publishes; other questions are not drawn. `total`: agrees with them
    and places the other cells too."""


class Benchmark(Block):
    """One set of tasks with tests."""

    name: BenchmarkName
    """Which one. `tutor-heldout`: the built-in teacher's tasks that no training may see."""
    source: SourceRef | None = None
    """Its file. Null: the copy that ships with soda or is published under its name."""
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Use only the first so many tasks. Null: all."""
    languages: Annotated[tuple[Language, ...], Field(max_length=9, strict=False)] = ()
    """Only these of its languages. Empty: those of `execution.languages`."""


class Evaluation(Block):
    """Measuring the student."""

    benchmarks: Annotated[tuple[Benchmark, ...], Field(min_length=1, max_length=16, strict=False)] = (
        Benchmark(name="humaneval"),
        Benchmark(name="mbpp"),
    )
    """What to measure on. Default: SODA 4.4."""
    pass_k: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1000)], ...], Field(min_length=1, max_length=8, strict=False)
    ] = (1,)
    """The k of pass@k, estimated without bias from `samples` (Chen et al. 2021)."""
    samples: Annotated[int, Field(ge=1, le=1000)] = 1
    """Answers to each task. Default: SODA 4.5."""
    sampling: Sampling = Sampling()
    """How the student answers. Default: SODA 4.5."""
    protocol: Literal["observe", "official", "both"] = "observe"
    """How a pass is proved. `observe`: what a program says is judged outside its sandbox, or else its tests are
    run again with a wrong expectation. `official`: as by the benchmark's own harness, which a program can deceive.
    `both`: `observe`, and every disagreement is listed."""
    every: Literal["round", "end"] = "round"
    """Measure after every round, or only after the last. The untouched student is measured in both."""
    model_score: bool = True
    """Also give the judge's mean score of the first answers, when the run has a judge."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamples over tasks for the 95 % intervals."""


Part = Literal["fault", "judge", "execution", "classification"]


class Ablation(Block):
    """Leaving out one part of SODA, as in SODA 5.2."""

    skip: Annotated[tuple[Part, ...], Field(max_length=4, strict=False)] = ()
    """`fault`: no contrastive learning. `judge`: levels by execution alone. `execution`: levels by score alone.
    `classification`: new questions are made from questions drawn at random."""


class Storage(Block):
    """Where artifacts are kept. Runs on the same storage reuse each other's work."""

    url: StoreUrl = ".soda/store"
    """`s3://bucket/prefix`, `file:///folder`, or a folder relative to where the command runs. A cluster has no
    folder that all pods see: there the storage that the operator was installed with takes a folder's place."""
    endpoint: HttpUrl | None = None
    """URL of an S3 server that is not AWS. Null: AWS."""
    region: Word | None = None
    """AWS region. Null: what the environment says."""
    path_style: bool | None = None
    """Put the bucket into the path instead of the host name, as most S3 servers that are not AWS want. Null: where
    there is an endpoint."""
    secret_ref: SecretRef | None = None
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Null: the pod's or machine's own identity."""
    ca_secret_ref: SecretRef | None = None
    """Secret with `ca.crt`, when the server's certificate is not publicly trusted."""


class Budget(Block):
    """When a limit is reached the run is suspended; raising it continues the run."""

    gpu_hours: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """GPUs times hours, over all stages and servers. Null: no limit."""
    hours: Annotated[float, Field(gt=0, le=100_000)] | None = None
    """Hours since the run was accepted. Null: no limit."""
