"""`soda compare`: the right test for each cell, honest averages, and five formats that show the same."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from soda_jobs.__main__ import main, parser
from soda_jobs.metrics.bootstrap import confidence_interval
from soda_jobs.metrics.published import load
from soda_jobs.records import write_rows
from soda_jobs.report.comparison import Comparison, compare
from soda_jobs.report.comparison_output import FORMATS, render
from soda_jobs.report.comparison_rows import Entry, measured, published
from soda_jobs.settings import StoreSettings, open_artifacts

PYTHON, JAVA = ("humaneval", "python"), ("multipl-e", "java")
Cells = Mapping[tuple[str, str], list[float]]


def metric_rows(cells: Cells, metric: str = "pass@1", samples: int = 1, round_: int = 3) -> list[dict[str, Any]]:
    """Metric rows as an evaluation commits them: task i of a cell scored the cell's i-th value."""
    groups = [*((column, [values]) for column, values in cells.items()), (("", "all"), list(cells.values()))]
    return [
        {
            "iteration": round_,
            "benchmark": column[0] or next(iter(cells))[0],
            "language": column[1],
            "metric": metric,
            "k": 1,
            "n": sum(map(len, found)),
            "value": fmean(fmean(values) for values in found),
            "ci": list(confidence_interval(found, samples=200, seed=0)),
            "per_task": {f"{column[1]}-{i}": value for values in found for i, value in enumerate(values)},
            "settings": {"samples": samples, "bootstrap_samples": 200, "seed": 0, "average": "…"},
        }
        for column, found in groups
    ]


def entry(name: str, cells: Cells, **options: Any) -> Entry:
    found = measured(name, metric_rows(cells, **options), options.get("metric", "pass@1"))
    assert found is not None
    return found


def solved(count: int, of: int) -> list[float]:
    return [1.0] * count + [0.0] * (of - count)


def two() -> Comparison:
    """`b` solves 10 more of 20 in Python, 2 more of 20 in Java, and loses none."""
    first = entry("a", {PYTHON: solved(5, 20), JAVA: solved(10, 20)})
    second = entry("b", {PYTHON: solved(15, 20), JAVA: solved(12, 20)})
    return compare([first, second], "pass@1", baseline="a")


# -- the table -----------------------------------------------------------------------------------------


def test_each_cell_is_tested_task_by_task_and_corrected_together() -> None:
    table = two()
    assert [(test.column, test.scope, test.pairs, test.result.n) for test in table.tests] == [
        (PYTHON, "problems", 20, 10),
        (JAVA, "problems", 20, 2),
        (None, "problems", 40, 12),
    ]
    assert {test.result.name for test in table.tests} == {"McNemar, exact"}
    # 10 to 0, 2 to 0, 12 to 0 discordant pairs; Holm over three.
    assert [test.result.p for test in table.tests] == pytest.approx([2 / 2**10, 2 / 2**2, 2 / 2**12])
    assert [test.p_holm for test in table.tests] == pytest.approx([2 * 2 / 2**10, 2 / 2**2, 3 * 2 / 2**12])
    # Each difference is that of the means, inside its interval; two tasks of twenty may not be above zero.
    assert [test.difference for test in table.tests] == pytest.approx([50, 10, 30])
    for test in table.tests:
        assert test.ci is not None
        assert test.ci[0] <= test.difference <= test.ci[1]
    assert table.tests[0].ci is not None
    assert table.tests[0].ci[0] > 0
    first, second = table.entries
    assert (second.scores[PYTHON].marks, second.scores[JAVA].marks) == ("*", "")
    assert second.average is not None
    assert second.average.marks == "*"
    assert not any(score.marks for score in first.scores.values())


def test_the_average_weighs_columns_equally_and_the_best_is_marked() -> None:
    first, second = two().entries
    assert first.average is not None
    assert second.average is not None
    assert (first.average.value, second.average.value) == pytest.approx((37.5, 67.5))
    assert second.average.ci is not None
    assert second.average.ci[0] < 67.5 < second.average.ci[1]
    assert (first.scores[PYTHON].best, second.scores[PYTHON].best, second.average.best) == (False, True, True)


def test_nothing_is_best_where_all_are_equal() -> None:
    cells = {PYTHON: solved(5, 20)}
    assert not any(
        item.scores[PYTHON].best
        for item in compare([entry("a", cells), entry("b", cells)], "pass@1", baseline="a").entries
    )


def test_sampled_scores_are_tested_by_wilcoxon() -> None:
    first = entry("a", {PYTHON: [i / 40 for i in range(20)]}, samples=20)
    second = entry("b", {PYTHON: [i / 40 + 0.1 + i / 1000 for i in range(20)]}, samples=20)
    (test,) = compare([first, second], "pass@1", baseline="a").tests
    assert (test.result.name, test.result.p) == ("Wilcoxon, exact", pytest.approx(2 / 2**20))


def test_the_papers_own_table_is_tested_over_its_cells() -> None:
    table = compare(published(load("soda-1"), "pass@1"), "pass@1", baseline="SODA", base="Base")
    assert len(table.tests) == 5
    assert {(test.scope, test.pairs, test.result.p) for test in table.tests} == {("cells", 8, 2 / 2**8)}
    assert all(test.p_holm == pytest.approx(5 * 2 / 2**8) for test in table.tests)  # 0.039: still below 0.05
    soda, persd = (next(item for item in table.entries if item.name == name) for name in ("SODA", "PERsD"))
    assert soda.relative_gain == pytest.approx(65.93, abs=0.005)
    assert persd.gain_ratio == pytest.approx(100 * (1 / 1.29779 - 1), abs=0.01)
    against = compare(published(load("soda-1"), "pass@1"), "pass@1", baseline="PERsD", base="Base")
    assert next(item for item in against.entries if item.name == "SODA").gain_ratio == pytest.approx(
        29.78, abs=0.005
    )
    marks = {item.name: item.average.marks for item in against.entries if item.average}
    assert marks == {"Base": "†", "Evol-Instruct": "", "OSS-Instruct": "†", "PERsD": "", "MFT": "", "SODA": "†"}


def test_a_missing_column_is_a_gap_and_leaves_the_average() -> None:
    first = entry("a", {PYTHON: solved(5, 20), JAVA: solved(10, 20)})
    second = entry("b", {PYTHON: solved(15, 20)})
    table = compare([first, second], "pass@1", baseline="a")
    assert table.averaged == (PYTHON,)
    assert [item.average.value for item in table.entries if item.average] == [25, 75]
    assert any("over the 1 columns that every run has" in note for note in table.notes)
    assert "–" in render(table, "terminal")
    assert len(table.tests) == 1  # the one column is all problems there are


def test_tasks_that_one_run_lacks_are_counted_and_strangers_are_not_compared() -> None:
    first, fewer = entry("a", {PYTHON: solved(5, 20)}), entry("b", {PYTHON: solved(5, 12)})
    (test,) = compare([first, fewer], "pass@1", baseline="a").tests
    assert (test.pairs, test.left_out) == (12, 8)
    assert "(8 not in both)" in render(compare([first, fewer], "pass@1", baseline="a"), "terminal")
    strange = metric_rows({PYTHON: solved(9, 20)})
    for row in strange:
        row["per_task"] = {f"x{task}": value for task, value in row["per_task"].items()}
    other = measured("c", strange, "pass@1")
    assert other is not None
    assert compare([first, other], "pass@1", baseline="a").tests == ()


def test_runs_without_their_evaluations_keep_means_and_say_so() -> None:
    rows = [
        {key: value for key, value in row.items() if key not in ("per_task", "settings")}
        for row in metric_rows({PYTHON: solved(5, 20)})
    ]
    bare = measured("bare", rows, "pass@1")
    assert bare is not None
    table = compare([entry("a", {PYTHON: solved(9, 20)}), bare], "pass@1", baseline="a")
    assert table.tests == ()
    assert any("was not found: bare" in note for note in table.notes)


def test_evaluations_that_differ_are_named() -> None:
    table = compare(
        [entry("a", {PYTHON: solved(5, 20)}), entry("b", {PYTHON: solved(5, 20)}, samples=20)],
        "pass@1",
        baseline="a",
    )
    assert "The evaluations differ in samples: a 1, b 20." in table.notes


def test_gains_over_nothing_are_not_defined() -> None:
    zero, some = entry("a", {PYTHON: solved(0, 20)}), entry("b", {PYTHON: solved(5, 20)})
    table = compare([zero, some], "pass@1", baseline="a", base="a")
    assert [item.relative_gain for item in table.entries] == [None, None]
    assert "Gains over a are not defined, because its average is 0." in table.notes


def test_the_gain_ratio_is_shown_where_it_exists() -> None:
    rows = published(load("soda-1"), "pass@1")
    both = render(compare(rows, "pass@1", baseline="PERsD", base="Base"), "terminal").split("\n")
    assert both[1].endswith("Gain over Base  Gain ratio to PERsD")
    assert next(line for line in both if line.startswith("SODA ")).endswith("+65.9 %         +29.8 %")
    one = render(compare(rows, "pass@1", baseline="Base", base="Base"), "terminal")
    assert "Gain over Base" in one
    assert "ratio" not in one


def test_a_metric_that_was_not_measured_has_no_row() -> None:
    assert measured("a", metric_rows({PYTHON: solved(5, 20)}), "pass@10") is None


def test_other_metrics_are_not_percent() -> None:
    table = compare([entry("a", {PYTHON: [2.0, 3.0]}, metric="model_score")], "model_score", baseline="a")
    assert (table.unit, table.entries[0].scores[PYTHON].value) == ("points from 0 to 6", 2.5)


def test_published_metrics_keep_their_unit_and_digits() -> None:
    for name, metric, word in (("soda-judge", "kappa", "0.953"), ("soda-ablations", "pass@1_loss", "5.67")):
        table = load(name)
        rows = published(table, metric)
        found = compare(rows, metric, baseline=rows[0].name, unit_=table.units[metric])
        assert word in render(found, "terminal")
        assert table.units[metric] in render(found, "terminal")


# -- formats -------------------------------------------------------------------------------------------

HOSTILE = "a_b & 50% <script>alert(1)</script> | \x1b[31m \\x $y$ #{z}"


def hostile() -> Comparison:
    first = entry(HOSTILE, {PYTHON: solved(5, 20), JAVA: solved(10, 20)})
    second = entry("b", {PYTHON: solved(15, 20), JAVA: solved(12, 20)})
    rows = [first, second, *published(load("soda-1"), "pass@1", suffix=" (soda-1)")]
    return compare(rows, "pass@1", baseline=HOSTILE)


def test_the_parser_offers_the_formats() -> None:
    commands = next(item for item in parser()._actions if isinstance(item, argparse._SubParsersAction))
    output = next(item for item in commands.choices["compare"]._actions if item.dest == "output")
    assert output.choices == FORMATS


@pytest.mark.parametrize("output", ["terminal", "markdown", "latex", "html"])
def test_every_format_shows_values_marks_intervals_and_tests(output: str) -> None:
    text = render(two(), output)
    for word in (
        "25.0",
        "75.0",
        "67.5",
        "Python",
        "Java",
        "Avg.",
        "10 of 20 problems differ",
        "McNemar, exact: p",
    ):
        assert word in text, word
    bare = render(two(), output, intervals=False)
    assert len(bare) < len(text)
    assert "interval over tasks" in text
    assert "interval over tasks" not in bare


@pytest.mark.parametrize("output", FORMATS)
def test_names_are_shown_not_obeyed(output: str) -> None:
    assert "\x1b" not in render(hostile(), output)


def test_terminal_columns_are_aligned() -> None:
    lines = render(two(), "terminal", intervals=False).split("\n")
    place = lines[1].index("Python")
    assert lines[0].index("humaneval") == place
    assert [line[place : place + 5] for line in lines[2:4]] == ["25.0 ", "75.0*"]


def test_markdown_rows_have_as_many_cells_as_the_head() -> None:
    lines = [line for line in render(hostile(), "markdown").split("\n") if line.startswith("|")]
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert len(lines) == 2 + 2 + 6
    assert len(counts) == 1
    assert "**75.0**\\*" in lines[3]


def test_latex_is_balanced_and_escaped() -> None:
    text = render(hostile(), "latex")
    bare = text.replace("\\{", "").replace("\\}", "")
    assert bare.count("{") == bare.count("}")
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    rows = [line for line in body.split("\n") if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows[1:]} == {9}  # 8 columns and the average
    assert r"a\_b \& 50\% $<$script$>$" in text
    assert r"\textbackslash{}x \$y\$ \#\{z\}" in text
    assert r"\textbf{75.0}$^{*}$" in text
    assert body.count(r"\midrule") == 2  # below the head, above the paper


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[int] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(dict(attrs).get("colspan") or 1)
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_html_nests_spans_and_runs_nothing() -> None:
    tags = Tags()
    tags.feed(render(hostile(), "html"))
    assert tags.open == []
    assert set(tags.rows) == {10}
    assert not {"script", "link", "img"} & tags.seen


def test_json_has_every_test_and_cell() -> None:
    document = json.loads(render(two(), "json"))
    assert [row["name"] for row in document["rows"]] == ["a", "b"]
    assert document["rows"][1]["cells"][0] | {"ci": None} == {
        "benchmark": "humaneval", "language": "python", "value": 75.0, "ci": None, "tasks": 20, "marks": "*",
    }  # fmt: skip
    assert document["tests"][0]["n"] == 10
    assert document["tests"][2]["column"] is None
    assert document["tests"][0]["significant"] is True


# -- the command, on a real store ----------------------------------------------------------------------


def make_run(store: Path, name: str, rounds: Mapping[int, Cells], *, is_kept: bool = True) -> Path:
    """A run's evaluations and report as `soda run` leaves them; without its artifacts when not `is_kept`."""
    artifacts = open_artifacts(StoreSettings(str(store)), store.parent / "state", create=True)
    document: dict[str, Any] = {"run": name, "rounds": [], "stages": [{"kind": "source", "round": 0}]}
    for round_, cells in rounds.items():
        rows = metric_rows(cells, round_=round_)
        key = f"{name}{round_}".encode().hex().ljust(64, "0")
        if is_kept:
            folder = store.parent / f"out-{name}-{round_}"
            folder.mkdir()
            write_rows(folder / "rows.jsonl", rows)
            artifacts.commit(
                key, folder, kind="evaluate", counts={}, headline={}, inputs={}, settings={}, code_version=1,
                telemetry={},
            )  # fmt: skip
        document["stages"].append({"kind": "evaluate", "round": round_, "key": key, "digest": "d"})
        told = [{key: row[key] for key in row if key not in ("per_task", "settings")} for row in rows]
        document["rounds"].append({"round": round_, "metrics": told})
    artifacts.put_document(name, "report.json", json.dumps(document).encode())
    path = store / "runs" / name / "report.json"
    assert path.is_file()
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SODA_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "store"
    make_run(folder, "a", {0: {PYTHON: solved(0, 20)}, 3: {PYTHON: solved(5, 20)}})
    make_run(folder, "b", {0: {PYTHON: solved(0, 20)}, 3: {PYTHON: solved(15, 20)}})
    return folder


def compared(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["compare", *words, "--output", "json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_runs_by_name_are_tested_task_by_task(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, "a", "b", "--store", str(store))
    assert [(row["name"], row["cells"][0]["value"]) for row in found["rows"]] == [("a", 25), ("b", 75)]
    assert [(test["n"], test["p"]) for test in found["tests"]] == [(10, 2 / 2**10)]


def test_rounds_and_rows_are_picked_by_name(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("a@0", "a", "b@3", "--store", str(store), "--baseline", "a", "--base", "a@0")
    found = compared(capsys, *words)
    assert [row["name"] for row in found["rows"]] == ["a@0", "a", "b@3"]
    assert (found["baseline"], found["base"]) == ("a", "a@0")
    assert {test["row"] for test in found["tests"]} == {"a@0", "b@3"}


def test_report_files_find_their_store(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, str(store / "runs/a/report.json"), f"{store}/runs/b/report.json@3")
    assert [row["name"] for row in found["rows"]] == ["a", "b@3"]
    assert len(found["tests"]) == 1


def test_a_copy_far_from_its_store_has_means_only(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy.json"
    copy.write_bytes((store / "runs/a/report.json").read_bytes())
    found = compared(capsys, str(copy), str(store / "runs/b/report.json"))
    assert [row["cells"][0]["tasks"] for row in found["rows"]] == [0, 20]
    assert found["tests"] == []
    assert any("--store names it" in note for note in found["notes"])
    assert len(compared(capsys, str(copy), "b", "--store", str(store))["tests"]) == 1


def test_evaluations_that_are_gone_leave_the_means(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "other" / "store", "gone", {3: {PYTHON: solved(2, 20)}}, is_kept=False)
    found = compared(capsys, "gone", "--store", str(tmp_path / "other" / "store"))
    assert found["rows"][0]["cells"][0]["value"] == 10
    assert "was not found: gone" in found["notes"][0]


def test_runs_of_one_name_are_called_as_given(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(tmp_path / "other" / "store", "a", {3: {PYTHON: solved(9, 20)}})
    found = compared(capsys, "a", str(other), "--store", str(store))
    assert [row["name"] for row in found["rows"]] == ["a", str(other)]


def test_the_papers_rows_stand_below(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(capsys, "a", "b", "--store", str(store), "--published", "soda-1", "--baseline", "SODA")
    assert [row["name"] for row in found["rows"]][2:4] == ["Base (soda-1)", "Evol-Instruct (soda-1)"]
    assert found["baseline"] == "SODA (soda-1)"
    assert found["columns"][0] == {"benchmark": "humaneval", "language": "python"}
    assert len(found["columns"]) == 8
    assert any("Table 1" in note for note in found["notes"])
    assert {test["over"] for test in found["tests"]} == {"cells"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "'nope' is neither a file nor a run with a report in "),
        (["a@9"], "the run a was not measured after round 9; use one of 0, 3"),
        (["a", "--metric", "pass@7"], "--metric: a has no pass@7; it measured pass@1"),
        (
            ["a", "--published", "soda-4"],
            "--metric: the table soda-4 has no pass@1; it has edit_similarity, codebleu",
        ),
        (["a", "--published", "x"], "--published: 'x' is no published table; use one of iterkd, "),
        (["a", "b", "--baseline", "c"], "--baseline: 'c' is no row of this table; use one of a, b"),
        (["a", "b", "--base", "c"], "--base: 'c' is no row of this table; use one of a, b"),
        (["a", "a"], "a is named twice; name each run and round once"),
        ([], "there is nothing to compare; name at least one run, or a published table"),
        (["other.json"], "other.json is no report.json; `soda report RUN` writes one"),
    ],
)
def test_mistakes_are_one_sentence(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "other.json").write_text('{"run": 1}')
    assert main(["compare", *words, "--store", str(store)]) == 64
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
