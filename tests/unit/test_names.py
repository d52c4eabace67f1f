"""Names fit into DNS labels, or are refused before anything is made."""

from __future__ import annotations

import pytest

from soda_jobs import names


@pytest.mark.parametrize(
    ("rounds", "group"),
    [(1, 1), (3, 1), (9, 10), (10, 11), (20, 256)],
)
def test_a_run_name_at_its_limit_leaves_room_for_every_name_made_from_it(rounds: int, group: int) -> None:
    run = "r" * names.run_name_limit(rounds, group)
    checkpoint = names.stage_name(rounds, "x" * names.STEP_MAX)
    for role in names.ROLES:
        service = names.service_name(run, f"{role}-{checkpoint}")
        assert len(names.pod_name(names.job_name(run, f"{role}-{checkpoint}", 99), group - 1)) <= 63
        assert len(service) <= 63


def test_one_character_more_than_the_limit_does_not_fit() -> None:
    run = "r" * (names.run_name_limit(3, 1) + 1)
    longest = max((f"{role}-{names.stage_name(3, 'x' * names.STEP_MAX)}" for role in names.ROLES), key=len)
    job = names.job_name(run, longest, 99)
    with pytest.raises(ValueError, match="not a DNS label"):
        names.pod_name(job, 0)


def test_names_read_as_run_stage_attempt() -> None:
    assert names.stage_name(3, "train-sft") == "r3-train-sft"
    assert names.job_name("codellama", "r3-train-sft", 2) == "codellama-r3-train-sft-2"
    assert names.service_name("codellama", "student-r3-train-sft") == "codellama-student-r3-train-sft"
    assert names.pod_name("codellama-r3-train-sft-2", 7) == "codellama-r3-train-sft-2-7"


@pytest.mark.parametrize("run", ["", "Run", "a_b", "-a", "a.b", "a\n", "é"])
def test_a_name_that_is_no_dns_label_is_refused(run: str) -> None:
    with pytest.raises(ValueError, match="not a DNS label"):
        names.job_name(run, "r1-split")


def test_a_step_longer_than_the_room_kept_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 20"):
        names.stage_name(1, "x" * 21)


@pytest.mark.parametrize("attempt", [0, 100, -1])
def test_an_attempt_outside_the_room_kept_for_it_is_refused(attempt: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 99"):
        names.job_name("run", "r1-split", attempt)


def test_different_attempts_and_stages_never_share_a_name() -> None:
    stages = [names.stage_name(number, step) for number in range(3) for step in ("split", "train-sft")]
    made = [names.job_name("run", stage, attempt) for stage in stages for attempt in (1, 2, 11)]
    assert len(set(made)) == len(made)


def test_labels_find_a_run_and_its_parts() -> None:
    assert names.labels("run", stage="r1-split") == {
        "app.kubernetes.io/name": "soda",
        "app.kubernetes.io/managed-by": "soda",
        "soda.dev/run": "run",
        "soda.dev/stage": "r1-split",
    }
    assert names.labels("run", service="teacher")["soda.dev/service"] == "teacher"
