"""The published tables that come with the package, as data: what the papers report, with where it stands.

    table = load("soda-1")
    table.value("SODA", "pass@1", ("humaneval", "python"))     65.2, in `table.units["pass@1"]`
    for cell in table.cells: cell.row, cell.model, cell.method, cell.benchmark, cell.language, cell.metric, …

One JSON file each in `tables/`, numbers as printed. `source` says whether they were read in the paper itself, in
the authors' release, or second-hand; `notes` says where a paper's own numbers do not add up (the tests compute
them again). A part of a benchmark follows a colon: `livecodebench-v6:hard`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent / "tables"
Column = tuple[str, str]  # benchmark, language


@dataclass(frozen=True)
class Cell:
    """One number of a table. `method` is soda's name for how the model was trained, None for another way."""

    table: str
    row: str
    model: str
    method: str | None
    benchmark: str
    language: str
    metric: str
    value: float


@dataclass(frozen=True)
class Table:
    """`averages` holds the printed ones, {(row, metric): value}; some papers cut them instead of rounding."""

    name: str
    paper: str
    place: str
    caption: str
    url: str
    source: str
    units: Mapping[str, str]
    columns: tuple[Column, ...]
    rows: tuple[str, ...]
    cells: tuple[Cell, ...]
    averages: Mapping[tuple[str, str], float]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        return f"{self.paper}, {self.place}: {self.caption}"

    def value(self, row: str, metric: str, column: Column) -> float | None:
        """The cell, or None where the table has a gap."""
        return self.values(row, metric).get(column)

    def values(self, row: str, metric: str) -> dict[Column, float]:
        """All cells of a row for one metric, in the order of the columns."""
        found = (cell for cell in self.cells if (cell.row, cell.metric) == (row, metric))
        return {(cell.benchmark, cell.language): cell.value for cell in found}


def names() -> list[str]:
    """The tables there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@cache
def load(name: str) -> Table:
    """One table. Raises ValueError for a name that is none, or for a file that does not hold a table."""
    if name not in names():
        raise ValueError(f"{name!r} is no published table; use one of {', '.join(names())}")
    return parse(name, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def parse(name: str, document: Mapping[str, Any]) -> Table:
    """A table from its JSON document; every value is checked to be a number in a known unit and a named column."""
    columns = tuple((str(benchmark), str(language)) for benchmark, language in document["columns"])
    rows = document["rows"]
    metrics = {metric for row in rows for metric in (*row["values"], *row["average"])}
    if unknown := metrics - set(document["units"]):
        raise ValueError(f"table {name} has no unit for {', '.join(sorted(unknown))}")
    if len({row["row"] for row in rows}) < len(rows):
        raise ValueError(f"table {name} has two rows of one name")
    return Table(
        name=name,
        **{field: str(document[field]) for field in ("paper", "place", "caption", "url", "source")},
        units=dict(document["units"]),
        columns=columns,
        rows=tuple(row["row"] for row in rows),
        cells=tuple(cell for row in rows for cell in _cells(name, row, columns)),
        averages={(row["row"], metric): float(value) for row in rows for metric, value in row["average"].items()},
        notes=tuple(document["notes"]),
    )


def _cells(table: str, row: Mapping[str, Any], columns: tuple[Column, ...]) -> list[Cell]:
    cells = []
    for metric, values in row["values"].items():
        if len(values) != len(columns):
            raise ValueError(
                f"table {table}, row {row['row']}: {len(values)} values of {metric} for {len(columns)} columns"
            )
        for (benchmark, language), value in zip(columns, values, strict=True):
            if value is None:
                continue
            if not math.isfinite(value):
                raise ValueError(f"table {table}, row {row['row']}: {value} is no value of {metric}")
            cells.append(
                Cell(
                    table=table,
                    row=row["row"],
                    model=row["model"],
                    method=row["method"],
                    benchmark=benchmark,
                    language=language,
                    metric=metric,
                    value=float(value),
                )
            )
    return cells
