"""How models are trained: optimisation of each kind of training, and the machines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from soda_jobs.spec.base import Block

LearningRate = Annotated[float, Field(gt=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
SequenceLength = Annotated[int, Field(ge=16, le=1_048_576)]


class Optimisation(Block):
    """What every kind of training has: AdamW over batches of whole sequences."""

    learning_rate: LearningRate
    """Peak learning rate."""
    epochs: Epochs = 3
    """Passes over the data. Default: SODA 4.6."""
    batch_size: BatchSize = 512
    """Sequences in one optimizer step, over all devices and accumulation steps. Default: SODA 4.6."""
    micro_batch_size: BatchSize | None = None
    """Sequences on one device at once; must divide `batchSize`. Null: found from `batchSize`. It changes memory
    and speed, not what is optimised."""
    max_length: SequenceLength = 2048
    """Longest sequence in tokens, prompt and answer together; longer ones are cut. Default: SODA 4.6."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Course of the learning rate after warm-up. Default: SODA 4.6."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the steps in which the learning rate rises from 0. SODA gives none; 0.03 is the practice of
    Stanford Alpaca, whose recipe code instruction tuning has kept."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """AdamW's decoupled weight decay. SODA gives none; default: LLaMA-Factory and TRL."""
    max_grad_norm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Gradients are scaled down to this norm. SODA gives none; default: LLaMA-Factory and TRL."""
    adam_beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of AdamW's second moment. Lower learns faster in a short run from nothing. Default: PyTorch."""
    checkpoint_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Optimizer steps between two checkpoints from which a killed training resumes. It changes no result."""


class SftTraining(Optimisation):
    """Correct-solution learning: supervised fine-tuning on the teacher's correct solutions (SODA 3.2, Eq. 1)."""

    learning_rate: LearningRate = 2e-5
    """Peak learning rate. Default: SODA 4.6."""


class PreferenceTraining(Optimisation):
    """Fault-contrastive learning: DPO of correct against faulty solutions (SODA 3.2, Eq. 2). The reference is the
    checkpoint that supervised fine-tuning left in the same round."""

    learning_rate: LearningRate = 5e-7
    """Peak learning rate. Default: SODA 4.6."""
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    """How strongly the student is held to the reference. SODA gives none; default: LLaMA-Factory and TRL."""


class JudgeTraining(Optimisation):
    """Training of the scoring model on the teacher's judgements of student answers (SODA 3.3.1, 4.6)."""

    samples: Annotated[int, Field(ge=1, le=1_000_000)] = 15_000
    """Student answers of the first round that the teacher judges, drawn at random. Default: SODA 4.6."""
    learning_rate: LearningRate = 4e-5
    """Peak learning rate. Default: SODA 4.6."""
    batch_size: BatchSize = 256
    """Sequences in one optimizer step. Default: SODA 4.6."""
    retrain_every_round: bool = False
    """Annotate and train again in every round. Default: SODA trains the scoring model once."""


class Lora(Block):
    """Low-rank adapters on every linear layer instead of full tuning, which SODA does. The report says so."""

    rank: Annotated[int, Field(ge=1, le=1024)] = 64
    """Rank of the adapters."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 128
    """Scale of the adapters; they are multiplied by alpha / rank. Default: twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the adapters. Default: PEFT."""


class Training(Block):
    """Training of the student (and of the judge, on the same machines)."""

    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Machines that train together."""
    gpus_per_node: Annotated[int, Field(ge=0, le=16)] = 1
    """GPUs of each machine; 0 trains on the CPU."""
    strategy: Literal["single", "ddp", "zero1", "zero2", "zero3", "fsdp"] = "single"
    """How the devices share the work: `single` for one device, `ddp` copies the model, `zero1` to `zero3`
    (DeepSpeed) and `fsdp` (PyTorch) split optimizer, gradients and weights."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format. `auto`: bf16 where the GPU has it, else fp16 (which SODA used on V100); fp32 on a CPU."""
    sft: SftTraining = SftTraining()
    """Correct-solution learning."""
    preference: PreferenceTraining = PreferenceTraining()
    """Fault-contrastive learning."""
    lora: Lora | None = None
    """Train adapters instead of all weights. Null: full tuning, as SODA."""
    restart_from_base: bool = False
    """Start every round from the untouched student instead of the last round's checkpoint. SODA continues."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: less memory, about a quarter slower. Default: TRL."""

    @property
    def devices(self) -> int:
        """Training processes: one for each GPU, or one on the CPU."""
        return max(1, self.nodes * self.gpus_per_node)
