"""Real training at toy size: what is learned, what the loss is, and that equal work gives equal bytes."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.errors import GiveUp, InvalidInput, Retry
from soda_jobs.training import InitSettings, LoraSettings, TrainResult, TrainSettings, init_model, train

SHAPE = InitSettings(layers=2, width=64, heads=2, vocab_size=400, context_length=160, seed=5)
OUT_FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "history.jsonl",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
]


def question(number: int) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "Answer with code."},
        {"role": "user", "content": f"Add {number * 37 % 100} to x."},
    ]


def answer(number: int) -> str:
    return f"def f(x):\n    return x + {number * 37 % 100}\n"


def sft_rows(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{n}", "prompt": question(n), "response": answer(n)} for n in range(count)]


def preference_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"q{n}", "prompt": question(n), "chosen": answer(n), "rejected": answer(n).replace("+", "-")}
        for n in range(count)
    ]


def sft_settings(**changes: Any) -> TrainSettings:
    defaults = {"learning_rate": 3e-3, "epochs": 1, "batch_size": 4, "max_length": 96, "threads": 1, "seed": 7}
    return TrainSettings(objective="sft", **{**defaults, **changes})


def preference_settings(**changes: Any) -> TrainSettings:
    defaults = {"learning_rate": 3e-4, "epochs": 1, "batch_size": 4, "max_length": 96, "threads": 1, "seed": 7}
    return TrainSettings(objective="preference", **{**defaults, **changes})


def quiet(step: int, steps: int, measured: dict[str, float]) -> None:
    """A progress callback that says nothing."""


def fit(
    settings: TrainSettings,
    rows: list[dict[str, Any]],
    base: Path,
    folder: Path,
    *,
    reference: Path | None = None,
    on_progress: Callable[[int, int, dict[str, float]], None] = quiet,
) -> TrainResult:
    """Train into `folder`/out with `folder`/work."""
    return train(
        settings,
        rows,
        base=base,
        reference=reference,
        work=folder / "work",
        out=folder / "out",
        on_progress=on_progress,
    )


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def log_probability(folder: Path, prompt: list[dict[str, str]], response: str) -> tuple[float, int]:
    """Sum of log S(token) over the response and its end, written out by hand, and how many tokens that is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    before = tokenizer(text, add_special_tokens=False)["input_ids"]
    after = [*tokenizer(response, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0]
    logs = torch.log_softmax(logits.double(), dim=-1)
    total = sum(logs[len(before) + place - 1, token].item() for place, token in enumerate(after))
    return total, len(after)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    texts = [message["content"] for n in range(50) for message in question(n)] + [answer(n) for n in range(50)]
    init_model(SHAPE, texts, folder)
    return folder


@pytest.fixture(scope="module")
def memorised(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    folder = tmp_path_factory.mktemp("memorised")
    settings = sft_settings(epochs=80, batch_size=8, learning_rate=1e-2)
    return folder / "out", fit(settings, sft_rows(8), base, folder)


def test_student_has_the_shape_asked_for_and_equal_bytes_every_time(base: Path, tmp_path: Path) -> None:
    texts = [message["content"] for n in range(50) for message in question(n)] + [answer(n) for n in range(50)]
    facts = init_model(SHAPE, texts, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"]) == (2, 64, 2)
    assert config["vocab_size"] == facts["vocabulary"] <= 400
    assert digests(tmp_path) == digests(base)
    other = SHAPE.model_copy(update={"seed": 6})
    init_model(other, texts, tmp_path / "other")
    assert digests(tmp_path / "other")["model.safetensors"] != digests(base)["model.safetensors"]


def test_default_student_has_about_two_million_parameters(tmp_path: Path) -> None:
    words = " ".join(f"w{a:x}{b:x}" for a in range(40) for b in range(40))
    facts = init_model(InitSettings(), [words, words], tmp_path)
    assert 1.8e6 < facts["parameters"] < 2.0e6


def test_tokenizer_is_lossless_and_reads_digits_one_by_one(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    for text in [
        "  def f(x):\n\treturn  x+1234 \n\n",
        "é漢字🙂 \x00 <b>",
        "\r\n    if a:\n        b\n",
        "a_b2 c3d",
    ]:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert [tokenizer.decode(token) for token in tokenizer("1234")["input_ids"]] == ["1", "2", "3", "4"]
    assert "ĊĠĠĠĠ" in tokenizer.tokenize("def f(x):\n    return x")


def test_chat_template_costs_one_token_a_turn_and_ends_the_answer(base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    chat = [*question(1), {"role": "assistant", "content": "x"}]
    asked = tokenizer.apply_chat_template(chat[:2], add_generation_prompt=True, tokenize=False)
    assert asked == "<|bos|><|system|>Answer with code.<|user|>Add 37 to x.<|assistant|>"
    assert tokenizer.apply_chat_template(chat, tokenize=False) == asked + "x<|eos|>"


def test_student_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="texts"):
        init_model(SHAPE, ["", ""], tmp_path)


def test_fine_tuning_memorises_eight_answers(memorised: tuple[Path, TrainResult]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, result = memorised
    assert result.steps == 80
    assert result.history[0]["loss"] > 4
    assert result.metrics["loss"] == result.history[-1]["loss"] < 0.05
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    for number in range(8):
        text = tokenizer.apply_chat_template(question(number), add_generation_prompt=True, tokenize=False)
        prompt = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        written = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=40)[0]
        assert tokenizer.decode(written[prompt.shape[1] :], skip_special_tokens=True) == answer(number)
        assert written[-1] == tokenizer.eos_token_id


def test_fine_tuning_loss_is_the_mean_over_response_tokens_only(base: Path, tmp_path: Path) -> None:
    rows = [{**row, "response": row["response"] * (1 + n % 2)} for n, row in enumerate(sft_rows(4))]
    result = fit(sft_settings(micro_batch_size=2), rows, base, tmp_path)
    logs = [log_probability(base, row["prompt"], row["response"]) for row in rows]
    by_hand = -sum(total for total, _ in logs) / sum(count for _, count in logs)
    assert result.history[0]["loss"] == pytest.approx(by_hand, abs=1e-5)


def test_preference_loss_equals_the_formula(
    base: Path, memorised: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    policy, rows = memorised[0], preference_rows(4)
    settings = preference_settings(beta=0.3, micro_batch_size=2)
    result = fit(settings, rows, policy, tmp_path, reference=base)
    losses, margins = [], []
    for row in rows:
        ratio = {
            side: log_probability(policy, row["prompt"], row[side])[0]
            - log_probability(base, row["prompt"], row[side])[0]
            for side in ("chosen", "rejected")
        }
        margins.append(0.3 * (ratio["chosen"] - ratio["rejected"]))
        losses.append(math.log1p(math.exp(-margins[-1])))
    assert result.history[0]["loss"] == pytest.approx(sum(losses) / 4, abs=1e-5)
    assert result.history[0]["margin"] == pytest.approx(sum(margins) / 4, abs=1e-4)


def test_preference_tuning_raises_the_margin_over_the_reference(
    memorised: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    start, rows = memorised[0], preference_rows(8)
    result = fit(preference_settings(epochs=6), rows, start, tmp_path, reference=start)
    assert result.history[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert result.history[0]["margin"] == pytest.approx(0, abs=1e-5)
    assert result.history[-1]["margin"] > 0.1
    for row in rows:
        gain = {
            side: log_probability(tmp_path / "out", row["prompt"], row[side])[0]
            - log_probability(start, row["prompt"], row[side])[0]
            for side in ("chosen", "rejected")
        }
        assert gain["chosen"] > gain["rejected"]


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
def test_learning_rate_warms_up_and_follows_its_schedule(
    schedule: str, middle: float, base: Path, tmp_path: Path
) -> None:
    settings = sft_settings(schedule=schedule, warmup_ratio=0.2, learning_rate=1e-3, batch_size=1)
    rates = [entry["learning_rate"] for entry in fit(settings, sft_rows(10), base, tmp_path).history]
    assert rates[:3] == pytest.approx([0.0, 5e-4, 1e-3])
    assert rates[6] == pytest.approx(middle * 1e-3)
    assert (rates[9] == pytest.approx(1e-3)) == (schedule == "constant")


@pytest.mark.parametrize("objective", ["sft", "preference"])
def test_micro_batches_change_speed_and_not_the_result(
    objective: str, base: Path, memorised: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    def losses(micro: int) -> list[float]:
        folder = tmp_path / str(micro)
        if objective == "sft":
            settings = sft_settings(batch_size=6, micro_batch_size=micro)
            return [entry["loss"] for entry in fit(settings, sft_rows(15), base, folder).history]
        settings = preference_settings(batch_size=6, micro_batch_size=micro)
        result = fit(settings, preference_rows(15), memorised[0], folder, reference=base)
        return [entry["loss"] for entry in result.history]

    assert losses(6) == pytest.approx(losses(1), abs=1e-4)


@pytest.mark.parametrize("objective", ["sft", "preference"])
def test_two_runs_write_the_same_bytes_and_no_path(objective: str, base: Path, tmp_path: Path) -> None:
    def write(folder: Path) -> dict[str, str]:
        shutil.copytree(base, folder / "base")
        if objective == "sft":
            fit(sft_settings(), sft_rows(9), folder / "base", folder)
        else:
            fit(preference_settings(), preference_rows(9), folder / "base", folder, reference=folder / "base")
        return digests(folder / "out")

    first = write(tmp_path / "first")
    assert write(tmp_path / "second") == first
    assert sorted(first) == OUT_FILES
    for path in (tmp_path / "first" / "out").iterdir():
        assert os.fsencode(tmp_path.name) not in path.read_bytes()


def test_lora_trains_and_is_merged_into_plain_weights(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    settings = sft_settings(lora=LoraSettings(rank=4, alpha=8, dropout=0.1), epochs=5, learning_rate=2e-2)
    result = fit(settings, sft_rows(8), base, tmp_path)
    assert result.history[-1]["loss"] < result.history[0]["loss"] - 0.3
    new, old = load_file(tmp_path / "out" / "model.safetensors"), load_file(base / "model.safetensors")
    assert sorted(new) == sorted(old)
    changed = [name for name in new if not new[name].equal(old[name])]
    assert changed
    assert all("_proj" in name for name in changed)


def test_long_rows_are_cut_or_dropped_and_counted(base: Path, tmp_path: Path) -> None:
    rows = sft_rows(6)
    rows[1]["response"] *= 20
    rows[2]["prompt"] = [{"role": "user", "content": "long " * 100}]
    result = fit(sft_settings(), rows, base, tmp_path)
    counts = {name: value for name, value in result.metrics.items() if name.startswith("rows")}
    assert counts == {"rows": 6, "rows_used": 5, "rows_truncated": 1, "rows_dropped_prompt_too_long": 1}


def test_identical_answers_are_dropped_and_counted(base: Path, tmp_path: Path) -> None:
    rows = preference_rows(5)
    rows[3]["rejected"] = rows[3]["chosen"]
    result = fit(preference_settings(), rows, base, tmp_path, reference=base)
    assert (result.metrics["rows_used"], result.metrics["rows_dropped_identical"]) == (4, 1)


def test_plain_text_prompts_are_taken_as_they_are(base: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1=", "response": str(n + 1)} for n in range(4)]
    result = fit(sft_settings(), rows, base, tmp_path)
    assert result.tokens == sum(len(row["prompt"]) + len(row["response"]) + 1 for row in rows)


@pytest.mark.parametrize(
    ("settings", "rows", "with_reference", "field"),
    [
        (sft_settings(max_length=500), sft_rows(4), False, "max_length"),
        (sft_settings(micro_batch_size=3), sft_rows(4), False, "micro_batch_size"),
        (sft_settings(precision="fp16"), sft_rows(4), False, "precision"),
        (sft_settings(), sft_rows(4), True, "reference"),
        (preference_settings(), preference_rows(4), False, "reference"),
        (preference_settings(), sft_rows(4), True, "rows.chosen"),
        (sft_settings(max_length=8), sft_rows(4), False, "rows"),
        (sft_settings(), [], False, "rows"),
    ],
)
def test_what_cannot_work_is_refused_by_field(
    settings: TrainSettings,
    rows: list[dict[str, Any]],
    with_reference: bool,
    field: str,
    base: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        fit(settings, rows, base, tmp_path, reference=base if with_reference else None)
    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"{field}: ")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"config\.json"):
        fit(sft_settings(), sft_rows(4), tmp_path / "nowhere", tmp_path)


def test_a_loss_that_is_not_finite_names_step_and_rows(base: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    poisoned = tmp_path / "poisoned"
    shutil.copytree(base, poisoned)
    model = AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=False)
    model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.lm_head.weight))
    bad = AutoTokenizer.from_pretrained(base)("Z")["input_ids"]
    with torch.no_grad():
        model.model.embed_tokens.weight[bad] = float("nan")
    model.save_pretrained(poisoned)
    rows = sft_rows(16)
    rows[11]["response"] += "Z"
    with pytest.raises(GiveUp, match="loss of training step") as refusal:
        fit(sft_settings(micro_batch_size=2), rows, poisoned, tmp_path)
    named = re.findall(r"q\d+", str(refusal.value))
    assert "q11" in named
    assert len(named) == 2


def test_sigterm_leaves_a_checkpoint_and_the_rest_follows(base: Path, tmp_path: Path) -> None:
    settings = sft_settings(checkpoint_steps=100)
    undisturbed = fit(settings, sft_rows(24), base, tmp_path / "undisturbed")

    def stop_at_three(step: int, steps: int, measured: dict[str, float]) -> None:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Retry, match="of 6"):
        fit(settings, sft_rows(24), base, tmp_path / "stopped", on_progress=stop_at_three)
    assert not (tmp_path / "stopped" / "out").exists()
    steps: list[int] = []
    resumed = fit(
        settings, sft_rows(24), base, tmp_path / "stopped", on_progress=lambda step, *_: steps.append(step)
    )
    assert steps[0] in (4, 5)
    assert resumed == undisturbed
    assert digests(tmp_path / "stopped" / "out") == digests(tmp_path / "undisturbed" / "out")


KILLED = """
import json, os, signal, sys
from pathlib import Path
from soda_jobs.training import TrainSettings, train

def die(step, steps, measured):
    if step == 8:
        os.kill(os.getpid(), signal.SIGKILL)

task = json.loads(sys.stdin.read())
reference = task["reference"] and Path(task["reference"])
train(TrainSettings.model_validate(task["settings"]), task["rows"], base=Path(task["base"]), reference=reference,
      work=Path(task["work"]), out=Path(task["out"]), on_progress=die)
"""


@pytest.mark.parametrize("objective", ["sft", "preference"])
def test_kill_nine_in_the_middle_changes_no_byte(objective: str, base: Path, tmp_path: Path) -> None:
    if objective == "sft":
        settings, rows, reference = sft_settings(checkpoint_steps=3), sft_rows(48), None
    else:
        settings, rows, reference = preference_settings(checkpoint_steps=3), preference_rows(48), base
    killed, home = tmp_path / "killed", tmp_path / "home"
    home.mkdir()
    task = {
        "settings": settings.model_dump(),
        "rows": rows,
        "base": str(base),
        "reference": reference and str(reference),
        "work": str(killed / "work"),
        "out": str(killed / "out"),
    }
    surroundings = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        env=surroundings,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert process.stdout == process.stderr == ""
    assert list(home.rglob("*")) == []
    torn = killed / "work" / "checkpoint-9"
    shutil.copytree(killed / "work" / "checkpoint-6", torn)
    (torn / "complete.json").unlink()
    steps: list[int] = []
    resumed = fit(
        settings, rows, base, killed, reference=reference, on_progress=lambda step, *_: steps.append(step)
    )
    assert steps == [7, 8, 9, 10, 11, 12]
    assert resumed == fit(settings, rows, base, tmp_path / "undisturbed", reference=reference)
    assert digests(killed / "out") == digests(tmp_path / "undisturbed" / "out")


TOGETHER = """
import json, sys
from pathlib import Path
from soda_jobs.training import TrainSettings, train

for task in json.loads(Path("tasks.json").read_text()):
    reference = task["reference"] and Path(task["reference"])
    train(TrainSettings.model_validate(task["settings"]), task["rows"],
          base=Path(task["base"]), reference=reference, on_progress=lambda *_: None,
          work=Path(task["name"], "work"), out=Path(task["name"], "out"))
"""


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(
    base: Path, memorised: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    cut: dict[str, Any] = {"batch_size": 6, "epochs": 2, "micro_batch_size": 3}
    tasks = [
        ("sft", sft_settings(**cut), sft_rows(10), base, None),
        ("preference", preference_settings(**cut), preference_rows(10), memorised[0], base),
    ]
    written = [
        {
            "name": name,
            "settings": settings.model_dump(),
            "rows": rows,
            "base": str(start),
            "reference": reference and str(reference),
        }
        for name, settings, rows, start, reference in tasks
    ]
    (tmp_path / "tasks.json").write_text(json.dumps(written))
    (tmp_path / "together.py").write_text(TOGETHER)
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "together.py"]
    subprocess.run([sys.executable, "-m", *command], cwd=tmp_path, check=True, capture_output=True)
    for name, settings, rows, start, reference in tasks:
        one = fit(settings, rows, start, tmp_path / "one" / name, reference=reference)
        lines = (tmp_path / name / "out" / "history.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        assert losses == pytest.approx([entry["loss"] for entry in one.history], abs=1e-4)
        assert sorted(digests(tmp_path / name / "out")) == OUT_FILES


def test_a_checkpoint_of_other_rows_is_not_resumed(base: Path, tmp_path: Path) -> None:
    fit(sft_settings(checkpoint_steps=2), sft_rows(16), base, tmp_path)
    shutil.rmtree(tmp_path / "out")
    rows = [{**row, "response": "pass\n"} for row in sft_rows(16)]
    steps: list[int] = []
    fit(sft_settings(checkpoint_steps=2), rows, base, tmp_path, on_progress=lambda step, *_: steps.append(step))
    assert steps == [1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["checkpoint-4"]
