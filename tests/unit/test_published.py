"""The published tables: whole, typed, and as consistent with the papers' own prose as the papers are."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytest

from soda_jobs.methods import METHODS as KNOWN_METHODS
from soda_jobs.metrics.published import FOLDER, Column, Table, load, names, parse
from soda_jobs.metrics.statistics import gain_ratio, relative_gain
from soda_jobs.report.facts import LANGUAGES

ONE, TWO, FOUR = load("soda-1"), load("soda-2"), load("soda-4")
HUMANEVAL, MBPP = ("humaneval", "python"), ("mbpp", "python")
MULTIPLE = [column for column in ONE.columns if column[0] == "multipl-e"]
METHODS = {"soda", "iterkd", "scoder", "ssd", "evol-instruct", "oss-instruct", "persd", "mft"}


# -- whole and typed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_every_table_has_a_source_and_values_of_its_units(name: str) -> None:
    table = load(name)
    assert table.paper
    assert table.place
    assert table.source
    assert table.url.startswith("https://")
    assert {cell.metric for cell in table.cells} <= set(table.units)
    for cell in table.cells:
        assert (cell.benchmark, cell.language) in table.columns
        assert cell.language in LANGUAGES
        assert cell.row in table.rows
        assert cell.method is None or cell.method in METHODS
        top = {"percent": 100, "points from 0 to 6": 6}.get(table.units[cell.metric], 100)
        assert 0 <= cell.value <= top
        assert table.value(cell.row, cell.metric, (cell.benchmark, cell.language)) == cell.value


def test_methods_of_the_tables_are_those_of_the_spec() -> None:
    assert set(KNOWN_METHODS) <= METHODS


def test_the_tables_of_the_soda_paper_are_complete() -> None:
    assert [len(load(f"soda-{n}").cells) for n in (1, 2, 3, 4)] == [6 * 8 * 3, 20 * 7 * 3, 2 * 7, 10 * 2 * 2]
    assert [len(load(f"soda-{n}").averages) for n in (1, 2, 3)] == [6 * 3, 20 * 3, 2]


def test_a_gap_is_none_and_an_unknown_table_is_named() -> None:
    assert load("ssd").value("Qwen3-4B-Instruct", "pass@1", ("livecodebench-v5", "python")) is None
    assert load("ssd").value("nobody", "pass@1", HUMANEVAL) is None
    with pytest.raises(ValueError, match="'soda-9' is no published table; use one of iterkd, "):
        load("soda-9")


def document(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((FOLDER / "soda-3.json").read_text(encoding="utf-8"))
    return {**made, **changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row["values"]["pass@1"].pop(), "6 values of pass@1 for 7 columns"),
        (lambda row: row["values"].update({"pass@2": [1.0] * 7}), "no unit for pass@2"),
        (lambda row: row["values"]["pass@1"].__setitem__(0, math.nan), "nan is no value of pass@1"),
        (lambda row: row.update(row="Llama3-70B as teacher"), "two rows of one name"),
    ],
)
def test_a_damaged_table_is_refused(change: Callable[[Any], object], message: str) -> None:
    damaged = document()
    change(damaged["rows"][0])
    with pytest.raises(ValueError, match=message):
        parse("soda-3", damaged)


# -- averages ------------------------------------------------------------------------------------------


def cut(value: float, digits: int) -> float:
    return math.floor(value * 10**digits + 1e-6) / 10**digits


def averages_that(fit: Callable[[float, float, int], bool]) -> set[tuple[str, str, str]]:
    """(table, row, metric) of the printed averages for which fit(computed, printed, digits) holds."""
    found = set()
    for table in (ONE, TWO, load("soda-3")):
        for (row, metric), printed in table.averages.items():
            digits = 2 if (table.name, metric) == ("soda-1", "model_score") else 1
            if fit(fmean(table.values(row, metric).values()), printed, digits):
                found.add((table.name, row, metric))
    return found


def test_printed_averages_are_those_of_the_cells_cut_or_rounded() -> None:
    def neither(computed: float, printed: float, digits: int) -> bool:
        return printed not in (round(computed, digits), cut(computed, digits))

    assert averages_that(neither) == {("soda-2", "StarCoder2-15B", "model_score")}
    assert round(fmean(TWO.values("StarCoder2-15B", "model_score").values()), 1) == 3.3  # printed 3.4


def test_some_averages_were_cut_instead_of_rounded() -> None:
    found = averages_that(lambda computed, printed, digits: printed < round(computed, digits) - 1e-6)
    assert ("soda-1", "SODA", "model_score") in found
    assert len(found) >= 10
    assert any("cut, not rounded" in note for note in ONE.notes)


# -- what the papers say in words ----------------------------------------------------------------------


def average(row: str, metric: str = "pass@1", table: Table = ONE) -> float:
    return table.averages[row, metric]


def cell(row: str, column: Column = HUMANEVAL, metric: str = "pass@1", table: Table = ONE) -> float:
    value = table.value(row, metric, column)
    assert value is not None
    return value


def over_base(row: str, columns: list[Column]) -> float:
    """The mean of the relative gains over the base, column by column."""
    return fmean(relative_gain(cell(row, column), cell("Base", column)) for column in columns)


def soda_over(other: str, metric: str, column: Column | None = HUMANEVAL) -> float:
    if column is None:
        return relative_gain(average("SODA", metric), average(other, metric))
    return relative_gain(cell("SODA", column, metric), cell(other, column, metric))


DS, GPT = "SodaCoder-DS-6.7B", "GPT-4-Turbo"
ADDS_UP: list[tuple[str, float, Callable[[], float]]] = [
    ("abstract: +84.18 % on HumanEval", 84.18, lambda: over_base("SODA", [HUMANEVAL])),
    ("section 1: +69.27 % on MultiPL-E, the mean of six gains", 69.27, lambda: over_base("SODA", MULTIPLE)),
    ("section 1: 39.90 % ahead of PERsD on HumanEval", 39.90, lambda: gain_ratio(65.2, 56.7, 35.4)),
    ("5.1: least gain on MultiPL-E, Go", 60.19, lambda: over_base("SODA", [("multipl-e", "go")])),
    (
        "5.1: largest gain on MultiPL-E, JavaScript",
        77.81,
        lambda: over_base("SODA", [("multipl-e", "javascript")]),
    ),
    ("5.1: pass@10 on HumanEval", 51.51, lambda: soda_over("Base", "pass@10")),
    ("5.1: pass@10 on MBPP", 24.87, lambda: soda_over("Base", "pass@10", MBPP)),
    ("5.1: over Evol-Instruct on HumanEval", 33.88, lambda: soda_over("Evol-Instruct", "pass@1")),
    ("5.1: over OSS-Instruct on HumanEval", 46.51, lambda: soda_over("OSS-Instruct", "pass@1")),
    ("5.1: over Evol-Instruct on average", 16.61, lambda: soda_over("Evol-Instruct", "pass@1", None)),
    ("5.1: over OSS-Instruct on average", 34.39, lambda: soda_over("OSS-Instruct", "pass@1", None)),
    ("5.1: pass@10 over Evol-Instruct", 24.37, lambda: soda_over("Evol-Instruct", "pass@10")),
    ("5.1: pass@10 over OSS-Instruct", 29.08, lambda: soda_over("OSS-Instruct", "pass@10")),
    ("5.1: score over Evol-Instruct", 36.18, lambda: soda_over("Evol-Instruct", "model_score")),
    ("5.1: score over OSS-Instruct", 39.66, lambda: soda_over("OSS-Instruct", "model_score")),
    ("5.1: over PERsD on average", 10.11, lambda: soda_over("PERsD", "pass@1", None)),
    ("5.1: pass@10 over PERsD on average", 11.53, lambda: soda_over("PERsD", "pass@10", None)),
    ("5.1: score over PERsD on average", 11.71, lambda: soda_over("PERsD", "model_score", None)),
    ("5.3: +21.3 points in the first round", 21.3, lambda: rounds("Round 1") - rounds("Base")),
    (
        "5.4: SodaCoder-DS over its base",
        44.89,
        lambda: relative_gain(average(DS, table=TWO), average("DeepseekCoder-6.7B", table=TWO)),
    ),
    (
        "5.4: MFTCoder-CL's score over CodeLlama-13B's",
        29.03,
        lambda: score_gain("MFTCoder-CL-13B", "CodeLlama-13B"),
    ),
    ("5.4: WizardCoder-SC's over StarCoder's", 30.76, lambda: score_gain("WizardCoder-SC-15B", "StarCoder-15B")),
    ("6.4: edit similarity lost without fault learning", 10.34, lambda: fmean(losses())),
]


def rounds(row: str) -> float:
    return cell(row, table=load("soda-rounds"))


def score_gain(row: str, base: str) -> float:
    return relative_gain(average(row, "model_score", TWO), average(base, "model_score", TWO))


def losses() -> list[float]:
    """What each model loses in each language, in percent of what it had."""
    return [
        -relative_gain(cell(f"{row} without fault", column, "edit_similarity", FOUR), had)
        for row in ("SodaCoder-CL", "SodaCoder-DS")
        for column, had in FOUR.values(row, "edit_similarity").items()
    ]


@pytest.mark.parametrize(("where", "stated", "computed"), ADDS_UP, ids=[item[0] for item in ADDS_UP])
def test_prose_that_the_table_confirms(where: str, stated: float, computed: Callable[[], float]) -> None:
    """To the last digit or so: the paper cuts its percentages as often as it rounds them."""
    assert computed() == pytest.approx(stated, abs=0.015)


# Where it does not add up: (where, what the paper says, what its own table gives, a word of the table's note).
MISFITS: list[tuple[str, float, float, Callable[[], float]]] = [
    ("abstract: average gain", 65.96, 66.17, lambda: soda_over("Base", "pass@1", None)),
    ("the same from unrounded averages", 65.96, 65.93, lambda: relative_gain(mean("SODA"), mean("Base"))),
    ("section 1: gain on MBPP", 39.52, 39.32, lambda: over_base("SODA", [MBPP])),
    ("section 1: gain ratio to PERsD on MBPP", 35.03, 34.31, lambda: gain_ratio(65.2, 60.5, 46.8)),
    (
        "section 1: gain ratio to PERsD on MultiPL-E",
        30.60,
        27.44,
        lambda: 100 * (over_base("SODA", MULTIPLE) / over_base("PERsD", MULTIPLE) - 1),
    ),
    ("abstract: gain ratio to PERsD", 29.85, 29.78, lambda: gain_ratio(mean("SODA"), mean("PERsD"), mean("Base"))),
    (
        "5.4: SodaCoder-DS's pass@10 over its base",
        38.0,
        41.76,
        lambda: relative_gain(average(DS, "pass@10", TWO), average("DeepseekCoder-6.7B", "pass@10", TWO)),
    ),
    ("5.4: largest gain over a distilled model", 230.3, 61.80, lambda: max(over_distilled())),
    ("abstract: SodaCoder-DS", 66.4, 66.5, lambda: average(DS, table=TWO)),
    ("abstract: ChatGPT", 61.3, 61.4, lambda: average("ChatGPT", table=TWO)),
]


def mean(row: str) -> float:
    return fmean(ONE.values(row, "pass@1").values())


def over_distilled() -> list[float]:
    """SodaCoder-DS against the six distilled models."""
    others = TWO.rows[TWO.rows.index("WizardCoder-SC-15B") : TWO.rows.index("SodaCoder-CL-7B")]
    assert len(others) == 6
    return [relative_gain(average(DS, table=TWO), average(row, table=TWO)) for row in others]


@pytest.mark.parametrize(("where", "stated", "given", "computed"), MISFITS, ids=[item[0] for item in MISFITS])
def test_prose_that_the_table_does_not_confirm(
    where: str, stated: float, given: float, computed: Callable[[], float]
) -> None:
    assert computed() == pytest.approx(given, abs=0.006)
    assert computed() != pytest.approx(stated, abs=0.02)


def test_the_misprint_on_mbpp_explains_the_ratio_that_follows_it() -> None:
    persd = relative_gain(cell("PERsD", MBPP), cell("Base", MBPP))
    assert 100 * (39.52 / persd - 1) == pytest.approx(35.03, abs=0.05)


def test_misfits_are_told_with_the_table() -> None:
    for table, words in ((ONE, ("65.96", "39.52", "35.03", "30.60")), (TWO, ("38.0", "230.3", "66.4"))):
        for word in words:
            assert any(word in note for note in table.notes), word


def test_tables_agree_with_each_other() -> None:
    for column in TWO.columns:  # the final models are those of the method
        assert cell("SodaCoder-CL-7B", column, table=TWO) == cell("SODA", column)
        assert cell("CodeLlama-7B", column, table=TWO) == cell("Base", column)
        assert cell("Llama3-70B as teacher", column, table=load("soda-3")) == cell("SODA", column)
    # But not in pass@10, as a note says.
    assert cell("CodeLlama-7B", HUMANEVAL, "pass@10", TWO) != cell("Base", HUMANEVAL, "pass@10")
    assert rounds("Round 3") == cell("SODA") == cell("IterCoder", table=load("iterkd"))
    assert rounds("Base") == cell("Base")


def test_gains_that_other_papers_state() -> None:
    ssd, easy = load("ssd"), ("livecodebench-v6", "python")
    hard = ("livecodebench-v6:hard", "python")

    def gain(model: str, metric: str, column: Column) -> float:
        return cell(f"{model}, SSD", column, metric, ssd) - cell(model, column, metric, ssd)

    large, small = "Qwen3-30B-A3B-Instruct", "Qwen3-4B-Instruct"
    assert gain(large, "pass@1", easy) == pytest.approx(12.9)
    assert gain(large, "pass@1", hard) == pytest.approx(15.3)
    assert gain(large, "pass@5", hard) == pytest.approx(23.0)
    assert gain(small, "pass@1", easy) == pytest.approx(7.5)
