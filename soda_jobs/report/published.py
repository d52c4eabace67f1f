"""What the paper reports for the benchmarks it measured, to stand beside a run's own numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from soda_jobs import metrics
from soda_jobs.report.collect import Row

# The paper measures languages other than Python by MultiPL-E (section 4.4); its columns name the language.
COLUMNS: Final = {("humaneval", "python"): "humaneval", ("mbpp", "python"): "mbpp"}
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
    return str(_table()["source"])


def paper(row: Row, method: str) -> dict[str, float] | None:
    """The paper's {"before", "after"} for a metric row in [0, 1], or None where it did not measure the same."""
    benchmark, language = row["benchmark"], row["language"]
    column = language if benchmark == "multipl-e" else COLUMNS.get((benchmark, language))
    table = _table()
    if row["k"] != 1 or not row["metric"].startswith("pass@") or method not in METHODS:
        return None
    if column not in table["cells"]:
        return None
    place = table["cells"].index(column)
    values = table["pass@1"]
    return {"before": values["Base"][place] / 100, "after": values[METHODS[method]][place] / 100}


@cache
def _table() -> Mapping[str, Any]:
    path = Path(metrics.__file__).parent / "published.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))
