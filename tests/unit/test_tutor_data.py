"""The builtin data: what is held out never comes near what is taught."""

import re
from collections import Counter, defaultdict

from soda_jobs.models.parse import parse_new_question
from soda_jobs.prompts import render
from soda_jobs.tutor.builtin import heldout_tasks, seed_questions
from soda_jobs.tutor.family import LANGUAGES, is_reserved, task_named
from soda_jobs.tutor.replies import reply
from soda_jobs.tutor.wording import read_question


def shingles(text):
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {tuple(words[i : i + 5]) for i in range(len(words) - 4)}


def highest_jaccards(texts, others):
    """For each text the highest Jaccard of word 5-grams to any of the others."""
    sets = [shingles(other) for other in others]
    index = defaultdict(list)
    for number, grams in enumerate(sets):
        for gram in grams:
            index[gram].append(number)
    for text in texts:
        grams = shingles(text)
        shared = Counter(number for gram in grams for number in index[gram])
        yield max((n / (len(grams) + len(sets[i]) - n) for i, n in shared.items()), default=0.0)


def test_reserved_combinations_never_leak_into_training():
    leaked = [q["entry_point"] for q in seed_questions(3_000) if is_reserved(task_named(q["entry_point"]))]
    for number, parent in enumerate(seed_questions(1_000)):
        for kind in ("new_similar", "new_harder"):
            text = reply(render(f"compact/{kind}", question=parent["instruction"]), number, 1.0)
            new, _ = read_question(text)
            leaked += [new.name] if is_reserved(new) else []
    assert not leaked


def test_builtin_lists_are_stable_prefixes_without_repeats():
    assert seed_questions(50) == seed_questions(400)[:50]
    assert heldout_tasks(20) == heldout_tasks(60)[:20]
    assert len({q["instruction"] for q in seed_questions(400)}) == 400
    assert Counter(q["language"] for q in heldout_tasks(60)) == dict.fromkeys(LANGUAGES, 20)


def test_the_first_questions_never_change():
    """Keys of artifacts derive from these texts: a change here must be meant."""
    first = [(q["id"], q["language"], q["entry_point"]) for q in (*seed_questions(2), *heldout_tasks(2))]
    assert first == [
        ("6f7a522d6ff0e1f6", "javascript", "odd_plus6_sum"),
        ("90847f0ad7315974", "c", "even_square_max_add3"),
        ("7acfdff9240ea258", "javascript", "text_before_b_points4_sum"),
        ("addc9ba85355a65a", "c", "plus6_max"),
    ]


def test_heldout_tasks_are_reserved_and_each_of_their_components_is_taught():
    taught = {part for q in seed_questions(200) for part in task_named(q["entry_point"]).components}
    for question in heldout_tasks(150):
        task = task_named(question["entry_point"])
        assert is_reserved(task)
        assert task.components <= taught


def test_heldout_texts_are_no_near_duplicates_of_training_texts():
    seeds = [q["instruction"] for q in seed_questions(1_000)]
    training = seeds + [
        parse_new_question(reply(render(f"compact/{kind}", question=text), number, 0.8)).value
        for number, text in enumerate(seeds[:500])
        for kind in ("new_similar", "new_harder")
    ]
    assert max(highest_jaccards([q["instruction"] for q in heldout_tasks(150)], training)) < 0.7


def test_seed_questions_are_no_near_duplicates_of_each_other():
    seeds = [q["instruction"] for q in seed_questions(500)]
    near = [value for value in highest_jaccards(seeds[250:], seeds[:250]) if value >= 0.7]
    assert len(near) <= 3
