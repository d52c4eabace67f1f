"""A student made from nothing: a byte-level BPE tokenizer learned from texts and a random Llama of a given shape.

in   texts, InitSettings
out  config.json  generation_config.json  model.safetensors  tokenizer.json  tokenizer_config.json
     chat_template.jinja
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Final

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from soda_jobs.errors import InvalidInput
from soda_jobs.training.quiet import silence
from soda_jobs.training.settings import InitSettings

PAD, BOS, EOS = "<|pad|>", "<|bos|>", "<|eos|>"
ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>")

# A line break takes the indentation after it, so that "\n    " can become one token; a digit stands alone, so that
# numbers are read digit by digit; a word takes the one space or underscore before it, so that the parts of a
# snake_case name are the words of the question; a run of signs takes the one space before it (as in GPT-2).
PIECES: Final = r"\n[\n ]*|[ _]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|[ \t]+(?=\S)|\s+"


def make_student(settings: InitSettings, texts: Iterable[str], out: Path) -> dict[str, float]:
    """See `soda_jobs.training.init_model`."""
    silence()
    tokenizer, characters, tokens = learn_tokenizer(settings, list(texts))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward or _default_feed_forward(settings.width),
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads or settings.heads,
        max_position_embeddings=settings.context_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        do_sample=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
        "vocabulary": float(len(tokenizer)),
        "bytes_per_token": characters / tokens,
    }


def learn_tokenizer(settings: InitSettings, texts: list[str]) -> tuple[PreTrainedTokenizerFast, int, int]:
    """The tokenizer, and how many bytes and tokens the texts have."""
    size = sum(len(text.encode("utf-8")) for text in texts)
    if not size:
        raise InvalidInput(f"{len(texts)} texts without a character give no vocabulary", field="texts")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocab_size,
        min_frequency=2,
        special_tokens=[PAD, BOS, EOS, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokens = sum(len(encoding.ids) for encoding in learner.encode_batch(texts, add_special_tokens=False))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learner,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        additional_special_tokens=list(ROLES),
        model_max_length=settings.context_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = template("student")
    return tokenizer, size, tokens


def template(name: str) -> str:
    """A chat template of this package, by the name of its file."""
    return resources.files("soda_jobs.training").joinpath("templates", f"{name}.j2").read_text(encoding="utf-8")


def _default_feed_forward(width: int) -> int:
    return (width * 8 // 3 + 63) // 64 * 64
