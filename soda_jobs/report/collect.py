"""The facts of a run, counted from its artifacts' rows. Pure: rows in, plain JSON values out, no clock.

Every function reads `parts`: for each artifact where it came from and its rows, read once and never held as a
whole. Every entry that comes out keeps that `source`, so that a number on the page can be traced to a digest.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypedDict

from soda_jobs.metrics.statistics import compare_pairs

Row = Mapping[str, Any]
ALL: Final = "all"  # a metric row over all languages of a benchmark
POINTS: Final = 200  # of a training curve


class Source(TypedDict):
    """Which artifact: the `index`-th of the report's input `input`."""

    input: str
    index: int


Part = tuple[Source, Iterable[Row]]


def measured(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Metric rows with their round and source, `per_task` still there.

    Benchmarks stay in the order of the run; inside one: pass@1 first, all languages before each, rounds in order.
    Of a benchmark in one language, the average over languages would say the same twice and is left out.
    """
    rows = [
        {"round": row["iteration"], **_without(row, "iteration", "settings"), "source": source}
        for source, items in parts
        for row in items
    ]
    languages: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        languages[row["benchmark"]].add(row["language"])
    order = {name: place for place, name in enumerate(languages)}
    told = [row for row in rows if row["language"] != ALL or len(languages[row["benchmark"]]) > 2]
    return sorted(told, key=lambda row: (order[row["benchmark"]], *_cell(row), row["round"]))


def metrics(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of `measured` as the report lists them."""
    return [_without(row, "per_task") for row in rows]


def changes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For every benchmark, language and metric: the last round against the first, task by task.

    `gained` and `lost` count the tasks that got better and worse. `p` is two-sided: of McNemar's exact test when
    a task is either solved or not, else of Wilcoxon's signed-rank test; `test` says which.
    """
    cells: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        cells[_cell(row)].append(row)
    return [_change(cell[0], cell[-1]) for cell in cells.values() if cell[0]["round"] != cell[-1]["round"]]


def _change(first: Row, last: Row) -> dict[str, Any]:
    tasks = [task for task in first["per_task"] if task in last["per_task"]]
    before = [first["per_task"][task] for task in tasks]
    after = [last["per_task"][task] for task in tasks]
    found = compare_pairs(after, before)
    return {
        **{name: first[name] for name in ("benchmark", "language", "metric", "k")},
        "from_round": first["round"],
        "to_round": last["round"],
        "difference": last["value"] - first["value"],
        "tasks": len(tasks),
        "gained": sum(b > a for a, b in zip(before, after, strict=True)),
        "lost": sum(b < a for a, b in zip(before, after, strict=True)),
        "test": found.name.partition(",")[0],
        "p": found.p,
    }


def difficulty(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Per round: how many questions are easy, medium, hard or excluded, and which rules said so."""
    found = []
    for source, rows in parts:
        levels: Counter[str] = Counter()
        rules: Counter[str] = Counter()
        round_ = None
        for row in rows:
            round_ = row["iteration"]
            levels[row["level"] or "excluded"] += 1
            rules[row["rule"]] += 1
        found.append({"round": round_, "levels": dict(levels), "rules": ranked(rules), "source": source})
    return found


def executed(parts: Iterable[Part], *, outcomes: dict[str, str]) -> list[dict[str, Any]]:
    """Per round and language: what the student's programs did. Fills `outcomes` {completion id: status}."""
    found = []
    for source, rows in parts:
        verdicts: dict[str, Counter[str]] = defaultdict(Counter)
        statuses: dict[str, Counter[str]] = defaultdict(Counter)
        round_ = None
        for row in rows:
            round_, language = row["iteration"], row["language"] or "none"
            verdicts[language][row["verdict"]] += 1
            statuses[language][row["status"]] += 1
            outcomes[row["completion_id"]] = row["status"]
        found += [
            {
                "round": round_,
                "language": language,
                "n": statuses[language].total(),
                "status": dict(statuses[language]),
                "verdict": ranked(verdicts[language]),
                "source": source,
            }
            for language in sorted(statuses)
        ]
    return found


def rejected(source: Source, kept: Iterable[Row], dropped: Iterable[Row]) -> dict[str, Any]:
    """How many rows an artifact kept, and why it dropped the others."""
    round_, count = None, 0
    for row in kept:
        round_, count = row["iteration"], count + 1
    return {
        "round": round_,
        "kept": count,
        "reasons": ranked(Counter(row["reason"] for row in dropped)),
        "source": source,
    }


def agreement(parts: Iterable[Part], outcomes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Per round: does the judge give programs that pass a higher score than programs that fail?

    `auc` is the probability that a passing program was scored above a failing one, a tie counting one half
    (Mann-Whitney); null when one side is empty. `scores` lists [score, passing, failing, not run].
    """
    return [{**_agreement(rows, outcomes), "source": source} for source, rows in parts]


def curve(source: Source, history: Sequence[Row]) -> dict[str, Any]:
    """A training history as series of at most 200 evenly chosen [step, value], first and last step kept."""
    chosen = [history[index] for index in _spread(len(history), POINTS)]
    names = [name for name in (history[0] if history else ()) if name != "step"]
    series = {name: [[row["step"], row[name]] for row in chosen if row.get(name) is not None] for name in names}
    return {"steps": history[-1]["step"] if history else 0, "series": series, "source": source}


def answered(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Per round: how many answers the student wrote, how many tokens, how many ran out of room."""
    found = []
    for source, rows in parts:
        round_, count, tokens, cut = None, 0, 0, 0
        for row in rows:
            round_, count = row["iteration"], count + 1
            tokens += row["usage"]["completion_tokens"]
            cut += row["finish_reason"] == "length"
        found.append({"round": round_, "answers": count, "tokens": tokens, "cut": cut, "source": source})
    return found


def ranked(counts: Counter[str]) -> dict[str, int]:
    """Most frequent first, equal counts by name: an order that does not depend on the order of rows."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _agreement(rows: Iterable[Row], outcomes: Mapping[str, str]) -> dict[str, Any]:
    passing: Counter[float] = Counter()
    failing: Counter[float] = Counter()
    other: Counter[float] = Counter()
    round_, unread = None, 0
    for row in rows:
        round_ = row["iteration"]
        if row["total"] is None:
            unread += 1
            continue
        status = outcomes.get(row["completion_id"])
        side = passing if status == "pass" else failing if status in ("fail", "timeout") else other
        side[row["total"]] += 1
    scores = sorted({*passing, *failing, *other})
    return {
        "round": round_,
        "judged": passing.total() + failing.total() + other.total(),
        "unread": unread,
        "passing": passing.total(),
        "failing": failing.total(),
        "mean_passing": _mean(passing),
        "mean_failing": _mean(failing),
        "auc": _auc(passing, failing),
        "constant": len(scores) == 1,
        "scores": [[score, passing[score], failing[score], other[score]] for score in scores],
    }


def _auc(passing: Counter[float], failing: Counter[float]) -> float | None:
    pairs = passing.total() * failing.total()
    if not pairs:
        return None
    wins, below = 0.0, 0
    for score in sorted({*passing, *failing}):
        wins += passing[score] * (below + failing[score] / 2)
        below += failing[score]
    return wins / pairs


def _mean(counts: Counter[float]) -> float | None:
    total = counts.total()
    return sum(score * count for score, count in sorted(counts.items())) / total if total else None


def _cell(row: Row) -> tuple[Any, ...]:
    """What is compared between rounds, and its place in a table."""
    metric, language = row["metric"], row["language"]
    return (row["benchmark"], not metric.startswith("pass"), metric, row["k"] or 0, language != ALL, language)


def _spread(length: int, most: int) -> Iterable[int]:
    if length <= most:
        return range(length)
    return (round(index * (length - 1) / (most - 1)) for index in range(most))


def _without(row: Row, *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
