"""One training from start to end: check, tokenize, resume, run, write. See `soda_jobs.training.train`."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PrinterCallback
from trl import DPOConfig, SFTConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from soda_jobs.errors import Retry
from soda_jobs.records import canonical, write_rows
from soda_jobs.training import checkpoints
from soda_jobs.training.batches import count_steps, draw_rows, micro_batch_size
from soda_jobs.training.folder import check_fit, load_tokenizer, write_model
from soda_jobs.training.quiet import silence
from soda_jobs.training.settings import TrainResult, TrainSettings
from soda_jobs.training.tokens import Examples, tokenize_rows
from soda_jobs.training.trainers import FineTuner, PreferenceTuner, Watch, WithRows, Work, measurements

HISTORY: Final = "history.jsonl"
# Our names of the learning rate's course after warm-up, and transformers' (whose "constant" has no warm-up).
SCHEDULES: Final = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}


def run(
    settings: TrainSettings,
    rows: Sequence[Mapping[str, Any]],
    *,
    base: Path,
    reference: Path | None,
    work: Path,
    out: Path,
    on_progress: Callable[[int, int, dict[str, float]], None],
) -> TrainResult:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    silence()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    precision = check_fit(settings, base, reference, device)
    tokenizer = load_tokenizer(base)
    with stop_on_sigterm() as stopped, warnings.catch_warnings():
        # TRL and PEFT still ask transformers for it by the old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        examples = tokenize_rows(settings, rows, tokenizer)
        plan = plan_work(settings, rows, examples)
        trainer = make_trainer(
            settings, examples, plan, tokenizer, base=base, reference=reference, work=work, precision=precision
        )
        trainer.add_callback(Watch(lambda: _any_process(trainer, stopped), on_progress))
        if trainer.is_world_process_zero():
            checkpoints.prune(work, plan.digest, settings.keep_checkpoints)  # what a death or other rows left
        checkpoint = checkpoints.newest(work, plan.digest)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    done, steps = trainer.state.global_step, trainer.state.max_steps
    if done < steps:
        raise Retry(f"training was asked to stop; it goes on from the checkpoint at step {done} of {steps}")
    history = [{"step": log["step"], **measurements(log)} for log in trainer.state.log_history if "loss" in log]
    if trainer.is_world_process_zero():
        write_model(trainer.model, base, out)
        write_rows(out / HISTORY, history)
    trainer.accelerator.wait_for_everyone()
    tokens = examples.tokens()
    metrics = {name: float(count) for name, count in examples.counts.items()}
    last = {name: value for name, value in history[-1].items() if name not in ("step", "learning_rate")}
    return TrainResult(steps, sum(tokens[row] for row in plan.order), history, metrics | last)


def plan_work(settings: TrainSettings, rows: Sequence[Mapping[str, Any]], examples: Examples) -> Work:
    """Rows of every step, and a digest of everything that decides them."""
    lengths = examples.padded_lengths()
    steps = count_steps(len(lengths), settings.epochs, settings.batch_size)
    digest = hashlib.sha256(canonical(settings.model_dump()))
    for row in rows:
        digest.update(canonical(dict(row)))
    return Work(
        order=draw_rows(lengths, steps=steps, batch_size=settings.batch_size, seed=settings.seed),
        steps=steps,
        lengths=lengths,
        names=examples.names,
        digest=digest.hexdigest(),
        keep_checkpoints=settings.keep_checkpoints,
    )


def make_trainer(
    settings: TrainSettings,
    examples: Examples,
    plan: Work,
    tokenizer: Any,
    *,
    base: Path,
    reference: Path | None,
    work: Path,
    precision: str,
) -> Any:
    """TRL's trainer for the objective, with the model loaded in 32 bit: the optimizer needs the low bits."""
    arguments = _arguments(settings, plan, work, precision, longest=max(plan.lengths))
    dataset = Dataset.from_dict(examples.columns())
    common = {
        "plan": plan,
        "model": _load(base),
        "train_dataset": dataset,
        "processing_class": tokenizer,
        "peft_config": _adapters(settings),
    }
    pad = tokenizer.pad_token_id
    trainer: Any
    if settings.objective == "sft":
        config = SFTConfig(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
        collator = WithRows(DataCollatorForLanguageModeling(pad_token_id=pad))
        trainer = FineTuner(**common, args=config, data_collator=collator)
    else:
        config = DPOConfig(
            **arguments, max_length=None, loss_type=["sigmoid"], beta=settings.beta, precompute_ref_log_probs=True
        )
        frozen = _load(reference) if reference is not None and reference.resolve() != base.resolve() else None
        collator = WithRows(DataCollatorForPreference(pad_token_id=pad))
        trainer = PreferenceTuner(**common, args=config, data_collator=collator, ref_model=frozen)
        trainer.ref_model = None  # its log-probabilities are columns now
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(settings: TrainSettings, plan: Work, work: Path, precision: str, *, longest: int) -> dict[str, Any]:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cpu = not torch.cuda.is_available()
    micro = micro_batch_size(
        settings.batch_size,
        settings.micro_batch_size,
        processes=processes,
        device="cpu" if cpu else "cuda",
        tokens_per_row=longest * (1 if settings.objective == "sft" else 2),
    )
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": settings.batch_size // processes // micro,
        "max_steps": plan.steps,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": SCHEDULES[settings.schedule],
        "warmup_steps": settings.warmup_ratio,  # below 1 it is a share of the steps
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "adam_beta2": settings.adam_beta2,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "activation_checkpointing": settings.gradient_checkpointing,
        "seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": settings.checkpoint_steps,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": cpu,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": not cpu,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
    }


def _load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def _adapters(settings: TrainSettings) -> Any:
    if settings.lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        target_modules="all-linear",
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
    )


def _any_process(trainer: Any, stopped: threading.Event) -> bool:
    """True on every process once one was asked to stop, so that all leave after the same step."""
    if trainer.accelerator.num_processes == 1:
        return stopped.is_set()
    if stopped.is_set():
        trainer.accelerator.set_trigger()
    return bool(trainer.accelerator.check_trigger())


@contextmanager
def stop_on_sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets. Outside the main thread, where Python allows no handler, it is never set."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def note(signum: int, frame: FrameType | None) -> None:
        stopped.set()

    before = signal.signal(signal.SIGTERM, note)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGTERM, before)
