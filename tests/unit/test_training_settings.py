"""What decides a training without torch: settings, which rows a step sees, and which checkpoints count."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from soda_jobs.errors import InvalidInput
from soda_jobs.training import InitSettings, TrainSettings, checkpoints
from soda_jobs.training.batches import count_steps, draw_rows, micro_batch_size


def test_importing_the_package_loads_no_torch() -> None:
    script = (
        "import sys, soda_jobs.training, soda_jobs.training.settings\n"
        "print([name for name in ('torch', 'transformers', 'trl', 'datasets', 'peft') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_defaults_are_the_papers() -> None:
    settings = TrainSettings(objective="preference", learning_rate=5e-7)
    assert (settings.epochs, settings.batch_size, settings.max_length) == (3.0, 512, 2048)
    assert (settings.beta, settings.weight_decay, settings.warmup_ratio, settings.max_grad_norm) == (
        0.1,
        0,
        0.03,
        1.0,
    )


def test_json_round_trip_keeps_settings() -> None:
    settings = TrainSettings.model_validate(
        {"objective": "sft", "learning_rate": 2e-5, "lora": {"rank": 8, "alpha": 16, "dropout": 0.05}}
    )
    assert TrainSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "dpo"},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"epochs": 0},
        {"schedule": "polynomial"},
        {"beta": -0.1},
        {"warmup_ratio": 1.0},
        {"strategy": "single"},
        {"lora": {"rank": 0}},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings.model_validate({"objective": "sft", "learning_rate": 2e-5, **change})


@pytest.mark.parametrize(
    "change", [{"width": 100, "heads": 3}, {"kv_heads": 3}, {"vocab_size": 256}, {"layers": 0}]
)
def test_impossible_shapes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        InitSettings.model_validate(change)


@pytest.mark.parametrize(
    ("rows", "epochs", "batch_size", "steps"),
    [(88_000, 3.0, 512, 516), (22_000, 3.0, 512, 129), (3, 0.1, 32, 1), (30, 0.1, 3, 1), (32, 2.0, 32, 2)],
)
def test_steps_match_the_paper_and_have_no_rounding_errors(
    rows: int, epochs: float, batch_size: int, steps: int
) -> None:
    assert count_steps(rows, epochs, batch_size) == steps


def test_every_pass_draws_each_row_once() -> None:
    order = draw_rows([1] * 10, steps=5, batch_size=6, seed=3)
    assert Counter(order) == {row: 3 for row in range(10)}


def test_order_follows_the_seed_and_prefixes_do_not_depend_on_the_length() -> None:
    lengths = [row % 7 for row in range(50)]
    short = draw_rows(lengths, steps=3, batch_size=8, seed=1)
    assert draw_rows(lengths, steps=20, batch_size=8, seed=1)[:24] == short
    assert draw_rows(lengths, steps=3, batch_size=8, seed=2) != short


def test_a_batch_is_sorted_by_length_without_changing_its_rows() -> None:
    lengths = [(row * 13) % 17 for row in range(40)]
    order = draw_rows(lengths, steps=5, batch_size=8, seed=0)
    flat = draw_rows([1] * 40, steps=5, batch_size=8, seed=0)
    for start in range(0, 40, 8):
        batch = order[start : start + 8]
        assert sorted(batch) == sorted(flat[start : start + 8])
        assert [lengths[row] for row in batch] == sorted((lengths[row] for row in batch), reverse=True)


def test_micro_batch_fits_the_budget_and_divides_the_share() -> None:
    assert micro_batch_size(32, None, processes=1, device="cpu", tokens_per_row=150) == 8
    assert micro_batch_size(32, None, processes=2, device="cpu", tokens_per_row=5000) == 1
    assert micro_batch_size(32, 16, processes=2, device="cpu", tokens_per_row=5000) == 16


@pytest.mark.parametrize(("batch_size", "wanted", "processes"), [(32, 5, 1), (32, 32, 2), (33, None, 2)])
def test_batches_that_cannot_be_cut_evenly_are_refused(
    batch_size: int, wanted: int | None, processes: int
) -> None:
    with pytest.raises(InvalidInput):
        micro_batch_size(batch_size, wanted, processes=processes, device="cpu", tokens_per_row=10)


def _checkpoint(work: Path, step: int, *, plan: str | None = "p") -> Path:
    folder = work / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * step)
    if plan is not None:
        checkpoints.commit(folder, plan)
    return folder


def test_newest_checkpoint_counts_steps_as_numbers(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        _checkpoint(tmp_path, step)
    assert checkpoints.newest(tmp_path, "p") == tmp_path / "checkpoint-100"


def test_torn_and_foreign_checkpoints_are_not_resumed(tmp_path: Path) -> None:
    good = _checkpoint(tmp_path, 10)
    _checkpoint(tmp_path, 50, plan="other")
    _checkpoint(tmp_path, 40, plan=None)
    short = _checkpoint(tmp_path, 30)
    (short / "model.safetensors").write_bytes(b"x")
    lost = _checkpoint(tmp_path, 20)
    (lost / "model.safetensors").unlink()
    broken = _checkpoint(tmp_path, 60)
    (broken / checkpoints.MARKER).write_text("{")
    assert checkpoints.newest(tmp_path, "p") == good
    assert checkpoints.newest(tmp_path / "nothing", "p") is None


def test_prune_keeps_the_newest_whole_ones_and_other_files(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        _checkpoint(tmp_path, step)
    _checkpoint(tmp_path, 40, plan=None)
    (tmp_path / "notes.txt").write_text("mine")
    checkpoints.prune(tmp_path, "p", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-20", "checkpoint-30", "notes.txt"]


def test_marker_lists_every_file(tmp_path: Path) -> None:
    folder = _checkpoint(tmp_path, 7)
    assert json.loads((folder / checkpoints.MARKER).read_text()) == {
        "plan": "p",
        "files": {"model.safetensors": 7},
    }
