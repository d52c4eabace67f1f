"""A language is a row: every place that spells the names of languages has them all."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from soda_jobs.extract import extract
from soda_jobs.report.facts import LANGUAGES as TITLES
from soda_jobs.sandbox.languages import LANGUAGES
from soda_jobs.sandbox.precompiled import headers_of
from soda_jobs.spec import LANGUAGES as NAMED
from soda_jobs.spec import Language
from tests.cluster import images

ROOT = Path(__file__).parents[2]
CODE = {"java": "public class Main { }"}


def test_the_spec_names_the_rows() -> None:
    assert set(LANGUAGES) == set(NAMED) == set(get_args(Language))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_known_everywhere(language: str) -> None:
    image = f"sandbox-{language}"
    assert (ROOT / "tests/sandbox" / f"test_{language}.py").exists()
    assert images.dockerfile(image).exists()
    assert image in images.NAMES
    assert image in yaml.safe_load((ROOT / "charts/soda/values.yaml").read_text())["images"]
    assert (
        image
        in json.loads((ROOT / "charts/soda/values.schema.json").read_text())["properties"]["images"]["required"]
    )
    assert extract(f"```{language}\nx\n```\n", language=language).code == "x\n"
    assert language in TITLES


def test_the_table_in_the_docs_is_the_tables() -> None:
    text = (ROOT / "docs/sandbox.md").read_text().partition("## Languages")[2].partition("\n## ")[0]
    rows = {cells[0].strip("`"): cells[1:] for line in text.splitlines() if (cells := _cells(line))}
    assert list(rows) == list(LANGUAGES)
    for name, language in LANGUAGES.items():
        tools, file, compiler, warm = rows[name]
        joined = language.join(CODE.get(name, ""), "")
        assert tools == ", ".join(f"`{tool}`" for tool in language.tools)
        assert file.strip("`") in joined.files
        assert ("stays" in warm) == (language.service is not None)
        assert ("headers" in warm) == (name == "cpp" and headers_of("#include <map>\n") == ("map",))
        assert bool(compiler) == _is_compiled(name)


def _is_compiled(name: str) -> bool:
    return name not in ("python", "javascript", "ruby")


def _cells(line: str) -> list[str]:
    found = re.fullmatch(r"\| (`\w+`) (\|.*)\|", line)
    return [] if found is None else [found[1], *(cell.strip() for cell in found[2].strip("|").split("|"))]
