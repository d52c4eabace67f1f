"""The tutor's programs, run directly by their toolchains: right ones pass, faulty ones fail as named."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from soda_jobs.models.parse import is_self_revealing
from soda_jobs.prompts import render
from soda_jobs.prompts.faults import FAULTS
from soda_jobs.tutor.builtin import heldout_tasks
from soda_jobs.tutor.checks import check_program, inputs
from soda_jobs.tutor.draw import Shape, draw
from soda_jobs.tutor.family import LANGUAGES, SOURCES, Dice, task_named
from soda_jobs.tutor.faulty import faulty
from soda_jobs.tutor.replies import reply
from soda_jobs.tutor.solutions import solution
from soda_jobs.tutor.wording import question_text

SHAPES = [
    Shape(source, conditions, change, finish)
    for source in SOURCES
    for conditions in (0, 1, 2)
    for change in (False, True)
    for finish in (False, True)
    if (conditions or change)
    and not (source in ("text", "value") and not (conditions and change))
    and not (source == "value" and finish)
]


COMMANDS = {"python": [sys.executable, "-S"], "javascript": ["node"]}
SUFFIXES = {"python": "py", "javascript": "js", "c": "c"}


def sample(count, reserved=False):
    dice = Dice("test", count)
    return [draw(SHAPES[i % len(SHAPES)], dice, reserved=reserved) for i in range(count)]


def ask(prompt_id, task, language, seed=0, temperature=0.0, **fields):
    question = question_text(task, language)
    return reply(render(prompt_id, question=question, **fields), seed, temperature)


def block(text):
    found = re.fullmatch(r"```(\w+)\n(.*)\n```", text, re.DOTALL)
    assert found, text
    return found[1], found[2]


def run_program(folder, language, code, name="program", timeout=20.0):
    """(status, stderr) of one program: status None when it did not end, `compile` when gcc refused it."""
    path = folder / f"{name}.{SUFFIXES[language]}"
    path.write_text(code)
    command = [*COMMANDS.get(language, []), str(path)]
    if language == "c":
        command = [str(folder / name)]
        built = subprocess.run(["gcc", "-o", command[0], str(path)], capture_output=True, text=True)
        if built.returncode != 0:
            return "compile", built.stderr
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stderr


def bundle(language, programs):
    """Many (code, tests) as one program that fails when any does: one process instead of hundreds."""
    if language == "python":
        return "\n".join(f"{code}\n{checks}" for code, checks in programs)
    if language == "javascript":
        return "\n".join(f"(() => {{\n{code}\n{checks}\n}})();" for code, checks in programs)
    mains = [
        code + "\n" + checks.replace("int main(void)", f"int main_{i}(void)")
        for i, (code, checks) in enumerate(programs)
    ]
    calls = " ".join(f"if (main_{i}()) return 1;" for i in range(len(programs)))
    return "\n".join([*mains, f"int main(void) {{ {calls} return 0; }}"])


def test_inputs_hold_the_empty_case_negatives_and_several_others():
    for task in sample(300):
        values = inputs(task)
        assert len(values) >= 4
        assert not values[0]
        if task.source in ("range", "value"):
            assert min(values) < 0
        if task.source == "list" and task.fold != "product":
            assert any(item < 0 for value in values for item in value)


@pytest.mark.parametrize("language", LANGUAGES)
def test_correct_replies_pass_their_tests(language, tmp_path):
    programs = []
    for task in dict.fromkeys(sample(200)):
        tag, code = block(ask("compact/correct", task, language))
        assert tag == language
        programs.append((code, check_program(task, language)))
    assert run_program(tmp_path, language, bundle(language, programs), timeout=60) == (0, "")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tests_can_fail(language, tmp_path):
    """Each solution but with another task's steps: so the bundle above would have noticed."""
    right, wrong = task_named("above5_square_sum"), task_named("above6_square_sum")
    code = solution(wrong, language).replace(wrong.name, right.name)
    status, _ = run_program(tmp_path, language, f"{code}\n{check_program(right, language)}")
    assert status not in (0, "compile", None)


NAMED = {
    "Syntax": "SyntaxError|IndentationError",
    "Type": "TypeError",
    "Name": "NameError|ReferenceError",
    "Logical": "AssertionError|Error: .* is not -?\\d+",
}


def is_as_named(fault, language, folder, program, name):
    """True when the program with its tests ends as the type of its fault says."""
    status, stderr = run_program(folder, language, program, name, 1.5 if fault == "Timeout" else 20.0)
    if fault == "Timeout":
        return status is None
    if language == "c":
        return status not in (0, None) and (status == "compile") == (fault != "Logical")
    return status not in (0, None) and re.search(NAMED[fault], stderr) is not None


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_faulty_programs_fail_as_their_fault_says(language, fault, tmp_path):
    tasks = [draw(Shape(source), Dice(fault, source, i)) for source in SOURCES for i in range(2)]
    programs = [
        faulty(task, language, fault, Dice("fault", i)) + "\n" + check_program(task, language)
        for i, task in enumerate(tasks)
    ]
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(
            pool.map(lambda i: is_as_named(fault, language, tmp_path, programs[i], f"p{i}"), range(len(programs)))
        )
    assert all(verdicts), [code for code, fine in zip(programs, verdicts, strict=True) if not fine]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_faulty_reply_is_one_block_that_differs_and_does_not_name_itself(language):
    replies = set()
    task = task_named("above5_square_sum_add3")
    for seed in range(40):
        text = ask("compact/fault", task, language, seed, 0.8)
        tag, code = block(text)
        assert tag == language
        assert code != solution(task, language)
        assert not is_self_revealing(text)
        replies.add(text)
    assert len(replies) >= 8


@pytest.mark.parametrize("language", LANGUAGES)
def test_heldout_solutions_pass_their_own_tests(language, tmp_path):
    mine = [q for q in heldout_tasks(90) if q["language"] == language]
    assert all(q["entry_point"] in q["tests"] for q in mine)
    assert run_program(tmp_path, language, bundle(language, [(q["solution"], q["tests"]) for q in mine])) == (
        0,
        "",
    )
