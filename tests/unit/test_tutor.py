"""What the tutor asks, answers and scores."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest

from soda_jobs.models.parse import parse_new_question, parse_scores
from soda_jobs.prompts import render
from soda_jobs.tutor.draw import Shape, draw, harder, shape_of
from soda_jobs.tutor.family import LANGUAGES, SOURCES, Dice, count_tasks, task_named
from soda_jobs.tutor.replies import REFUSAL, reply
from soda_jobs.tutor.wording import question_text, read_question

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


def sample(count, reserved=False):
    dice = Dice("test", count)
    return [draw(SHAPES[i % len(SHAPES)], dice, reserved=reserved) for i in range(count)]


def ask(prompt_id, task, language, seed=0, temperature=0.0, **fields):
    question = question_text(task, language)
    return reply(render(prompt_id, question=question, **fields), seed, temperature)


def test_the_family_has_thousands_of_tasks():
    assert count_tasks() >= 3_000


def test_a_name_tells_its_task_and_a_question_is_read_back():
    for number, task in enumerate(sample(600)):
        language = LANGUAGES[number % 3]
        text = question_text(task, language)
        assert task_named(task.name) == task
        assert read_question(f"Some words.\n{text.replace(' ', chr(10), 3)} And more.") == (task, language)


@pytest.mark.parametrize(
    "name", ["", "sum_even", "above10_sum", "upto_is_b_sum", "text_even_points1_sum", "if_even_square"]
)
def test_names_outside_the_family_are_not_tasks(name):
    assert task_named(name) is None


def test_a_question_that_was_tampered_with_is_not_read():
    text = question_text(task_named("above5_square_sum"), "python")
    assert read_question(text) is not None
    assert read_question(text.replace("above 5", "above 6")) is None


def test_questions_are_short():
    lengths = [len(question_text(task, "python").split()) for task in sample(400)]
    assert min(lengths) >= 12
    assert max(lengths) <= 45


def test_right_answers_agree_with_values_worked_out_by_hand():
    worked = [
        ("even_square_sum", [1, 2, -4], 20),
        ("other3_minus6_product_add2", [3, 4, 5], 4),
        ("odd_max", [-3, 4], 0),
        ("negative_and_odd_min_scaled2", [-3, -4, 5], -6),
        ("even_or_above6_count", [2, 7, 5, 9], 3),
        ("upto_above2_plus3_last", 5, 8),
        ("text_after_m_points3_sum_less4", "mnz a", 2),
        ("if_below5_times3_else_minus2", 4, 12),
        ("if_below5_times3_else_minus2", 5, 3),
    ]
    for name, value, right in worked:
        assert task_named(name).evaluate(value) == right, name


@pytest.mark.parametrize("group", ["paper", "compact"])
def test_new_questions_differ_stay_in_their_domain_and_follow_the_seed(group):
    for number, task in enumerate(sample(60)):
        language = LANGUAGES[number % 3]
        made = set()
        for seed in range(4):
            parsed = parse_new_question(ask(f"{group}/new_similar", task, language, seed, 0.8))
            new, new_language = read_question(parsed.value)
            assert (shape_of(new), new_language) == (shape_of(task), language)
            assert new != task
            made.add(new)
        assert len(made) >= 3


def test_harder_questions_have_one_more_step():
    for number, task in enumerate(sample(120)):
        text = ask("compact/new_harder", task, LANGUAGES[number % 3], number, 0.8)
        new = read_question(text)[0]
        assert shape_of(new) == harder(shape_of(task))
        steps = [s.conditions + s.change + s.finish for s in (shape_of(task), shape_of(new))]
        full = shape_of(task).conditions == 2 and task.change and (task.finish or task.source == "value")
        assert steps[1] - steps[0] == (0 if full else 1)


@pytest.mark.parametrize("group", ["paper", "compact"])
def test_scores_parse_and_tell_right_from_faulty(group):
    wrong_totals = []
    for number, task in enumerate(sample(120)):
        language = LANGUAGES[number % 3]
        right = parse_scores(ask(f"{group}/score", task, language, code=ask("paper/correct", task, language)))
        assert (right.parse_status, right.total) == ("ok", 6.0)
        bad = ask("paper/fault", task, language, number, 1.0)
        wrong = parse_scores(ask(f"{group}/score", task, language, code=bad))
        assert wrong.parse_status == "ok"
        assert wrong.total < 6.0
        assert len(wrong.analysis.split()) <= 40
        wrong_totals.append(wrong.total)
    assert sum(wrong_totals) / len(wrong_totals) < 4.5
    assert len(set(wrong_totals)) >= 3


def test_scores_spread_from_nothing_to_six():
    task = task_named("above5_square_sum")
    right = ask("paper/correct", task, "python")
    worse = ["I do not know.", "```python\nprint(1)\n```", "```c\n" + right[10:]]
    worse += [right.replace("x > 5", "x > 6"), right.replace("x > 5", "x > 6").replace("r = 0", "r = 1"), right]
    totals = [parse_scores(ask("compact/score", task, "python", code=code)).total for code in worse]
    assert totals[0] <= 1.5
    assert totals[1] <= 2.0
    assert totals[-1] == 6.0
    assert 2.0 < totals[4] < totals[3] < 5.0 < totals[2] < 6.0


def test_code_is_judged_without_being_run(tmp_path):
    task = task_named("above5_square_sum")
    target = tmp_path / "written"
    code = f"```python\nopen({str(target)!r}, 'w').close()\n```"
    assert parse_scores(ask("paper/score", task, "python", code=code)).parse_status == "ok"
    assert not target.exists()


def test_only_the_listed_error_types_are_used():
    task = task_named("above5_square_sum")
    prompt = render("paper/fault", question=question_text(task, "python"))[1]["content"]
    timeout_only = "\n".join(
        line for line in prompt.splitlines() if not line.startswith("- ") or line.startswith("- Timeout")
    )
    for seed in range(10):
        assert "while" in reply([{"role": "user", "content": timeout_only}], seed, 1.0)


def test_replies_depend_on_messages_seed_and_temperature_alone():
    task = task_named("above5_square_sum")
    first = [ask("paper/new_similar", task, "c", seed, 0.7) for seed in range(20)]
    assert first == [ask("paper/new_similar", task, "c", seed, 0.7) for seed in range(20)]
    assert len(set(first)) > 15
    assert len({ask("paper/new_similar", task, "c", seed, 0.0) for seed in range(20)}) == 1
    assert len({ask("paper/correct", task, "c", seed, 0.7) for seed in range(20)}) == 1


@pytest.mark.parametrize("kind", ["correct", "fault", "new_similar", "new_harder"])
def test_an_unknown_question_is_refused_honestly(kind):
    assert reply(render(f"paper/{kind}", question="Sort a list of {names} by last_name.")) == REFUSAL
    assert parse_new_question(REFUSAL).value is None


def test_an_unknown_question_gets_no_score():
    messages = render("paper/score", question="Sort names.", code="names.sort()")
    assert parse_scores(reply(messages)).parse_status == "failed"


def test_replies_are_the_same_in_another_process():
    script = (
        "from soda_jobs.tutor.replies import reply; from soda_jobs.tutor.builtin import seed_questions;"
        "from soda_jobs.prompts import render; import json;"
        "print(json.dumps([reply(render('paper/' + k, question=q['instruction']), 7, 0.9)"
        " for q in seed_questions(20) for k in ('fault', 'new_harder')]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())) == 40


def test_dice_are_fair_enough():
    dice = Dice("fair")
    counts = Counter(islice(iter(lambda: dice.below(6), None), 6_000))
    assert set(counts) == set(range(6))
    assert max(counts.values()) - min(counts.values()) < 200
