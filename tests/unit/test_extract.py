"""Which part of an answer is the program."""

import time

import pytest

from soda_jobs.extract import Extracted, answer_code, extract

ADD = "def add(a, b):\n    return a + b\n"


def fenced(code: str, tag: str = "python", fence: str = "```") -> str:
    return "\n".join([f"{fence}{tag}", code.removesuffix("\n"), fence, ""])


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        *[(tag, "python") for tag in ("python", "Python", "py", "python3", "PYTHON", " python", "{.python}")],
        *[(tag, "javascript") for tag in ("javascript", "js", "JS", "node", "nodejs", "mjs")],
        *[(tag, "cpp") for tag in ("cpp", "c++", "C++", "cxx", "cc", "c++17")],
        *[("c", "c"), ("C", "c"), ("java", "java"), ("Java", "java"), ("go", "go"), ("golang", "go")],
        *[("python title=main.py", "python"), ("js {1,3}", "javascript")],
    ],
)
def test_a_tag_names_its_language(tag: str, language: str) -> None:
    assert extract(fenced("x = 1\n", tag)) == Extracted(language, "x = 1\n", True)


@pytest.mark.parametrize("tag", ["sql", "html", "bash", "json", "typescript", "php", "rust", "ruby", "output"])
def test_a_block_in_another_language_is_unsupported(tag: str) -> None:
    assert extract(f"Here you are:\n{fenced('select 1;', tag)}") == Extracted(None, "", True)


@pytest.mark.parametrize(("tag", "language"), [("ts", "typescript"), ("rust", "rust"), ("rb", "ruby")])
def test_a_language_beyond_sodas_six_counts_where_it_is_executed(tag: str, language: str) -> None:
    text = f"{fenced('x', tag)}{fenced(ADD)}"
    assert extract(text, also=[language]).language == language
    assert extract(text, language=language).code == "x\n"
    assert extract(text) == Extracted("python", ADD, True)


def test_the_first_supported_block_is_taken() -> None:
    text = f"{fenced('pip install x', 'bash')}Then:\n{fenced(ADD)}and\n{fenced('add(1, 2)')}"
    assert extract(text).code == ADD


def test_the_block_that_defines_the_entry_point_comes_first() -> None:
    text = f"Usage:\n{fenced('print(add(1, 2))')}Solution:\n{fenced(ADD)}"
    assert extract(text, entry_point="add").code == ADD
    assert extract(text).code != ADD


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("c", "static unsigned int *add(int a, int b) {\n}\n"),
        ("cpp", "std::vector<int> add(int a) {\n}\n"),
        ("java", "class S {\n    public List<int[]> add(int a) {}\n}\n"),
        ("js", "const add = (a, b) => a + b;\n"),
        ("js", "function add(a) {}\n"),
        ("go", "func add(a int) int {\n}\n"),
        ("rust", "pub fn add(a: i32) -> i32 {\n}\n"),
        ("ruby", "def add(a)\nend\n"),
        ("ts", "const add = (a: number): number => a;\n"),
        ("python", "class add:\n    pass\n"),
        ("python", "async def add(a):\n    pass\n"),
    ],
)
def test_definitions_are_seen_in_every_language(tag: str, code: str) -> None:
    text = f"{fenced('return add(1, 2);', tag)}{fenced(code, tag)}"
    assert extract(text, entry_point="add", also=["rust", "ruby", "typescript"]).code == code


def test_the_wanted_language_is_taken_though_another_comes_first() -> None:
    text = fenced("int x;\n", "c") + fenced(ADD)
    assert extract(text, language="python") == Extracted("python", ADD, True)
    assert extract(text, language="go") == Extracted(None, "", True)


def test_an_unclosed_block_is_incomplete() -> None:
    assert extract(f"Sure:\n```python\n{ADD}") == Extracted("python", ADD, False)


def test_a_block_cut_by_the_next_one_is_incomplete() -> None:
    assert extract(f"```python\n{ADD}```python\nx = 1\n```\n") == Extracted("python", ADD, False)


def test_a_longer_fence_holds_a_shorter_one() -> None:
    code = 'DOC = """\n```\nexample\n```\n"""\n'
    assert extract(fenced(code, fence="````")).code == code


def test_tildes_and_indented_fences_work() -> None:
    assert extract(fenced(ADD, fence="~~~")).code == ADD
    text = "1. First:\n   ```python\n   def add(a, b):\n       return a + b\n   ```\n"
    assert extract(text).code == ADD


def test_a_fence_may_end_a_sentence() -> None:
    assert extract(f"The code is: ```python\n{ADD}```\nDone.").code == ADD


def test_inline_code_is_no_block() -> None:
    assert extract("Use ```print(1)``` or `x`.") == Extracted(None, "", True)


def test_line_ends_and_colours_do_not_matter() -> None:
    assert (
        extract(f"\x1b[1mCode\x1b[0m\r\n```python\r\n{ADD}```\r\n".replace("\n", "\r\n")).code.split()
        == ADD.split()
    )


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("python", ADD),
        ("python", "    return a + b\n"),
        ("python", "    x = 1\n    x += 2\n"),
        ("c", "int add(int a, int b) { return a + b; }\n"),
        ("cpp", "#include <vector>\nint f();\n"),
        ("java", "public class A {}\n"),
        ("javascript", "const add = (a, b) => a + b;\n"),
        ("go", "package main\nfunc main() {}\n"),
        ("python", "def add(a, b:\n    return"),
    ],
)
def test_text_without_a_fence_counts_when_its_language_is_asked_for(language: str, text: str) -> None:
    assert extract(text, language=language) == Extracted(language, text, True)


def test_prose_is_not_a_program() -> None:
    assert extract("I am sorry, I cannot do that.", language="python").language is None
    assert extract(ADD).language is None  # no fence and nothing asked for
    assert extract("", language="python").language is None


@pytest.mark.parametrize(
    ("code", "language"),
    [
        (ADD, "python"),
        ("#include <stdio.h>\nint main() {}\n", "c"),
        ("#include <iostream>\nint main() {}\n", "cpp"),
        ("public class A {}\n", "java"),
        ("package main\n", "go"),
        ("console.log(1);\n", "javascript"),
        ("Hello world\n", None),
        ("[1, 2]\n", None),
    ],
)
def test_a_block_without_a_tag_is_known_by_its_look(code: str, language: str | None) -> None:
    assert extract(fenced(code, "")).language == language
    assert extract(fenced(code, ""), language="go").language == "go"


def test_a_judge_reads_something_whatever_the_answer_holds() -> None:
    assert answer_code(f"Look:\n{fenced(ADD)}") == ADD
    assert answer_code(fenced("select 1;\n", "sql")) == "select 1;\n"
    assert answer_code("  just words \n") == "just words"


@pytest.mark.parametrize(
    "text",
    [
        "`" * 300_000,
        "```" + " " * 300_000 + "`",
        "```python\n" * 30_000,
        ("." * 1000 + "```\n") * 300,
        "public " * 50_000,
        "(" * 300_000,
        "-" * 150_000 + "1",
        "```python\n" + "a " * 150_000 + "\n```",
        "\x1b[" * 100_000,
        " " * 300_000,
        "int " + "x" * 300_000,
    ],
)
def test_hostile_text_takes_linear_time(text: str) -> None:
    started = time.process_time()
    extract(text, language="python", entry_point="add")
    extract(text, entry_point="add")
    answer_code(text)
    assert time.process_time() - started < 2.0
