"""What the paper reports for the benchmarks it measured, to stand beside a run's own numbers."""

from __future__ import annotations

from typing import Final

from soda_jobs.metrics.published import Table, load
from soda_jobs.report.collect import Row

METHODS: Final = {
    "soda": "SODA",
    "iterkd": "SODA",
    "evol-instruct": "Evol-Instruct",
    "oss-instruct": "OSS-Instruct",
    "persd": "PERsD",
    "mft": "MFT",
}


def source() -> str:
    """Where the numbers come from, and for which models."""
    table = _table()
    return f"{table.title}; pass@1 in percent"


def paper(row: Row, method: str) -> dict[str, float] | None:
    """The paper's {"before", "after"} for a metric row in [0, 1], or None where it did not measure the same.

    The paper measures languages other than Python by MultiPL-E (section 4.4); its columns name the language.
    """
    if row["k"] != 1 or not row["metric"].startswith("pass@") or method not in METHODS:
        return None
    column = (row["benchmark"], row["language"])
    before, after = (_table().value(name, "pass@1", column) for name in ("Base", METHODS[method]))
    return None if before is None or after is None else {"before": before / 100, "after": after / 100}


def _table() -> Table:
    return load("soda-1")
