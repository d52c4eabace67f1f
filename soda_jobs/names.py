"""Names of everything a run makes in a cluster. In: run, stage, attempt. Out: DNS-1123 labels, checked.

A name is only ever made here and is never cut or hashed: a run whose longest name would not fit is refused
before it starts, so that every object can be found by reading its name.
"""

from __future__ import annotations

import re
from typing import Final

LABEL_MAX: Final = 63  # RFC 1123; Job, Service and pod host names are all labels
STEP_MAX: Final = 20  # longest step of a round, as in "tutor-heldout-answer"
ROLES: Final = ("teacher", "student", "judge", "sandbox")
ATTEMPT_MAX: Final = 99

RUN_LABEL: Final = "soda.dev/run"
STAGE_LABEL: Final = "soda.dev/stage"
SERVICE_LABEL: Final = "soda.dev/service"
ROLE_LABEL: Final = "soda.dev/role"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"

# What a run's Jobs do besides stages and servers.
PREFLIGHT: Final = "preflight"
PUBLISH: Final = "publish"
CLEANUP: Final = "cleanup"

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def stage_name(round_number: int, step: str) -> str:
    """`(3, "train-sft")` -> `"r3-train-sft"`. Round 0 is what comes before the first round."""
    if len(step) > STEP_MAX:
        raise ValueError(f"step {step!r} has {len(step)} characters; at most {STEP_MAX} fit into a name")
    return _label(f"r{round_number}-{step}")


def job_name(run: str, stage: str, attempt: int = 1) -> str:
    """The Job of one attempt of one stage: `"codellama-r3-train-sft-1"`."""
    return _label(f"{run}-{stage}-{_attempt(attempt)}")


def service_name(run: str, service: str) -> str:
    """The Service in front of a model server or a sandbox: `"codellama-student-r3-train-sft"`."""
    return _label(f"{run}-{service}")


def pod_name(job: str, index: int) -> str:
    """The host name of one pod of an Indexed Job."""
    return _label(f"{job}-{index}")


def labels(run: str, *, stage: str | None = None, service: str | None = None) -> dict[str, str]:
    """The labels by which a run's objects are found again."""
    found = {"app.kubernetes.io/name": "soda", "app.kubernetes.io/managed-by": "soda", RUN_LABEL: run}
    if stage is not None:
        found[STAGE_LABEL] = stage
    if service is not None:
        found[SERVICE_LABEL] = service
    return found


def longest_suffix(rounds: int, largest_group: int) -> str:
    """The longest ending this run can put after its name: one pod of a server of the last round's checkpoint.

    `largest_group` is the greatest number of pods that one Job of the run has.
    """
    role = max(ROLES, key=len)
    return f"-{role}-r{rounds}-{'x' * STEP_MAX}-{ATTEMPT_MAX}-{largest_group - 1}"


def run_name_limit(rounds: int, largest_group: int) -> int:
    """How many characters the name of such a run may have."""
    return LABEL_MAX - len(longest_suffix(rounds, largest_group))


def _attempt(attempt: int) -> int:
    if not 1 <= attempt <= ATTEMPT_MAX:
        raise ValueError(f"attempt {attempt} is not from 1 to {ATTEMPT_MAX}")
    return attempt


def _label(name: str) -> str:
    if len(name) > LABEL_MAX or _LABEL.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a DNS label of at most {LABEL_MAX} characters")
    return name
