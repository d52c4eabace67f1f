"""TRL's SFT and DPO trainers, given prepared token ids, our order of rows, and whole checkpoints.

What is changed and nothing more: the dataset is taken as it is (tokens.py made it), the sampler is the list of
batches.py, a checkpoint is committed after it is written, and a loss or gradient that is not finite stops the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import DPOTrainer, SFTTrainer

from soda_jobs.errors import GiveUp
from soda_jobs.training import checkpoints


@dataclass(frozen=True)
class Work:
    """What a trainer needs to know beyond TRL's arguments.

    `order` are row positions for all steps, `names` what to call a row, `digest` the plan checkpoints carry.
    """

    order: list[int]
    steps: int
    lengths: list[int]
    names: list[str]
    digest: str
    keep_checkpoints: int


class WithRows:
    """A collator that adds each example's row position to the batch, to name it when something goes wrong."""

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch = dict(self.collate(examples))
        batch["row"] = torch.tensor([example["row"] for example in examples])
        return batch


class _Exact:
    """The changes common to both trainers; comes before TRL's class in the bases."""

    def __init__(self, *, plan: Work, **arguments: Any) -> None:
        self.plan = plan
        self._step_rows: list[int] = []
        super().__init__(**arguments)

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        return dataset

    def _get_train_sampler(self, train_dataset: Any = None) -> Sequence[int]:
        return self.plan.order

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """No README: it would carry names and versions of this machine into the output."""

    def training_step(self: Any, model: Any, inputs: dict[str, Any], *rest: Any) -> torch.Tensor:
        rows = inputs.pop("row").tolist()
        self._step_rows += rows
        loss: torch.Tensor = super().training_step(model, inputs, *rest)  # type: ignore[misc]
        if not torch.isfinite(loss):
            self._give_up("loss", loss.item(), rows)
        return loss

    def _clip_grad_norm(self: Any, model: Any) -> torch.Tensor:
        norm: torch.Tensor = super()._clip_grad_norm(model)  # type: ignore[misc]
        # Under fp16 an overflow is expected now and then: the scaler skips the step and lowers the scale.
        if self.accelerator.scaler is None and not math.isfinite(float(norm)):
            self._give_up("gradient", float(norm), self._step_rows)
        self._step_rows.clear()
        return norm

    def _give_up(self: Any, what: str, value: float, rows: Sequence[int]) -> None:
        names = ", ".join(self.plan.names[row] for row in rows)
        raise GiveUp(
            f"the {what} of training step {self.state.global_step + 1} is {value}, not a finite number; "
            f"its batch has the rows {names}; lower the learning rate or look at these rows"
        )

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            checkpoints.commit(folder, self.plan.digest)
            checkpoints.prune(folder.parent, self.plan.digest, self.plan.keep_checkpoints)


class FineTuner(_Exact, SFTTrainer):  # type: ignore[misc]
    """L = mean over the batch's response tokens of -log S(y_t | y_<t, x)  (SODA Eq. 1, prompt masked)."""


class PreferenceTuner(_Exact, DPOTrainer):  # type: ignore[misc]
    """L = -log sigmoid(beta [log S/S_ref (chosen) - log S/S_ref (rejected)]), log-probabilities summed over the
    answer's tokens without length normalisation, S_ref frozen  (SODA Eq. 2; DPO, arXiv:2305.18290, Eq. 7)."""

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        """The reference's log-probabilities as two more columns, in memory and not in a cache folder.

        Rows that no step draws are left out: less than one pass may be asked for.
        """
        by_length = sorted(set(self.plan.order), key=lambda row: (-self.plan.lengths[row], row))
        loader = self.accelerator.prepare(
            DataLoader(dataset, batch_size=batch_size, collate_fn=self.data_collator, sampler=by_length)
        )
        model = self.ref_model or self.model
        was_training = model.training
        model.eval()
        columns = {"ref_chosen_logps": [0.0] * len(dataset), "ref_rejected_logps": [0.0] * len(dataset)}
        for batch in loader:
            rows = batch.pop("row")
            answers = self.compute_ref_log_probs(model, batch)
            found = self.accelerator.gather_for_metrics((rows, *answers))
            positions, *values = (tensor.tolist() for tensor in found)
            for column, numbers in zip(columns.values(), values, strict=True):
                for position, number in zip(positions, numbers, strict=True):
                    column[position] = number
        model.train(was_training)
        for column_name, column in columns.items():
            dataset = dataset.add_column(column_name, column)
        return dataset


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports every step, and ends the run with a checkpoint at the first step after `stop` says so."""

    def __init__(self, stop: Callable[[], bool], report: Callable[[int, int, dict[str, float]], None]) -> None:
        self.stop = stop
        self.report = report

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if state.is_world_process_zero and "loss" in logs:
            self.report(state.global_step, state.max_steps, measurements(logs))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step < state.max_steps and self.stop():
            control.should_save = True
            control.should_training_stop = True


# TRL's names and ours, in the order of a history line. Rewards are beta times the log-ratio to the reference.
_MEASUREMENTS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "mean_token_accuracy": "token_accuracy",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
}


def measurements(logs: dict[str, Any]) -> dict[str, float]:
    """The part of a trainer's log that is a fact of the result: no time, no speed."""
    return {name: float(logs[key]) for key, name in _MEASUREMENTS.items() if key in logs}
