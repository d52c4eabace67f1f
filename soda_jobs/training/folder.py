"""Model folders: does a model fit the settings, its tokenizer, and writing the trained one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoConfig, AutoTokenizer

from soda_jobs.errors import InvalidInput
from soda_jobs.training.settings import TrainSettings
from soda_jobs.training.student import template

# What a model folder has besides weights; training changes none of it, so it is copied as it is.
COMPANIONS: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template*",
)
CHAT_TEMPLATE: Final = "chat_template.jinja"


def check_fit(settings: TrainSettings, base: Path, reference: Path | None, device: str) -> str:
    """Refuse, before anything is computed, what cannot work; returns the precision to train in."""
    if settings.objective == "preference" and reference is None:
        raise InvalidInput("a preference run needs the folder of the frozen reference model", field="reference")
    if settings.objective == "sft" and reference is not None:
        raise InvalidInput(f"{reference} has no use when objective is sft; leave it out", field="reference")
    config = _config(base, "base")
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and settings.max_length > positions:
        raise InvalidInput(
            f"{settings.max_length} tokens are more than the {positions} positions of the base model",
            field="max_length",
        )
    if reference is not None:
        theirs = _config(reference, "reference").vocab_size
        if theirs != config.vocab_size:
            raise InvalidInput(
                f"the reference has {theirs} tokens in its vocabulary and the base model {config.vocab_size}; "
                "they must share one tokenizer",
                field="reference",
            )
    tokens = len(load_tokenizer(base))
    if tokens > config.vocab_size:
        raise InvalidInput(
            f"the tokenizer has {tokens} tokens and the model embeddings for {config.vocab_size}", field="base"
        )
    if device == "cuda" and torch.cuda.device_count() > 1 and not torch.distributed.is_torchelastic_launched():
        raise InvalidInput(
            f"one process sees {torch.cuda.device_count()} GPUs; start it by torchrun, one process for each, "
            "or name one in CUDA_VISIBLE_DEVICES",
            field="CUDA_VISIBLE_DEVICES",
        )
    return _precision(settings, device)


def load_tokenizer(base: Path) -> Any:
    """The folder's tokenizer, with a padding token and a chat template in any case.

    A base model such as CodeLlama has neither: rows are then padded with the end token (which carries no loss
    there), and conversations follow templates/plain.j2, which `write_model` puts beside the trained model.
    """
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    if tokenizer.eos_token_id is None:
        raise InvalidInput(f"the tokenizer in {base.name} has no end-of-sequence token", field="base")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = template("plain")
    return tokenizer


def write_model(model: Any, base: Path, out: Path) -> None:
    """Weights in the base model's own precision, and the base's companions byte for byte."""
    out.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    stored = json.loads((base / "config.json").read_text(encoding="utf-8"))
    name = stored.get("dtype") or stored.get("torch_dtype") or "float32"
    model.to(getattr(torch, name)).save_pretrained(out)
    for pattern in COMPANIONS:
        for path in sorted(base.glob(pattern)):
            shutil.copyfile(path, out / path.name)
    tokenizer = AutoTokenizer.from_pretrained(out, local_files_only=True)
    if tokenizer.chat_template is None:
        (out / CHAT_TEMPLATE).write_text(template("plain"), encoding="utf-8")


def _config(folder: Path, field: str) -> Any:
    if not (folder / "config.json").is_file():
        raise InvalidInput(f"{folder} is not a model folder: it has no config.json", field=field)
    return AutoConfig.from_pretrained(folder, local_files_only=True)


def _precision(settings: TrainSettings, device: str) -> str:
    if settings.precision != "auto":
        if settings.precision == "fp16" and device == "cpu":
            raise InvalidInput("fp16 needs a GPU; accepted on a CPU: auto, fp32, bf16", field="precision")
        return settings.precision
    if device == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
