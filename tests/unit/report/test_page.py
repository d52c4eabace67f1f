"""The page and the document: self-contained, honest about what is missing, unmoved by hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from soda_jobs.methods.drawing import REPORT_INPUTS
from soda_jobs.report import render
from soda_jobs.report.published import paper
from soda_jobs.stages import report as report_stage

# -- the page ------------------------------------------------------------------------------------------

VOID = {"meta", "br", "img", "link", "hr", "input"}


class Checker(HTMLParser):
    """Collects what could act or reach out, and checks that tags nest and ids are unique."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            self.attributes.append((name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read_page(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    return checker


def test_page_is_one_file_that_asks_the_network_for_nothing_and_runs_nothing(finished: Any) -> None:
    page = read_page(render(finished[0], run=finished[1])[0])
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert not any(name.startswith("on") or name in ("src", "srcset") for name, _ in page.attributes)
    assert not re.search(r"url\(|@import|https?://", render(finished[0], run=finished[1])[0])


def test_every_link_of_the_page_leads_somewhere_in_it(finished: Any) -> None:
    page = read_page(render(finished[0], run=finished[1])[0])
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_first_sentence_says_what_was_measured_with_interval(finished: Any) -> None:
    page, document = render(finished[0], run=finished[1])
    last = document["rounds"][-1]["metrics"][0]
    value, (low, high) = last["value"], last["ci"]
    assert document["result"] == (
        f"pass@1 on 90 held-out tasks of tutor rose from 0.00 to {value:.2f} "
        f"(95 % CI {low:.2f}–{high:.2f}) in 3 rounds."
    )
    assert document["result"] in "".join(read_page(page).texts)


def test_every_score_on_the_page_has_the_digest_of_its_evaluation(finished: Any) -> None:
    summary, run_facts = finished
    document = render(summary, run=run_facts)[1]
    digests = {stage.name: stage.digest for stage in run_facts.stages}
    for item in document["rounds"]:
        for row in item["metrics"]:
            assert row["digest"] == digests[f"r{item['round']}-tutor-evaluate"]


def test_document_has_the_promised_shape(finished: Any) -> None:
    document = render(finished[0], run=finished[1])[1]
    assert {"run", "method", "rounds", "stages"} <= set(document)
    assert [item["round"] for item in document["rounds"]] == [0, 1, 2, 3]
    for row in document["rounds"][0]["metrics"]:
        assert {"benchmark", "language", "metric", "k", "n", "value", "ci"} <= set(row)
    for stage in document["stages"]:
        assert {"name", "key", "digest", "state", "seconds", "rows"} <= set(stage)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_summary_is_the_same_bytes_for_the_same_artifacts(tmp_path: Path, make: Any) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for root in (first, second):
        root.mkdir()
        make.summary(make.files(), root)
    assert (first / "out/summary.json").read_bytes() == (second / "out/summary.json").read_bytes()


HOSTILE = {
    "script": "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>",
    "ansi": "\x1b[31mred\x1b[0m \x07 \x00 \x9b31m",
    "surrogate": "half \ud83d a pair \udc00",
    "reordered": "if admin: \u202e\u2066// nothing\u2069",
    "template": "{{ 7 * 7 }} {% raw %}",
    "long line": "x" * 20_000,
    "svg": "<svg/onload=alert(1)>",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_a_model_or_program_writes_is_shown_and_not_obeyed(text: str, make: Any) -> None:
    files = make.files(tasks=2)
    for name in ("screened", "tasks", "attempts", "answers", "executions", "answer_executions", "judgements"):
        for _, contents in files[name]:
            for row in contents["rows.jsonl"]:
                row.update({key: text for key in ("instruction", "text", "detail", "analysis") if key in row})
    summary = make.summary(files)
    page, document = render(summary, run=make.facts(files, run=text[:60], spec_yaml=text[:500]))
    assert len(page.encode("utf-8")) < 400_000
    json.dumps(document, ensure_ascii=False).encode("utf-8")
    checked = read_page(page)
    assert not {"script", "img"} & set(checked.tags)
    assert not any(name.startswith("on") for name, _ in checked.attributes)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert text != HOSTILE["template"] or "{{ 7 * 7 }}" in page


def test_a_million_characters_on_one_line_are_cut_with_a_note(make: Any) -> None:
    files = make.files(tasks=2)
    for _, contents in files["answers"]:
        for row in contents["rows.jsonl"]:
            row["text"] = "x" * 1_000_000
    page, _ = render(make.summary(files), run=make.facts(files))
    assert "999,600 more characters not shown" in page


# -- runs that are not whole ---------------------------------------------------------------------------


INPUTS = (
    "metrics", "screened", "new", "questions", "attempts", "executions", "judgements", "classifications",
    "tasks", "answers", "answer_executions", "history",
)  # fmt: skip
Files = dict[str, Any]


def without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: ([] if name in names else artifacts) for name, artifacts in files.items()}


DEGENERATE: Mapping[str, tuple[Callable[[Files], Files], str]] = {
    "nothing at all": (without(*INPUTS), "Nothing has been measured yet"),
    "no round finished": (
        lambda files: {**without(*INPUTS)(files), "metrics": files["metrics"][:1]},
        "untouched student",
    ),
    "no judge": (without("judgements"), "This run had no judge"),
    "no execution": (without("executions"), "This run executed no training answers"),
    "no classification": (without("classifications"), "This run sorted no questions"),
    "no answers kept": (without("answers", "tasks"), "rose from"),
    "evaluated at the end only": (
        lambda files: {**files, "metrics": [files["metrics"][0], files["metrics"][-1]]},
        "in 3 rounds",
    ),
    "artifacts without rows": (
        lambda files: {
            name: [(stage, {file: [] for file in contents}) for stage, contents in artifacts]
            for name, artifacts in files.items()
        },
        "Nothing has been measured yet",
    ),
}


@pytest.mark.parametrize(("change", "words"), DEGENERATE.values(), ids=DEGENERATE.keys())
def test_a_run_that_lacks_parts_still_has_a_page_that_says_so(
    change: Callable[[Files], Files], words: str, make: Any
) -> None:
    files = change(make.files())
    page, _ = render(make.summary(files), run=make.facts(files))
    assert words in "".join(read_page(page).texts)


def test_one_language_is_not_shown_twice(make: Any) -> None:
    summary = make.summary(make.files(("go",)))
    assert {row["language"] for row in summary["metrics"]} == {"go"}


def test_no_stage_facts_at_all_still_give_a_page(finished: Any, make: Any) -> None:
    page, document = render(finished[0], run=make.facts({}, stages=[]))
    assert "rose from" in "".join(read_page(page).texts)
    assert document["stages"] == []


def test_prices_and_cached_tokens_are_shown_where_there_are_any(finished: Any) -> None:
    plain = render(finished[0], run=finished[1])[0]
    assert "Price of tokens" not in plain
    assert "of them cached" not in plain
    paid = {"prompt_tokens": 4000.0, "cached_tokens": 3210.0, "completion_tokens": 6000.0, "cost": 1234.5}
    first, *rest = finished[1].stages
    run = replace(finished[1], stages=[replace(first, telemetry=paid), *rest])
    page, document = render(finished[0], run=run)
    texts = read_page(page).texts
    assert {"Price of tokens", "1,234.50", "of them cached", "3,210"} <= set(texts)
    assert sum(row["money"] for row in document["costs"]) == 1234.5
    assert any(" for the tokens of endpoints, everything included." in text for text in texts)


def test_a_difference_that_chance_explains_is_called_so(make: Any) -> None:
    files = make.files(("go",), tasks=4)
    for place, value in ((0, 0.0), (-1, 0.25)):
        row = files["metrics"][place][1]["rows.jsonl"][0]
        row["per_task"] = dict.fromkeys("abc", 0.0) | {"d": 4 * value}
        row["value"] = value
    page, _ = render(make.summary(files), run=make.facts(files))
    assert "a difference that chance could explain (p = 1.000)" in page


def test_every_stage_but_the_report_has_a_box_that_leads_to_its_row(finished: Any) -> None:
    summary, run = finished
    page, _ = render(summary, run=run)
    graph = page[page.index('<svg class="graph"') :].split("</svg>")[0]
    boxes = re.findall(r'href="#stage-([^"]+)"', graph)
    assert sorted(boxes) == sorted(stage.name for stage in run.stages if stage.kind != "report")


@pytest.mark.parametrize(
    ("benchmark", "language", "k", "method", "cell"),
    [
        ("humaneval", "python", 1, "soda", {"before": 0.354, "after": 0.652}),
        ("multipl-e", "go", 1, "evol-instruct", {"before": 0.304, "after": 0.432}),
        ("tutor-heldout", "python", 1, "soda", None),
        ("humaneval", "python", 10, "soda", None),
        ("mbpp", "python", 1, "ssd", None),
    ],
)
def test_paper_stands_beside_a_run_only_where_it_measured_the_same(
    benchmark: str, language: str, k: int, method: str, cell: dict[str, float] | None
) -> None:
    row = {"benchmark": benchmark, "language": language, "metric": f"pass@{k}", "k": k}
    assert paper(row, method) == (None if cell is None else pytest.approx(cell))


def test_report_reads_every_input_that_the_method_gives_it(tmp_path: Path) -> None:
    asked: set[str] = set()

    class Inputs(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return default

    context = SimpleNamespace(inputs=Inputs(), out=tmp_path)
    report_stage.run(report_stage.Settings(method="soda", rounds=3), context)
    assert asked == set(REPORT_INPUTS)
