"""Rows of text in, token ids out, cut to length and counted.

A prompt is rendered through the tokenizer's chat template (a plain text prompt is taken as it is), and the
response's tokens and the end-of-sequence token follow it. Prompt and response are tokenized apart, so the ids the
model is trained on are the ids it sees and writes when it answers. Only the response and its end carry loss.

    too long     prompt + response > max_length: the response's tail, with its end, is cut, counted "truncated"
    no room      prompt >= max_length: the row is dropped, counted "dropped_prompt_too_long"
    no contrast  a preference row whose two answers are the same tokens: dropped, counted "dropped_identical"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput
from soda_jobs.training.settings import TrainSettings

IGNORED: Final = -100  # the label that torch's cross-entropy leaves out
ANSWERS: Final = {"sft": ("response",), "preference": ("chosen", "rejected")}


@dataclass(frozen=True)
class Examples:
    """Kept rows in the order they came: their prompts' ids, and for each answer its ids.

    `names[i]` is what row i is called in messages. `counts` has rows, rows_used, rows_truncated, rows_dropped_*.
    """

    prompts: list[list[int]]
    answers: list[list[list[int]]]
    names: list[str]
    counts: dict[str, int]

    def padded_lengths(self) -> list[int]:
        """Tokens of each row's longest sequence: what decides its padding."""
        longest = [max(map(len, row)) for row in zip(*self.answers, strict=True)]
        return [len(prompt) + answer for prompt, answer in zip(self.prompts, longest, strict=True)]

    def tokens(self) -> list[int]:
        """Tokens of each row that go through the model, padding left out."""
        return [
            sum(len(prompt) + len(answer) for answer in row)
            for prompt, *row in zip(self.prompts, *self.answers, strict=True)
        ]

    def columns(self) -> dict[str, list[Any]]:
        """What TRL's collators read: `input_ids` and `labels`, or `prompt_ids`, `chosen_ids`, `rejected_ids`."""
        row = list(range(len(self.prompts)))
        if len(self.answers) == 1:
            pairs = list(zip(self.prompts, self.answers[0], strict=True))
            return {
                "row": row,
                "input_ids": [prompt + answer for prompt, answer in pairs],
                "labels": [[IGNORED] * len(prompt) + answer for prompt, answer in pairs],
            }
        chosen, rejected = self.answers
        return {"row": row, "prompt_ids": self.prompts, "chosen_ids": chosen, "rejected_ids": rejected}


def tokenize_rows(settings: TrainSettings, rows: Sequence[Mapping[str, Any]], tokenizer: Any) -> Examples:
    """Tokenize, cut to `settings.max_length` and count. Raises InvalidInput when no row is left."""
    fields = ANSWERS[settings.objective]
    _check_fields(settings.objective, rows)
    prompts = _prompt_ids([row["prompt"] for row in rows], tokenizer)
    answers = [_answer_ids([row[field] for row in rows], tokenizer) for field in fields]
    counts = {"rows": len(rows), "rows_used": 0, "rows_truncated": 0, "rows_dropped_prompt_too_long": 0}
    if settings.objective == "preference":
        counts["rows_dropped_identical"] = 0
    examples = Examples([], [[] for _ in fields], [], counts)
    for number, (prompt, *texts) in enumerate(zip(prompts, *answers, strict=True)):
        room = settings.max_length - len(prompt)
        if room <= 0:
            counts["rows_dropped_prompt_too_long"] += 1
            continue
        cut = [ids[:room] for ids in texts]
        if len(cut) == 2 and cut[0] == cut[1]:
            counts["rows_dropped_identical"] += 1
            continue
        counts["rows_used"] += 1
        counts["rows_truncated"] += cut != texts
        examples.prompts.append(prompt)
        for column, ids in zip(examples.answers, cut, strict=True):
            column.append(ids)
        examples.names.append(str(rows[number].get("id", number)))
    if not examples.prompts:
        dropped = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InvalidInput(
            f"no row is left to train on ({dropped}, max_length {settings.max_length})", field="rows"
        )
    return examples


def _check_fields(objective: str, rows: Sequence[Mapping[str, Any]]) -> None:
    wanted = ("prompt", *ANSWERS[objective])
    for number, row in enumerate(rows):
        for field in wanted:
            value = row.get(field)
            if isinstance(value, str) or (field == "prompt" and isinstance(value, list) and value):
                continue
            accepted = "text or a list of messages" if field == "prompt" else "text"
            raise InvalidInput(
                f"row {row.get('id', number)} has {value!r}, not {accepted}; {objective} rows have "
                + ", ".join(wanted),
                field=f"rows.{field}",
            )


def _prompt_ids(prompts: Sequence[Any], tokenizer: Any) -> list[list[int]]:
    chats = [number for number, prompt in enumerate(prompts) if not isinstance(prompt, str)]
    plain = [number for number, prompt in enumerate(prompts) if isinstance(prompt, str)]
    ids: list[list[int]] = [[] for _ in prompts]
    rendered = [
        tokenizer.apply_chat_template(list(prompts[number]), add_generation_prompt=True, tokenize=False)
        for number in chats
    ]
    for numbers, texts, special in ((chats, rendered, False), (plain, [prompts[n] for n in plain], True)):
        if texts:
            encoded = tokenizer(texts, add_special_tokens=special, verbose=False)["input_ids"]
            for number, row in zip(numbers, encoded, strict=True):
                ids[number] = row
    return ids


def _answer_ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [[*row, tokenizer.eos_token_id] for row in encoded]
