"""train: make the untouched student, teach it (SFT), or contrast right with wrong (DPO).

in   rows       sft rows {prompt, response} or preference rows {prompt, chosen, rejected}
     base       the checkpoint to start from (not for "init"); for "preference" it is also the frozen reference
     texts      rows whose text the new tokenizer learns from (only for "init")
out  a Hugging Face checkpoint folder, and history.jsonl: {"step": 10, "loss": 1.93, "learning_rate": …}

The three objectives are the three boxes of the paper's first stage: a base model, correct-solution learning
(section 3.2.1), fault-contrast learning (section 3.2.2).
"""

from __future__ import annotations

from typing import Any, Literal

from soda_jobs.context import Context, StageSettings, Summary
from soda_jobs.errors import GiveUp
from soda_jobs.training.settings import InitSettings, TrainSettings

HEADLINE = {"sft": ("loss", "token_accuracy"), "preference": ("loss", "accuracy", "margin")}


class Settings(StageSettings):
    objective: Literal["init", "sft", "preference"]
    init: InitSettings | None = None
    train: TrainSettings | None = None


def run(settings: Settings, context: Context) -> Summary:
    if settings.init is not None:
        from soda_jobs.training import init_model

        facts = init_model(settings.init, (_text(row) for row in context.rows("texts")), context.out)
        return Summary(headline=facts)

    from soda_jobs.training import train

    assert settings.train is not None, "the method gives either init or train"
    rows = list(context.rows("rows"))
    if not rows:
        raise GiveUp(f"stage {context.stage} has no rows to train on; look at what its input dropped")
    base = context.folder("base")
    result = train(
        settings.train,
        rows,
        base=base,
        reference=base if settings.objective == "preference" else None,
        work=context.work,
        out=context.out,
        on_progress=lambda step, total, facts: context.progress("steps", step, total),
    )
    dropped = {name: int(value) for name, value in result.metrics.items() if name.startswith("rows_")}
    return Summary(
        counts={"rows": len(rows), "steps": result.steps, **dropped},
        headline={name: result.metrics[name] for name in HEADLINE[settings.objective]},
        telemetry={"tokens": float(result.tokens)},
    )


def _text(row: dict[str, Any]) -> str:
    """The text of a question or a completion, whichever the row is."""
    return str(row.get("instruction") or row["text"])
