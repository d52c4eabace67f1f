"""Continuous batching on a `CpuModel`: requests in, answers out, each the same whoever else is being served.

A request waits for a free slot, its prompt is computed alone, then it decodes one token per step beside the
others. A finished request frees its slot at once.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

import torch
from torch import Tensor

from soda_jobs.models.cpu_model import CpuModel, Slots
from soda_jobs.models.cpu_protocol import Answer, Ask


@dataclass
class _Running:
    ask: Ask
    future: Future[Answer]
    ids: list[int] = field(default_factory=list)
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        # A string seed is hashed by SHA-512: the stream is the same on every machine and Python version.
        self.rng = random.Random(f"{self.ask.seed}/{self.ask.stream}")


class Engine:
    """Serves `Ask`s on a model with all its workers. `tokenizer` is used only to turn ids into text."""

    def __init__(self, model: CpuModel, tokenizer: Any, eos: frozenset[int]) -> None:
        self._workers = [_Worker(self, model) for _ in range(model.workers)]
        self.vocabulary = model.vocabulary
        self._tokenizer = tokenizer
        self._eos = eos
        self._waiting: deque[_Running] = deque()
        self._changed = Condition()

    def start(self) -> list[Future[None]]:
        """Start the workers. A future is done only if its worker died, whose traceback is then on stderr."""
        return [worker.start() for worker in self._workers]

    def submit(self, ask: Ask) -> Future[Answer]:
        """Queue a request; cancel the future to withdraw it. Safe from any thread."""
        future: Future[Answer] = Future()
        with self._changed:
            self._waiting.append(_Running(ask, future))
            self._changed.notify()
        return future

    def take(self, *, block: bool) -> _Running | None:
        """The request that has waited longest; None when there is none and `block` is false."""
        with self._changed:
            while block and not self._waiting:
                self._changed.wait()
            return self._waiting.popleft() if self._waiting else None

    def finished(self, running: _Running) -> Answer | None:
        """The answer, if the request's last token ended it."""
        ask, ids = running.ask, running.ids
        if ids[-1] in self._eos:
            return Answer(self._text(ids[:-1]), "stop", len(ids))
        if ask.stop:
            # A stop string ends in the newest token, and each of its characters takes at most four tokens.
            tail = self._text(ids[-4 * max(map(len, ask.stop)) - 8 :])
            text = self._text(ids) if any(stop in tail for stop in ask.stop) else ""
            ends = [at for stop in ask.stop if (at := text.find(stop)) >= 0]
            if ends:
                return Answer(text[: min(ends)], "stop", len(ids))
        if len(ids) >= ask.max_tokens:
            return Answer(self._text(ids), "length", len(ids))
        return None

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


class _Worker:
    """One thread with its own slots."""

    def __init__(self, engine: Engine, model: CpuModel) -> None:
        self._engine = engine
        self._model = model
        self._slots = Slots(model, model.slots)
        self._running: list[_Running | None] = [None] * model.slots

    def start(self) -> Future[None]:
        ended: Future[None] = Future()
        self._slots.warm_up()
        Thread(target=self._serve, args=(ended,), daemon=True).start()
        return ended

    def _serve(self, ended: Future[None]) -> None:
        torch.set_num_threads(self._model.threads_per_worker)  # the setting belongs to the thread
        try:
            while True:
                self._admit()
                self._step()
        finally:
            ended.set_result(None)

    def _admit(self) -> None:
        """Give free slots to waiting requests; blocks while there is nothing at all to do."""
        for slot, running in enumerate(self._running):
            if running is not None:
                continue
            new = self._engine.take(block=not any(self._running))
            if new is None:
                return
            self._running[slot] = new
            self._extend([slot], self._slots.prefill(slot, list(new.ask.ids))[None])

    def _step(self) -> None:
        """One token for every running request."""
        for slot, running in enumerate(self._running):
            if running is not None and running.future.cancelled():
                self._running[slot] = None
        active = [slot for slot, running in enumerate(self._running) if running is not None]
        if not active:
            return
        tokens = [running.ids[-1] if running else 0 for running in self._running]
        lengths = [len(r.ask.ids) + len(r.ids) - 1 if r else 0 for r in self._running]
        self._extend(active, self._slots.decode(tokens, lengths)[active])

    def _extend(self, slots: Sequence[int], logits: Tensor) -> None:
        """Choose the next token of each slot and free the slots that are done. `logits` is [len(slots), vocab]."""
        rows = [running for slot in slots if (running := self._running[slot]) is not None]
        for slot, running, token in zip(slots, rows, _choose(logits, rows), strict=True):
            running.ids.append(token)
            answer = self._engine.finished(running)
            if answer is None:
                continue
            self._running[slot] = None
            if running.future.set_running_or_notify_cancel():
                running.future.set_result(answer)


def _choose(logits: Tensor, rows: Sequence[_Running]) -> list[int]:
    """The next token of each row: the most likely at temperature 0, else drawn by the row's own generator."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    sampled = [index for index, row in enumerate(rows) if row.ask.temperature > 0]
    if not sampled:
        return tokens
    asks = [rows[index].ask for index in sampled]
    uniform = torch.tensor([rows[index].rng.random() for index in sampled], dtype=torch.float64)
    for index, token in zip(sampled, sample(logits[sampled], asks, uniform), strict=True):
        tokens[index] = token
    return tokens


def sample(logits: Tensor, asks: Sequence[Ask], uniform: Tensor) -> list[int]:
    """Draw one token per row by inverting the distribution function at `uniform`.

    `logits` is [rows, vocab] float64, `uniform` [rows] in [0, 1). Temperature, then top-k, then nucleus (Holtzman
    et al. 2020): the fewest tokens whose probability reaches top_p, and always one.
    """
    temperature = torch.tensor([ask.temperature for ask in asks], dtype=torch.float64)[:, None]
    top_p = torch.tensor([ask.top_p for ask in asks], dtype=torch.float64)[:, None]
    vocab = logits.shape[-1]
    top_k = torch.tensor([min(ask.top_k or vocab, vocab) for ask in asks])[:, None]
    ranked, ids = torch.sort(logits / temperature, dim=-1, descending=True, stable=True)
    ranked = ranked.masked_fill(torch.arange(vocab)[None] >= top_k, -torch.inf)
    probability = ranked.softmax(dim=-1)
    before = probability.cumsum(dim=-1) - probability
    outside = before >= top_p
    outside[:, 0] = False
    reached = probability.masked_fill(outside, 0.0).cumsum(dim=-1)
    target = uniform[:, None] * reached[:, -1:]
    at = torch.searchsorted(reached, target, right=True).clamp(max=vocab - 1)
    drawn: list[int] = ids.gather(1, at)[:, 0].tolist()
    return drawn
