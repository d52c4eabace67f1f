import hashlib

import pytest

from soda_jobs.errors import InvalidInput
from soda_jobs.prompts import CREATED, PROMPT_IDS, digest, faults, render

FIELDS = {"question": "QUESTION TEXT", "code": "CODE TEXT"}


def rendered(prompt_id, **fields):
    wanted = ("question", "code") if prompt_id.endswith("/score") else ("question",)
    return render(prompt_id, **{name: fields.get(name, FIELDS[name]) for name in wanted})


def whole(messages):
    return "\n".join(message["content"] for message in messages)


MARKERS = {
    "correct": ("#Given Instruction\n",),
    "fault": ("MUST contain", "#Given Instruction#:", *faults.FAULTS),
    "new_similar": ("#Given Instruction#:", CREATED),
    "new_harder": ("#Given Instruction#:", CREATED, "challenging"),
    "score": (
        "#End of programming question#",
        "#End of code#",
        "#End of scoring system#",
        "Code Analysis:",
        "Score:",
    ),
}


@pytest.mark.parametrize("prompt_id", PROMPT_IDS)
def test_every_prompt_carries_the_question_and_its_markers(prompt_id):
    text = whole(rendered(prompt_id))
    for marker in ("QUESTION TEXT", *MARKERS[prompt_id.partition("/")[2]]):
        assert text.count(marker) >= 1, marker


@pytest.mark.parametrize("prompt_id", PROMPT_IDS)
def test_paper_prompts_have_a_persona_and_compact_ones_are_short(prompt_id):
    messages = rendered(prompt_id)
    if prompt_id.startswith("paper/"):
        assert [message["role"] for message in messages] == ["system", "user"]
    else:
        assert [message["role"] for message in messages] == ["user"]
        assert len(whole(messages)) < 160


def test_braces_and_field_names_in_a_question_are_left_alone():
    question = "Print {code} and {question} and {errors} as {} in {0}"
    text = whole(render("compact/score", question=question, code="{question}"))
    assert text.startswith(question)
    assert text.count("{question}") == 2


def test_similar_and_harder_differ_in_the_difficulty_clause_alone():
    similar = whole(rendered("paper/new_similar")).split(". ")
    harder = whole(rendered("paper/new_harder")).split(". ")
    assert sum(a != b for a, b in zip(similar, harder, strict=True)) == 1


def test_score_prompt_lists_five_rules_that_sum_to_six():
    text = whole(rendered("paper/score"))
    points = [int(line.split("give ")[1].split()[0]) for line in text.splitlines() if line.startswith("Rule ")]
    assert points == [2, 1, 1, 1, 1]


def test_fault_prompt_defines_every_error_type_in_one_sentence():
    text = whole(rendered("paper/fault"))
    for name, meaning in faults.FAULTS.items():
        assert f"- {name}: {meaning}" in text
        assert meaning.endswith(".")
        assert meaning.count(".") == 1


def test_digests_are_sha256_and_all_different():
    digests = {digest(prompt_id) for prompt_id in PROMPT_IDS}
    assert len(digests) == len(PROMPT_IDS)
    sent = "#Given Instruction\n{question}"
    assert digest("compact/correct") == hashlib.sha256(sent.encode()).hexdigest()


@pytest.mark.parametrize("use", [lambda: render("paper/nosuch", question="x"), lambda: digest("../paper/correct")])
def test_an_unknown_prompt_is_refused_with_the_known_names(use):
    with pytest.raises(InvalidInput, match="paper/correct, paper/fault"):
        use()


@pytest.mark.parametrize("fields", [{}, {"code": "x"}, {"question": "x", "code": "y"}])
def test_missing_and_needless_fields_are_refused(fields):
    with pytest.raises(InvalidInput, match="the fields are question, not"):
        render("paper/correct", **fields)
