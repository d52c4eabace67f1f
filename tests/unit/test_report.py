"""The report: a run's artifacts go through the real stage and the real page; each test attacks one promise."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.context import Context, Input
from soda_jobs.records import record_id
from soda_jobs.report import RunFacts, StageFact, render
from soda_jobs.report.collect import ALL, POINTS, agreement, bootstrap, curve, sign_test
from soda_jobs.report.text import clip, plain, visible
from soda_jobs.stages.report import Settings, run

LANGUAGES = ("python", "java", "javascript")
SKILL = (0.0, 0.3, 0.55, 0.75)  # share of tasks solved after each round
Rows = list[dict[str, Any]]
Files = dict[str, list[tuple[str, dict[str, Rows]]]]  # input -> [(stage, {file: rows})]


class NoShards:
    """The report stage commits no shards; asking it to would be a bug."""

    def done(self) -> list[str]:
        raise AssertionError

    def read(self, name: str) -> bytes:
        raise AssertionError(name)

    def commit(self, name: str, data: bytes) -> bool:
        raise AssertionError(name)


# -- a small run of three rounds, written as its stages would write it ---------------------------------


def question(round_: int, number: int, language: str, source: str = "seed") -> dict[str, Any]:
    text = f"Write a {language} function `scale_{number}`: the sum of the first n multiples of {number + 2}."
    return {
        "id": record_id(source, round_, number, language),
        "iteration": round_,
        "parents": [],
        "instruction": text,
        "source": source,
        "language": language,
    }


def completion(item: dict[str, Any], round_: int, good: bool) -> dict[str, Any]:
    body = "return k * n * (n + 1) // 2" if good else "retrun n n n"
    text = f"```{item['language']}\ndef scale(n, k=3):\n    # sum of the first n multiples\n    {body}\n```"
    return {
        "id": record_id("completion", item["id"], round_),
        "iteration": round_,
        "parents": [item["id"]],
        "question_id": item["id"],
        "text": text,
        "finish_reason": "stop" if good else "length",
        "sample": 0,
        "usage": {"prompt_tokens": 40, "completion_tokens": 60},
    }


def execution(answer: dict[str, Any], language: str, good: bool, draw: random.Random) -> dict[str, Any]:
    verdict = "pass" if good else draw.choice(["syntax", "syntax", "logic", "name", "timeout", "type"])
    status = {"pass": "pass", "timeout": "timeout"}.get(verdict, "fail")
    return {
        "id": record_id("execution", answer["id"]),
        "iteration": answer["iteration"],
        "parents": [answer["id"]],
        "completion_id": answer["id"],
        "question_id": answer["question_id"],
        "sample": 0,
        "language": language,
        "status": status,
        "verdict": verdict,
        "detail": "" if good else "SyntaxError: invalid syntax (line 3)",
    }


def judgement(answer: dict[str, Any], good: bool, draw: random.Random) -> dict[str, Any]:
    total = draw.choice([4.0, 5.0, 5.5, 6.0] if good else [0.0, 1.0, 1.5, 2.0, 4.0])
    return {
        "id": record_id("judgement", answer["id"]),
        "iteration": answer["iteration"],
        "completion_id": answer["id"],
        "question_id": answer["question_id"],
        "analysis": "Code Analysis: the function follows the closed form and handles n = 0.",
        "per_rule": {"1": 2.0 if good else 0.0, "2": 1.0, "3": 1.0, "4": 0.5, "5": None},
        "total": total,
    }


def classification(item: dict[str, Any], round_: int, good: bool, total: float) -> dict[str, Any]:
    level = "easy" if good and total >= 4 else "medium" if good else "hard"
    return {"question_id": item["id"], "iteration": round_, "level": level, "rule": f"pass={good}"}


def small_run(languages: tuple[str, ...] = LANGUAGES, rounds: int = 3, tasks: int = 30) -> Files:
    """Every input of the report stage, as {input: [(stage name, {file: rows})]}."""
    draw = random.Random(7)
    files: Files = {name: [] for name in INPUTS}
    held_out = [question(0, n, lang, "benchmark:tutor") for lang in languages for n in range(tasks)]
    files["tasks"].append(("benchmark-tutor", {"rows.jsonl": held_out}))
    seeds = [question(0, n, lang) for lang in languages for n in range(40)]
    dropped = [{"id": f"d{n}", "reason": "benchmark" if n % 3 else "duplicate"} for n in range(14)]
    files["screened"].append(("r0-screen", {"rows.jsonl": seeds, "dropped.jsonl": dropped}))
    asked = list(seeds)
    for round_ in range(rounds + 1):
        _measure(files, held_out, round_, draw)
        if round_ == 0:
            continue
        for what in ("sft", "preference"):
            history = [
                {"step": s, "loss": 3.0 / (1 + s / 40) + 0.1, "learning_rate": 1e-3, "accuracy": 0.9}
                for s in range(1, 321)
            ]
            files["history"].append((f"r{round_}-{what}", {"history.jsonl": history}))
        if round_ < rounds:
            asked += _feedback(files, asked, round_, draw)
    files["questions"] = files["screened"] + files["new"]
    return files


def _measure(files: Files, held_out: Rows, round_: int, draw: random.Random) -> None:
    answers, executions, metrics = [], [], []
    scores: dict[str, dict[str, float]] = {}
    for item in held_out:
        good = draw.random() < SKILL[round_]
        answers.append(completion(item, round_, good))
        executions.append(execution(answers[-1], item["language"], good, draw))
        scores.setdefault(item["language"], {})[item["id"]] = float(good)
    for lang, per_task in scores.items():
        values = list(per_task.values())
        metrics.append(
            {
                "iteration": round_,
                "benchmark": "tutor",
                "language": lang,
                "metric": "pass@k",
                "k": 1,
                "n": len(values),
                "value": sum(values) / len(values),
                "ci": bootstrap(values),
                "per_task": per_task,
                "settings": {},
            }
        )
    files["metrics"].append((f"r{round_}-tutor-evaluate", {"rows.jsonl": metrics}))
    files["answers"].append((f"r{round_}-tutor-answers", {"rows.jsonl": answers}))
    files["answer_executions"].append((f"r{round_}-tutor-execute", {"rows.jsonl": executions}))


def _feedback(files: Files, asked: Rows, round_: int, draw: random.Random) -> Rows:
    answers, executions, judgements, levels = [], [], [], []
    for item in asked:
        good = draw.random() < SKILL[round_] + 0.1
        answers.append(completion(item, round_, good))
        executions.append(execution(answers[-1], item["language"], good, draw))
        judgements.append(judgement(answers[-1], good, draw))
        levels.append(classification(item, round_, good, judgements[-1]["total"]))
    new = [question(round_, n, lang, "new") for lang in LANGUAGES for n in range(20)]
    dropped = [{"id": f"n{n}", "reason": "near_duplicate"} for n in range(9)]
    files["attempts"].append((f"r{round_}-attempts", {"rows.jsonl": answers}))
    files["executions"].append((f"r{round_}-execute", {"rows.jsonl": executions}))
    files["judgements"].append((f"r{round_}-judge", {"rows.jsonl": judgements}))
    files["classifications"].append((f"r{round_}-classify", {"rows.jsonl": levels}))
    files["new"].append((f"r{round_}-screen", {"rows.jsonl": new, "dropped.jsonl": dropped}))
    return new


INPUTS = (
    "metrics", "screened", "new", "questions", "attempts", "executions", "judgements", "classifications",
    "tasks", "answers", "answer_executions", "history",
)  # fmt: skip


def summarise(files: Files, root: Path, **settings: Any) -> dict[str, Any]:
    """The summary that the real stage writes for these artifacts."""
    inputs: dict[str, tuple[Input, ...]] = {}
    for name, artifacts in files.items():
        folders = []
        for stage, contents in artifacts:
            folder = root / "in" / stage
            folder.mkdir(parents=True, exist_ok=True)
            for file, rows in contents.items():
                (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
            folders.append(Input(folder))
        if folders:
            inputs[name] = tuple(folders)
    out = root / "out"
    out.mkdir()
    context = Context("demo", "report", 3, inputs, out, root, {}, NoShards(), lambda unit, done, total: None)
    run(Settings(**{"method": "soda", "rounds": 3, **settings}), context)
    return dict(json.loads((out / "summary.json").read_bytes()))


def facts_of(files: Files, **changes: Any) -> RunFacts:
    """The run as the executor would describe it: a stage for every artifact, then the report."""
    roles = {"attempts": "student", "answers": "student", "executions": "sandbox", "judgements": "judge"}
    stages = {
        stage: StageFact(
            name=stage,
            kind="train" if name == "history" else name.rstrip("s"),
            round=int(stage[1]) if stage[0] == "r" else 0,
            key=record_id("key", stage) * 4,
            digest=record_id("digest", stage) * 4,
            state="reused" if stage == "r0-screen" else "done",
            seconds=3.0 + 7.5 * len(stage) % 19,
            rows=len(contents.get("rows.jsonl", ())),
            telemetry={"prompt_tokens": 4000.0, "completion_tokens": 6000.0} if name in roles else {},
            inputs={"questions": ["r0-screen"]} if name == "attempts" else {},
            role=roles.get(name, ""),
        )
        for name, artifacts in files.items()
        for stage, contents in artifacts
    }
    inputs = {name: [stage for stage, _ in artifacts] for name, artifacts in files.items()}
    report = StageFact("report", "report", 3, "k" * 64, "e" * 64, "done", 0.4, 0, inputs=inputs)
    ordered = sorted(stages.values(), key=lambda stage: stage.round)
    return RunFacts(
        **{
            "run": "quickstart",
            "method": "soda",
            "spec_yaml": "kind: DistillationRun\nspec:\n  method: soda\n",
            "stages": [*ordered, report],
            "versions": {"soda": "0.1.0", "torch": "2.15"},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], RunFacts]:
    files = small_run()
    return summarise(files, tmp_path_factory.mktemp("run")), facts_of(files)


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


def test_summary_is_the_same_bytes_for_the_same_artifacts(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for root in (first, second):
        root.mkdir()
        summarise(small_run(), root)
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
def test_what_a_model_or_program_writes_is_shown_and_not_obeyed(text: str, tmp_path: Path) -> None:
    files = small_run(tasks=2)
    for name in ("screened", "tasks", "attempts", "answers", "executions", "answer_executions", "judgements"):
        for _, contents in files[name]:
            for row in contents["rows.jsonl"]:
                row.update({key: text for key in ("instruction", "text", "detail", "analysis") if key in row})
    summary = summarise(files, tmp_path)
    page, document = render(summary, run=facts_of(files, run=text[:60], spec_yaml=text[:500]))
    assert len(page.encode("utf-8")) < 400_000
    json.dumps(document, ensure_ascii=False).encode("utf-8")
    checked = read_page(page)
    assert not {"script", "img"} & set(checked.tags)
    assert not any(name.startswith("on") for name, _ in checked.attributes)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)
    assert text != HOSTILE["template"] or "{{ 7 * 7 }}" in page


def test_a_million_characters_on_one_line_are_cut_with_a_note(tmp_path: Path) -> None:
    files = small_run(tasks=2)
    for _, contents in files["answers"]:
        for row in contents["rows.jsonl"]:
            row["text"] = "x" * 1_000_000
    page, _ = render(summarise(files, tmp_path), run=facts_of(files))
    assert "999,600 more characters not shown" in page


# -- runs that are not whole ---------------------------------------------------------------------------


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
    change: Callable[[Files], Files], words: str, tmp_path: Path
) -> None:
    files = change(small_run())
    page, _ = render(summarise(files, tmp_path), run=facts_of(files))
    assert words in "".join(read_page(page).texts)


def test_one_language_is_not_shown_twice(tmp_path: Path) -> None:
    summary = summarise(small_run(("go",)), tmp_path)
    assert {row["language"] for row in summary["metrics"]} == {"go"}


def test_no_stage_facts_at_all_still_give_a_page(finished: Any) -> None:
    page, document = render(finished[0], run=facts_of({}, stages=[]))
    assert "rose from" in "".join(read_page(page).texts)
    assert document["stages"] == []


def test_a_difference_that_chance_explains_is_called_so(tmp_path: Path) -> None:
    files = small_run(("go",), tasks=4)
    for place, value in ((0, 0.0), (-1, 0.25)):
        row = files["metrics"][place][1]["rows.jsonl"][0]
        row["per_task"] = dict.fromkeys("abc", 0.0) | {"d": 4 * value}
        row["value"] = value
    page, _ = render(summarise(files, tmp_path), run=facts_of(files))
    assert "a difference that chance could explain (p = 1.000)" in page


# -- what is counted -----------------------------------------------------------------------------------


def test_all_languages_are_pooled_task_by_task(finished: Any) -> None:
    rows = [row for row in finished[0]["metrics"] if row["round"] == 3]
    everything = next(row for row in rows if row["language"] == ALL)
    single = [row for row in rows if row["language"] != ALL]
    assert everything["n"] == sum(row["n"] for row in single) == 90
    assert everything["value"] == pytest.approx(sum(row["value"] * row["n"] for row in single) / 90)


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (9, 1, 22 / 1024), (3, 3, 1.0)]
)
def test_sign_test_equals_the_exact_binomial(gained: int, lost: int, p: float) -> None:
    assert sign_test(gained, lost) == p
    assert sign_test(lost, gained) == p


def judged(pairs: list[tuple[float | None, str]]) -> dict[str, Any]:
    rows: Rows = [{"iteration": 1, "completion_id": str(n), "total": total} for n, (total, _) in enumerate(pairs)]
    outcomes = {str(n): status for n, (_, status) in enumerate(pairs)}
    (found,) = agreement([({"input": "judgements", "index": 0}, rows)], outcomes)
    return found


def test_agreement_is_the_probability_that_a_pass_outscores_a_fail() -> None:
    found = judged([(6, "pass"), (4, "pass"), (4, "fail"), (1, "timeout"), (None, "fail"), (3, "unsupported")])
    assert found["auc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert (found["mean_passing"], found["mean_failing"], found["unread"], found["judged"]) == (5.0, 2.5, 1, 5)


def test_a_judge_that_always_says_the_same_is_called_so(tmp_path: Path) -> None:
    assert judged([(3, "pass"), (3, "fail")])["constant"]
    assert not judged([(3, "pass"), (2, "fail")])["constant"]
    files = small_run()
    for _, contents in files["judgements"]:
        for row in contents["rows.jsonl"]:
            row["total"] = 3.0
    page, _ = render(summarise(files, tmp_path), run=facts_of(files))
    assert "gave every answer the same score, 3: it tells nothing apart" in page


@pytest.mark.parametrize("steps", [0, 1, 2, 199, 200, 201, 5000])
def test_curves_keep_their_ends_and_at_most_200_points(steps: int) -> None:
    history = [{"step": step, "loss": 1 / step} for step in range(1, steps + 1)]
    points = curve({"input": "history", "index": 0}, history)["series"].get("loss", [])
    assert len(points) == min(steps, POINTS)
    assert [point[0] for point in points] == sorted({point[0] for point in points})
    if steps:
        assert (points[0][0], points[-1][0]) == (1, steps)


def test_the_story_of_a_held_out_task_is_a_failure_that_became_a_pass(finished: Any) -> None:
    learned = [item for item in finished[0]["held_out"] if item["story"] == "learned"]
    assert len({item["answers"][0]["execution"]["language"] for item in learned}) == 3
    for item in learned:
        assert [one["round"] for one in item["answers"]] == [0, 3]
        assert item["answers"][0]["execution"]["status"] != "pass"
        assert item["answers"][1]["execution"]["status"] == "pass"


def test_samples_cover_every_level_that_has_questions(finished: Any) -> None:
    assert {item["story"] for item in finished[0]["samples"]} == {"easy", "medium", "hard"} & set(
        finished[0]["difficulty"][-1]["levels"]
    )


def test_rejects_are_counted_by_reason_for_every_screen(finished: Any) -> None:
    assert [item["reasons"] for item in finished[0]["rejects"]] == [
        {"benchmark": 9, "duplicate": 5},
        {"near_duplicate": 9},
        {"near_duplicate": 9},
    ]


def strings() -> Iterator[str]:
    draw = random.Random(3)
    for _ in range(300):
        yield "".join(chr(draw.choice([draw.randrange(0x80), draw.randrange(0x110000)])) for _ in range(40))


def test_any_string_becomes_text_that_encodes_and_does_not_act() -> None:
    for text in strings():
        for shown in (visible(text), clip(text, limit=20)["text"], plain({text: text})):
            json.dumps(shown, ensure_ascii=False).encode("utf-8")
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", visible(text))
