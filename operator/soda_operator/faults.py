"""Why something waits or failed, in one word and one sentence with the next step.

`waiting` reads what is not there yet, `failure` reads what has ended; the reasons are in `reasons.py`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from soda_jobs.errors import ExitCode
from soda_operator.observed import Job, Pod, Warned
from soda_operator.reasons import TABLE, WAITING, Kind, Row

NO_PODS_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 5.0  # a scheduler may need a moment; a state that flickers tells nobody anything


_BY_EXIT: Final[dict[int, str]] = {
    ExitCode.INVALID_INPUT: "InvalidInput",
    ExitCode.GIVE_UP: "GaveUp",
    ExitCode.BUG: "Bug",
    ExitCode.RETRY: "Unavailable",
    ExitCode.SANDBOX_NOT_ISOLATED: "SandboxNotIsolated",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One reason about one object, ready for a status."""

    reason: str
    message: str

    @property
    def kind(self) -> Kind:
        return TABLE[self.reason].kind


def fault(reason: str, about: str, detail: str = "") -> Fault:
    """`about` names the object; `detail` is what the cluster or the program said."""
    row = TABLE[reason]
    said = f" ({_short(detail)})" if detail else ""
    return Fault(reason, f"{about}: {row.what}{said}; {row.step}")


def waiting(job: Job, pods: Sequence[Pod], warnings: Iterable[Warned], now: float) -> Fault | None:
    """Why a Job that should run does not, or None when all its pods run or are on their way."""
    seen = list(warnings)
    for pod in pods:
        if pod.phase == "Pending" and not pod.is_deleting:
            if pod.waiting and pod.waiting not in ("ContainerCreating", "PodInitializing"):
                return _find(f"{pod.waiting}: {pod.waiting_message}", f"pod {pod.name}", pod.waiting_message)
            if pod.unschedulable and now - pod.created > PATIENCE_SECONDS:
                return _find(f"Unschedulable: {pod.unschedulable}", f"pod {pod.name}", pod.unschedulable)
    if job.is_queued:
        said = next((item for item in seen if item.reason.startswith("Kueue")), Warned("Kueue", ""))
        if not said.message and now - job.created < PATIENCE_SECONDS:
            return None  # every Job begins so
        about = f"Job {job.name} in queue {job.queue}"
        return _find(f"{said.reason}: {said.message}", about, said.message)
    is_pending = not pods or any(pod.phase == "Pending" for pod in pods)
    for item in reversed(seen) if is_pending else ():
        found = _search(f"{item.reason}: {item.message}")
        if found is not None:
            return fault(found.reason, f"Job {job.name}", item.message)
    if not pods and not job.is_suspended and now - job.created > NO_PODS_SECONDS:
        return fault("PodsNotCreated", f"Job {job.name}")
    return None


def _find(text: str, about: str, detail: str) -> Fault:
    row = _search(text)
    return fault(row.reason if row else "ContainerNotCreated", about, detail)


def refusal(name: str, said: Warned) -> Fault:
    """Why the API server would not create an object."""
    row = _search(f"{said.reason}: {said.message}")
    return fault(row.reason if row else "ObjectRefused", name, said.message)


def _search(text: str) -> Row | None:
    return next((row for row in WAITING if re.search(row.sign, text)), None)


def failure(job: Job, pods: Sequence[Pod]) -> Fault:
    """Why a Job failed, from the last of its pods that ended badly."""
    about = f"Job {job.name}"
    bad = [pod for pod in pods if pod.exit_code not in (None, 0) or pod.phase == "Failed"]
    if not bad:
        return fault("Killed", about, job.message)
    last = max(bad, key=lambda pod: (pod.exit_code is not None, pod.created))
    if last.exit_reason == "OOMKilled":
        return fault("OutOfMemory", about, f"pod {last.name}")
    if last.disruption:
        return disruption(last)
    reason = _BY_EXIT.get(last.exit_code or 0)
    if reason is None:
        return fault("Killed", about, f"exit code {last.exit_code}; {said(last)}")
    return fault(reason, about, said(last))


def disruption(pod: Pod) -> Fault:
    """Why Kubernetes took a pod away."""
    reason = "Preempted" if pod.disruption == "PreemptionByScheduler" else "Evicted"
    return fault(reason, f"pod {pod.name}", pod.disruption_message or pod.disruption)


def said(pod: Pod) -> str:
    """The sentence a pod left: of a stage that ended by itself, or in the last line of its log."""
    last = pod.termination.strip().rsplit("\n", 1)[-1]
    try:
        found = json.loads(last)
        return str(found.get("message") or found.get("reason") or "")
    except (ValueError, AttributeError):
        return last


def _short(text: str, limit: int = 600) -> str:
    line = " ".join(text.split()).rstrip(".;")
    return line if len(line) <= limit else f"{line[: limit - 1]}…"
