"""What only this run knows (clocks, states, costs), and the plain words and numbers made of it. Pure.

In: the summary that the report stage wrote, and `RunFacts`. Out: sentences, formatted numbers, table rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from soda_jobs.report.collect import ALL, Row

LANGUAGES: Final = {
    "python": "Python", "java": "Java", "javascript": "JavaScript", "typescript": "TypeScript",
    "c": "C", "cpp": "C++", "go": "Go", "rust": "Rust", "ruby": "Ruby",
    ALL: "All languages", "none": "No language",
}  # fmt: skip
DROPPED: Final = "dropped_"  # before a reason, in a stage's counts
SIGNIFICANT: Final = 0.05
CHANCE: Final = 0.6  # an AUC below it hardly tells passing from failing


@dataclass(frozen=True)
class StageFact:
    """What became of one stage. `seconds` is what its work took, in this run or in the one it was reused from."""

    name: str
    kind: str
    round: int
    key: str
    digest: str
    state: str  # done | reused | failed | running | waiting
    seconds: float
    rows: int
    counts: Mapping[str, int] = field(default_factory=dict)
    headline: Mapping[str, float] = field(default_factory=dict)
    telemetry: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    role: str = ""  # of the server it used: teacher | student | judge | sandbox

    @property
    def reads(self) -> list[str]:
        """The stages it was made from, each once."""
        return list(dict.fromkeys(name for names in self.inputs.values() for name in names))


@dataclass(frozen=True)
class RunFacts:
    """What the summary, which is the same for equal work, must not hold: this run's name, clocks and costs."""

    run: str
    method: str
    spec_yaml: str
    stages: Sequence[StageFact]
    started: str = ""
    finished: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    def source(self, source: Mapping[str, Any] | None) -> StageFact | None:
        """The stage whose artifact a fact of the summary came from."""
        report = next((stage for stage in self.stages if stage.kind == "report"), None)
        names = report.inputs.get(source["input"], ()) if report and source else ()
        if source is None or source["index"] >= len(names):
            return None
        return next((stage for stage in self.stages if stage.name == names[source["index"]]), None)


# -- words and numbers -----------------------------------------------------------------------------


def language(name: str) -> str:
    return LANGUAGES.get(name, name)


def metric(row: Row) -> str:
    """`pass@1`, `model score`."""
    return str(row["metric"]).replace("@k", f"@{row['k']}").replace("_", " ")


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def plural(count: float, noun: str) -> str:
    return f"{count:,.0f} {noun}" + ("" if count == 1 else "s")


# -- the result in a sentence ----------------------------------------------------------------------


def primary(summary: Row) -> list[Row]:
    """The run's first metric over all its languages, one row for each measured round, in order."""
    rows: Sequence[Row] = summary["metrics"]
    return [row for row in rows if same_cell(row, rows[0])]


def same_cell(row: Row, other: Row) -> bool:
    return all(row[name] == other[name] for name in ("benchmark", "language", "metric", "k"))


def result(summary: Row) -> str:
    """One sentence in plain words that claims no more than was measured."""
    rows = primary(summary)
    if not rows:
        return "Nothing has been measured yet: no round of this run reached its evaluation."
    first, last = rows[0], rows[-1]
    tasks = f"{metric(last)} on {plural(last['n'], 'held-out task')} of {last['benchmark']}"
    if first is last:
        when = "The untouched student" if last["round"] == 0 else f"After round {last['round']} the student"
        return f"{when} reaches {number(last['value'])} {tasks} ({interval(last)}); no other round was measured."
    change = next(item for item in summary["changes"] if same_cell(item, last))
    span = f"from {number(first['value'])} to {number(last['value'])} ({interval(last)})"
    rounds = plural(last["round"] - first["round"], "round")
    if first["value"] == last["value"]:
        return f"{tasks} stayed at {number(last['value'])} ({interval(last)}) in {rounds}."
    verb = "rose" if last["value"] > first["value"] else "fell"
    doubt = (
        ""
        if change["p"] < SIGNIFICANT
        else f", a difference that chance could explain (p = {p_value(change['p'])})"
    )
    return f"{tasks} {verb} {span} in {rounds}{doubt}."


def interval(row: Row) -> str:
    return f"95 % CI {number(row['ci'][0])}–{number(row['ci'][1])}"


def judge_words(item: Row) -> str:
    """What the agreement between judge and execution means for this round."""
    if not item["judged"]:
        return "No answer got a readable score."
    if item["constant"]:
        return f"The judge gave every answer the same score, {item['scores'][0][0]:g}: it tells nothing apart."
    top = max(sum(row[1:]) for row in item["scores"])
    if top >= 0.95 * item["judged"]:
        return f"The judge gave {percent(top, item['judged'])} of the answers one and the same score."
    if item["auc"] is None:
        side = "failed" if not item["passing"] else "passed"
        return f"Every judged answer that was run {side}, so agreement cannot be measured."
    chance = f"A passing answer outscored a failing one in {percent(item['auc'], 1)} of pairs"
    if item["auc"] < 0.5 - (CHANCE - 0.5):
        return f"{chance}: the judge prefers failing programs."
    return f"{chance}, hardly better than a coin." if item["auc"] < CHANCE else f"{chance}."


# -- costs -----------------------------------------------------------------------------------------


def costs(stages: Sequence[StageFact]) -> list[dict[str, Any]]:
    """Seconds, tokens and money by who did the work: each server's role, training, and the rest under its kind.

    Tokens read count those that the server found in its cache. Money is their price where the spec has one.
    """
    groups: dict[str, list[StageFact]] = defaultdict(list)
    for stage in stages:
        groups[stage.role or stage.kind].append(stage)
    found = [
        {
            "who": who,
            "stages": len(members),
            "seconds": sum(stage.seconds for stage in members if stage.state != "reused"),
            "reused_seconds": sum(stage.seconds for stage in members if stage.state == "reused"),
            "read": _total(members, "prompt_tokens") + _total(members, "tokens"),
            "cached": _total(members, "cached_tokens"),
            "written": _total(members, "completion_tokens"),
            "money": _total(members, "cost"),
        }
        for who, members in groups.items()
    ]
    return sorted(found, key=lambda item: -(item["seconds"] + item["reused_seconds"]))


def per_sample(summary: Row, stages: Sequence[StageFact]) -> dict[str, float] | None:
    """Tokens, seconds and money of all stages for each question that the screens kept; None when none was kept."""
    kept = sum(item["kept"] for item in summary["rejects"])
    if not kept:
        return None
    tokens = sum(_total(stages, name) for name in ("prompt_tokens", "completion_tokens"))
    seconds = sum(stage.seconds for stage in stages)
    money = _total(stages, "cost") / kept
    return {"kept": kept, "tokens": tokens / kept, "seconds": seconds / kept, "money": money}


def rejections(summary: Row, run: RunFacts) -> list[dict[str, Any]]:
    """Every stage that dropped rows: {stage, kept, dropped, reasons}, in the order of the run.

    Screens are counted from their rows, the others from the counts they reported.
    """
    found: dict[str, dict[str, Any]] = {}
    for stage in run.stages:
        reasons = {
            key.removeprefix(DROPPED): n for key, n in stage.counts.items() if key.startswith(DROPPED) and n
        }
        if reasons:
            found[stage.name] = {"stage": stage, "kept": stage.rows, "reasons": reasons}
    for item in summary["rejects"]:
        source = run.source(item["source"])
        if source is not None:
            found[source.name] = {"stage": source, "kept": item["kept"], "reasons": item["reasons"]}
    order = [stage.name for stage in run.stages]
    rows = [found[name] for name in order if name in found]
    return [{**row, "dropped": sum(row["reasons"].values())} for row in rows]


def _total(stages: Sequence[StageFact], name: str) -> float:
    return sum(stage.telemetry.get(name, 0.0) for stage in stages)
