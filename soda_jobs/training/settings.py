"""What decides a training result, and nothing else: two settings blocks and the result they lead to.

Pure (pydantic and the standard library), so that a plan can be made and checked without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class InitSettings(_Settings):
    """A Llama-architecture student made from nothing. Lengths in tokens, widths in units.

    The defaults make 1.9 million parameters. `kv_heads` defaults to `heads` (no grouped queries) and
    `feed_forward` to 8/3 of the width, rounded up to a multiple of 64 (Llama, section 2.2).
    """

    architecture: Literal["llama"] = "llama"
    layers: Positive = 4
    width: Positive = 192
    heads: Positive = 4
    kv_heads: Positive | None = None
    feed_forward: Positive | None = None
    vocab_size: Annotated[int, Field(ge=300)] = 800  # 256 bytes, the special tokens and room for merges
    context_length: Annotated[int, Field(ge=8)] = 512
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _heads_divide(self) -> InitSettings:
        if self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of twice the heads ({2 * self.heads})")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"kv_heads {self.kv_heads} must divide heads ({self.heads})")
        return self


class LoraSettings(_Settings):
    """Low-rank adapters on every linear layer but the head, merged into the weights at the end."""

    rank: Positive = 64
    alpha: Positive = 128
    dropout: Share = 0.0


class TrainSettings(_Settings):
    """One optimisation: supervised fine-tuning ("sft") or DPO against a frozen reference ("preference").

    Defaults are the paper's where it gives one (docs/training.md lists the source of each). `batch_size` counts
    rows per optimizer step over all processes; `micro_batch_size` rows per forward pass of one process, and only
    trades memory for speed. `epochs` may be a fraction. `max_length` counts prompt and response tokens together.
    """

    objective: Literal["sft", "preference"]
    learning_rate: Annotated[float, Field(gt=0.0)]
    epochs: Annotated[float, Field(gt=0.0)] = 3.0
    batch_size: Positive = 512
    micro_batch_size: Positive | None = None
    max_length: Annotated[int, Field(ge=2)] = 2048
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Share = 0.03
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    adam_beta2: Share = 0.999
    beta: Annotated[float, Field(gt=0.0)] = 0.1
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = False
    lora: LoraSettings | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    checkpoint_steps: Positive = 100
    keep_checkpoints: Positive = 1
    threads: Positive | None = None


@dataclass(frozen=True)
class TrainResult:
    """Facts of a finished training: equal work gives equal values.

    `tokens` counts what went through the model, padding left out (both answers of a preference row).
    `history` has one entry per optimizer step, the lines of `history.jsonl`.
    `metrics` are counts of rows (used, truncated, dropped by reason) and the last step's measurements.
    """

    steps: int
    tokens: int
    history: list[dict[str, Any]]
    metrics: dict[str, float]
