"""Training: a student from nothing, fine-tuning, and preference tuning against a frozen reference.

    in   rows {"prompt", "response"} or {"prompt", "chosen", "rejected"}, and the folder of a base model
    out  a folder with model.safetensors, config.json, the tokenizer, and history.jsonl (one line per step)

The only door to torch, transformers and TRL besides the CPU model server. This module imports none of them:
both functions load what they need when called, so that a plan or `--help` stays instant.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from soda_jobs.training.settings import InitSettings, LoraSettings, TrainResult, TrainSettings

__all__ = ["InitSettings", "LoraSettings", "TrainResult", "TrainSettings", "init_model", "train"]


def init_model(settings: InitSettings, texts: Iterable[str], out: Path) -> dict[str, float]:
    """Write a new student into `out`: a tokenizer learned from `texts` and random weights from the seed.

    Equal settings and texts give equal bytes. Returns `parameters`, `vocabulary` and `bytes_per_token`.
    Raises InvalidInput when the texts hold nothing to learn a vocabulary from.
    """
    with _loading():
        from soda_jobs.training.student import make_student
    return make_student(settings, texts, out)


def train(
    settings: TrainSettings,
    rows: Sequence[Mapping[str, Any]],
    *,
    base: Path,
    reference: Path | None,
    work: Path,
    out: Path,
    on_progress: Callable[[int, int, dict[str, float]], None],
) -> TrainResult:
    """Train the model in `base` on `rows` and write the result into `out`.

    `prompt` is text or a list of chat messages; `response`, `chosen` and `rejected` are text. `reference` is the
    frozen model of a preference run. `work` keeps checkpoints: called again after any death, with the same
    arguments, it goes on from the newest whole one and ends with the same bytes.
    `on_progress(step, steps, measurements)` is called after every optimizer step.

    Raises InvalidInput for settings and models that do not fit (before anything is computed), Retry after SIGTERM
    once a checkpoint is written, GiveUp when the loss or the gradient is not finite.
    """
    with _loading():
        from soda_jobs.training.loop import run
    return run(settings, rows, base=base, reference=reference, work=work, out=out, on_progress=on_progress)


@contextmanager
def _loading() -> Iterator[None]:
    """The environment to load torch and transformers in.

    Models are folders here, so nothing is looked up on the hub or reported to it. A waiting OpenMP thread spins
    for some microseconds and then sleeps: without the spin a step takes a third longer, and spinning on, on cores
    that others use too, makes it four times slower.
    And the garbage collector rests: what is loaded stays, and looking through it takes a fifth of the time.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
