"""What asking models took, counted and priced. In: counts of requests and tokens. Out: numbers of telemetry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

USAGE: Final = ("requests", "retries", "prompt_tokens", "cached_tokens", "completion_tokens")
_MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Price:
    """Money for a million tokens. `cached_input` is for prompt tokens that the server had computed before."""

    input: float
    output: float
    cached_input: float | None = None


def no_usage() -> dict[str, int]:
    """Counts of nothing: one for each name in `USAGE`."""
    return dict.fromkeys(USAGE, 0)


def cost(usage: Mapping[str, int], price: Price) -> float:
    """What the tokens cost. The server counts cached tokens among those of the prompt."""
    cached = usage.get("cached_tokens", 0)
    fresh = usage.get("prompt_tokens", 0) - cached
    cheap = price.input if price.cached_input is None else price.cached_input
    total = fresh * price.input + cached * cheap + usage.get("completion_tokens", 0) * price.output
    return round(total / _MILLION, 6)
