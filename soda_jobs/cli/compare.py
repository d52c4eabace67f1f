"""`soda compare RUN RUN ...`: runs of a store, or their report.json files, in one table with tests."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soda_jobs.errors import InvalidInput

if TYPE_CHECKING:
    from soda_jobs.artifacts import Artifacts
    from soda_jobs.metrics.published import Table
    from soda_jobs.report.comparison_rows import Entry

METRIC = "pass@1"


@dataclass(frozen=True)
class Measured:
    """One row asked for: as it was given, what to call it, and its metric rows of that round."""

    given: str
    name: str
    rows: Sequence[dict[str, Any]]


def run(arguments: Namespace) -> int:
    from soda_jobs.report.comparison import compare
    from soda_jobs.report.comparison_output import render

    table = _published(arguments.published)
    found = [_measured(given, arguments.store) for given in arguments.runs]
    entries = [_entry(item, arguments.metric) for item in _named_apart(found)]
    if table is not None:
        entries += _paper(table, arguments.metric, suffix=f" ({table.name})" if entries else "")
    if not entries:
        raise InvalidInput("there is nothing to compare; name at least one run, or a published table")
    known = [entry.name for entry in entries]
    baseline = _row(arguments.baseline, known, "--baseline") or known[0]
    base = _row(arguments.base, known, "--base")
    notes = [f"{table.name}: {table.title}. Read in: {table.source}.", *table.notes] if table else []
    unit = table.units[arguments.metric] if table else None
    done = compare(entries, arguments.metric, baseline=baseline, base=base, unit_=unit, notes=notes)
    print(render(done, arguments.output, intervals=not arguments.no_intervals))
    return 0


# -- rows ------------------------------------------------------------------------------------------


def _entry(item: Measured, metric: str) -> Entry:
    from soda_jobs.report.comparison_rows import measured

    found = measured(item.name, item.rows, metric)
    if found is None:
        has = ", ".join(dict.fromkeys(row["metric"] for row in item.rows)) or "nothing"
        raise InvalidInput(f"{item.given} has no {metric}; it measured {has}", field="--metric")
    return found


def _paper(table: Table, metric: str, *, suffix: str) -> list[Entry]:
    from soda_jobs.report.comparison_rows import published

    found = published(table, metric, suffix=suffix)
    if not found:
        has = ", ".join(table.units)
        raise InvalidInput(f"the table {table.name} has no {metric}; it has {has}", field="--metric")
    return found


def _published(name: str | None) -> Table | None:
    from soda_jobs.metrics.published import load

    try:
        return load(name) if name is not None else None
    except ValueError as error:
        raise InvalidInput(str(error), field="--published") from None


def _named_apart(found: Sequence[Measured]) -> list[Measured]:
    """Two runs of one name, from two stores, are called as they were given; the same row twice is a mistake."""
    if twice := [given for given, count in Counter(item.given for item in found).items() if count > 1]:
        raise InvalidInput(f"{twice[0]} is named twice; name each run and round once")
    counts = Counter(item.name for item in found)
    return [Measured(item.given, item.given, item.rows) if counts[item.name] > 1 else item for item in found]


def _row(name: str | None, known: Sequence[str], option: str) -> str | None:
    """The row called so; of a published table the name of its row is enough."""
    if name is None or name in known:
        return name
    short = [row for row in known if row.rpartition(" (")[0] == name]
    if len(short) != 1:
        raise InvalidInput(f"{name!r} is no row of this table; use one of {', '.join(known)}", field=option)
    return short[0]


# -- reading ---------------------------------------------------------------------------------------


def _measured(given: str, store: str | None) -> Measured:
    """What `NAME`, `NAME@ROUND` or `report.json@ROUND` measured; without a round, after the last one."""
    target, round_ = _split(given)
    is_file = Path(target).is_file()
    document, artifacts = _from_file(Path(target), store) if is_file else _from_store(target, store)
    rounds = {item["round"]: item["metrics"] for item in document["rounds"]}
    if not rounds:
        raise InvalidInput(f"the run {document['run']} has measured nothing yet; `soda run` goes on with it")
    chosen = max(rounds) if round_ is None else round_
    if chosen not in rounds:
        raise InvalidInput(
            f"the run {document['run']} was not measured after round {chosen}; use one of "
            f"{', '.join(map(str, sorted(rounds)))}",
            field=given,
        )
    name = document["run"] if round_ is None else f"{document['run']}@{chosen}"
    return Measured(given, name, _with_tasks(document, chosen, artifacts) or rounds[chosen])


def _split(given: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+)@(\d+)", given)
    return (found[1], int(found[2])) if found and not Path(given).exists() else (given, None)


def _with_tasks(document: dict[str, Any], round_: int, artifacts: Artifacts | None) -> list[dict[str, Any]]:
    """The metric rows as the evaluations committed them, with every task's score; none if one is not there."""
    from soda_jobs.context import ROWS
    from soda_jobs.records import read_rows

    if artifacts is None:
        return []
    rows: list[dict[str, Any]] = []
    for stage in document["stages"]:
        if stage["kind"] != "evaluate" or stage["round"] != round_ or not stage["digest"]:
            continue
        manifest = artifacts.find(stage["key"])
        if manifest is None:
            return []
        rows += read_rows(artifacts.fetch(manifest) / ROWS)
    return rows


def _from_store(run: str, store: str | None) -> tuple[dict[str, Any], Artifacts]:
    from soda_jobs.local.session import DEFAULT_STORE

    url = store or DEFAULT_STORE
    artifacts = _open(url)
    saved = artifacts.get_document(run, "report.json")
    if saved is None:
        names = {name.split("/")[0] for name in artifacts.list_documents("") if name.endswith("/report.json")}
        known = ", ".join(sorted(names)) or "none"
        raise InvalidInput(f"{run!r} is neither a file nor a run with a report in {url}; runs there: {known}")
    return _document(saved.decode(), f"the report of {run}"), artifacts


def _from_file(path: Path, store: str | None) -> tuple[dict[str, Any], Artifacts | None]:
    """A report and the store it lies in, or beside; without that store only the means are known."""
    from soda_jobs.local.session import read_text
    from soda_jobs.store.base import MARKER

    document = _document(read_text(path), str(path))
    if store is not None:
        return document, _open(store)
    above = path.absolute().parents[2:3]  # <store>/runs/<run>/report.json, or <state>/runs/<run>/report.json
    places = [place for folder in above for place in (folder, folder / "store") if (place / MARKER).exists()]
    return document, _open(str(places[0])) if places else None


def _document(text: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not {"run", "rounds", "stages"} <= set(document):
        raise InvalidInput(f"{where} is no report.json; `soda report RUN` writes one")
    return document


def _open(url: str) -> Artifacts:
    from soda_jobs.settings import StoreSettings, open_artifacts, state_folder

    absolute = url if "://" in url else str(Path(url).absolute())
    return open_artifacts(StoreSettings(absolute), state_folder())
