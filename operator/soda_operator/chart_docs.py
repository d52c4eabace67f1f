"""What the chart holds of the rest of the repository: its copy of the CRD, and the table of values in its README.

python -m soda_operator.chart_docs            write both
python -m soda_operator.chart_docs --check    exit 1 when one is stale
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from soda_jobs.generated import keep

CHART: Final = Path("charts/soda")
DEFINITION: Final = Path("crds/distillationruns.soda.dev.yaml")  # a chart cannot read outside its folder
COPY: Final = CHART / "files" / DEFINITION.name
README: Final = CHART / "README.md"
BEGIN: Final = "<!-- values: written by python -m soda_operator.chart_docs from values.yaml -->\n"
END: Final = "<!-- end of values -->\n"
_KEY: Final = re.compile(r"^( *)([A-Za-z][\w-]*):(?: |$)")


@dataclass(frozen=True)
class Value:
    """One key of values.yaml with the comment above it."""

    path: tuple[str, ...]
    comment: str


def values(text: str) -> Iterator[Value]:
    """The keys that have a comment, in their order. A blank line ends a comment."""
    above: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip().removeprefix("#").strip())
            continue
        found = _KEY.match(line)
        if found:
            path = [*path[: len(found[1]) // 2], found[2]]
            if above:
                yield Value(tuple(path), " ".join(above))
        above = []


def table(text: str) -> str:
    """The values as a table. A key whose parts have comments of their own shows no default."""
    document = yaml.safe_load(text)
    rows = list(values(text))
    lines = ["| value | default | meaning |", "|---|---|---|"]
    for row in rows:
        is_block = any(other.path[:-1] == row.path for other in rows)
        default = "" if is_block else f"`{_default(document, row.path)}`"
        comment = row.comment.replace("|", "\\|")
        lines.append(f"| `{'.'.join(row.path)}` | {default} | {comment} |")
    return "\n".join(lines) + "\n"


def _default(document: Any, path: tuple[str, ...]) -> str:
    for key in path:
        document = document[key]
    return json.dumps(document)


def render() -> dict[Path, str]:
    """Each file as it must be."""
    before, begin, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{README} lacks the lines {BEGIN.strip()} and {END.strip()}; put them round the table")
    values_text = (CHART / "values.yaml").read_text(encoding="utf-8")
    return {
        COPY: DEFINITION.read_text(encoding="utf-8"),
        README: f"{before}{begin}\n{table(values_text)}\n{end}{after}",
    }


def main(arguments: list[str]) -> int:
    return keep("soda_operator.chart_docs", render(), arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
