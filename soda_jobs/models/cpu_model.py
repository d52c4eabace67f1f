"""A causal language model on CPU whose numbers for one request never depend on the other requests.

In: a checkpoint folder (or hub id) that transformers can load. Out: next-token logits as float64, for one sequence
(`Slots.prefill`) or for all slots of a worker at once (`Slots.decode`).

Batch invariance is by construction:

- a prompt is always computed alone, in its own shape, and a sequence attends to its own slot only;
- models under 50 M parameters are computed in float64, each worker in one thread. Another row of the same matrix
  product, another number of rows or another attention width may change the last bit, nine orders of magnitude
  below what float32 would show; the number of threads changes nothing;
- larger models keep one shape instead: a decoding step runs all slots over the whole context, idle ones too.

The key-value store is ours; transformers supplies the layers. That is the path its other serving backends take:
an attention function registered by name, for which transformers prepares neither a mask nor a cache.
"""

from __future__ import annotations

import inspect
import threading
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM

from soda_jobs.errors import InvalidInput

SMALL_PARAMETERS: Final = 50_000_000
SMALL_SLOTS: Final = 32
LARGE_SLOTS: Final = 8
STORE_BYTES: Final = 4 << 30
DEFAULT_CONTEXT: Final = 4096
DTYPES: Final = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_ATTENTION: Final = "soda_slots"
_ROW_STEP, _WIDTH_STEP = 8, 16  # float64 runs no more slots and attends to no more keys than it must
# Arguments of attention that change its result and that `Slots.attend` does not implement.
_UNSUPPORTED: Final = ("softcap", "s_aux", "position_bias")
_current = threading.local()  # .slots: whose forward pass runs in this thread


class CpuModel:
    """The weights, and what follows from their size: `dtype`, `context` (tokens), `slots` and threads per worker.

    A small model gets one single-threaded worker per core, which loses nothing to barriers on a busy machine; a
    large one gets one worker that uses every core, so that its weights are read once per step.
    Raises InvalidInput when the checkpoint cannot be loaded, or has layers other than plain attention.
    """

    def __init__(
        self,
        path: str,
        *,
        threads: int,
        dtype: str = "auto",
        max_model_len: int | None = None,
        revision: str | None = None,
    ) -> None:
        self.module = _load(path, revision or "main")
        small = sum(p.numel() for p in self.module.parameters()) < SMALL_PARAMETERS
        self.dtype = DTYPES[("float64" if small else "float32") if dtype == "auto" else dtype]
        self.module.to(self.dtype)
        self.vocabulary = int(self.module.get_input_embeddings().weight.shape[0])
        self.context = _context(self.module.config, max_model_len)
        self.workers, self.threads_per_worker = (threads, 1) if small else (1, threads)
        torch.set_num_threads(self.threads_per_worker)
        self.slots = self._fit_slots(SMALL_SLOTS if small else LARGE_SLOTS)

    def _fit_slots(self, wanted: int) -> int:
        """Try one token to learn the shapes of keys and values; returns how many slots fit the store."""
        trial = Slots(self, 1)
        trial.prefill(0, [0])
        if trial.layers != self.module.config.get_text_config().num_hidden_layers:
            raise InvalidInput("has layers without attention, which the CPU server cannot run", field="--model")
        return max(1, min(wanted, STORE_BYTES // (self.workers * trial.nbytes)))


class Slots:
    """Keys and values of `count` sequences of at most `model.context` tokens; used by one thread."""

    def __init__(self, model: CpuModel, count: int) -> None:
        self.count = count
        self._model = model
        self._keys: dict[int, Tensor] = {}  # layer -> [slots, heads, context, width of a head]
        self._values: dict[int, Tensor] = {}
        self._slot: int | None = None  # the slot being prefilled; None while decoding
        self._lengths = torch.zeros(0, dtype=torch.long)
        self._hidden = torch.zeros(0)  # what a query may not see, broadcast to [slots, heads, queries, keys]

    @property
    def layers(self) -> int:
        """How many layers have attended so far."""
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """Size of the store, in bytes of address space."""
        return sum(t.numel() * t.element_size() for t in [*self._keys.values(), *self._values.values()])

    def warm_up(self) -> None:
        """Run both shapes once, so that no request pays for first-call allocations."""
        self.prefill(0, [0] * min(64, self._model.context))
        self.decode([0] * self.count, [0] * self.count)

    @torch.inference_mode()
    def prefill(self, slot: int, ids: list[int]) -> Tensor:
        """Fill a slot with a prompt; returns the logits of the next token, [vocab]."""
        self._slot = slot
        self._hidden = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        return self._forward(torch.tensor([ids]), torch.arange(len(ids))[None])[0]

    @torch.inference_mode()
    def decode(self, tokens: list[int], lengths: list[int]) -> Tensor:
        """One more token in every slot; returns the logits of the next, [rows, vocab], row i for slot i.

        `lengths[i]` counts the tokens already in slot i; an idle slot passes any token and length 0. Idle slots
        behind the last busy one may be missing from the result.
        """
        rows, width = self.count, self._model.context
        if self._model.dtype == torch.float64:
            busy = max((slot + 1 for slot, length in enumerate(lengths) if length), default=1)
            rows = min(rows, -(-busy // _ROW_STEP) * _ROW_STEP)
            width = min(width, (max(lengths) // _WIDTH_STEP + 1) * _WIDTH_STEP)
        self._slot = None
        self._lengths = torch.tensor(lengths[:rows])
        self._hidden = (torch.arange(width)[None] > self._lengths[:, None])[:, None, None]
        return self._forward(torch.tensor(tokens[:rows])[:, None], self._lengths[:, None])

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Store the new keys and values, then attend; [slots, heads, tokens, width of a head] each."""
        keys = self._store(self._keys, layer, key)
        values = self._store(self._values, layer, value)
        if self._slot is not None:
            keys[self._slot, :, : key.shape[2]] = key[0]
            values[self._slot, :, : key.shape[2]] = value[0]
        else:
            rows, width = key.shape[0], self._hidden.shape[-1]
            every = torch.arange(rows)
            keys[every, :, self._lengths] = key[:, :, 0]
            values[every, :, self._lengths] = value[:, :, 0]
            key, value = keys[:rows, :, :width], values[:rows, :, :width]
        return _attention(query, key, value, self._hidden, scale)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        _current.slots = self
        output = self._model.module(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=1)
        logits: Tensor = output.logits[:, -1]
        return logits.double()

    def _store(self, store: dict[int, Tensor], layer: int, like: Tensor) -> Tensor:
        if layer not in store:
            # Zeroed pages cost memory only once written, and a hidden position must hold a finite number.
            shape = (self.count, like.shape[1], self._model.context, like.shape[3])
            store[layer] = torch.zeros(shape, dtype=self._model.dtype)
        return store[layer]


def _attention(query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, scale: float) -> Tensor:
    """Softmax attention of [batch, heads, tokens, width]; returns [batch, tokens, heads, width].

    Written out because for one query per sequence the fused CPU kernel is no faster, and its blocking over keys is
    not ours to fix. Heads that share keys are folded into the query axis, so keys are never copied.
    """
    batch, heads, queries, width = query.shape
    shared = key.shape[1]
    grouped = (query * scale).reshape(batch, shared, -1, width)
    scores = (grouped @ key.transpose(2, 3)).view(batch, heads, queries, -1)
    weights = scores.masked_fill_(hidden, -torch.inf).softmax(dim=-1)
    out = weights.view(batch, shared, -1, key.shape[2]) @ value
    return out.view(batch, heads, queries, -1).transpose(1, 2)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **options: Any
) -> tuple[Tensor, None]:
    """The attention function as transformers calls it."""
    unsupported = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if unsupported:
        raise InvalidInput(f"the CPU server does not implement attention with {unsupported[0]}", field="--model")
    slots: Slots = _current.slots
    layer: Any = module.layer_idx
    scale = query.shape[-1] ** -0.5 if options.get("scaling") is None else float(options["scaling"])
    return slots.attend(layer, query, key, value, scale), None


AttentionInterface.register(_ATTENTION, _attend)


def _load(path: str, revision: str) -> Any:
    """The model in evaluation mode, in its checkpoint's own type, attending through `_attend`."""
    try:
        module = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype="auto").eval()
    except (OSError, ValueError) as error:
        sentence = str(error).strip().splitlines()[0]
        raise InvalidInput(f"{path!r} is not a causal language model: {sentence}", field="--model") from error
    takes_positions = "position_ids" in inspect.signature(module.forward).parameters
    if not (module._supports_attention_backend and takes_positions):
        name = type(module).__name__
        raise InvalidInput(f"{name} cannot be run by the CPU server; serve it with vLLM", field="--model")
    module.set_attn_implementation(_ATTENTION)
    return module


def _context(config: Any, max_model_len: int | None) -> int:
    """How many tokens a prompt and its answer may have together.

    A sliding window bounds it too: up to the window's width sliding and full attention are the same.
    """
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    known = [int(bound) for bound in (getattr(text, "max_position_embeddings", None), window) if bound]
    longest = min(known, default=DEFAULT_CONTEXT)
    if max_model_len is None:
        return min(longest, DEFAULT_CONTEXT)
    if not 1 <= max_model_len <= longest:
        raise InvalidInput(f"{max_model_len} is outside 1..{longest}, the model's own", field="--max-model-len")
    return max_model_len
