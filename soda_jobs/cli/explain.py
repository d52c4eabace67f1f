"""A run's status in one paragraph: what it does or waits for, since when, and what to do next. Pure.

In: a resource as the API server gives it (`local_resource` makes one of a run on this machine). Out: sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

Resource = Mapping[str, Any]

TERMINAL: Final = ("Succeeded", "Failed", "Cancelled", "Stopped")
FINISHED: Final = ("done", "reused")
_SHOWN: Final = 3  # stages or servers named in one sentence

# What the state means, by state. The fields are filled in by `explain`.
_HEADS: Final[Mapping[str, str]] = {
    "Pending": "The run {name} has been accepted{started} and is about to start.",
    "Running": "The run {name} has been running{started}: round {round}, {progress} stages finished.",
    "Waiting": "The run {name} waits: {message}.",
    "Stalled": "The run {name} is stuck{stalled}: {message}.",
    "Suspended": "The run {name} is suspended{suspended}, {progress} stages finished: {message}.",
    "Failed": "The run {name} failed{finished}, {progress} stages finished: {message}.",
    "Succeeded": "The run {name} succeeded{finished}{score}.",
    "Cancelled": "The run {name} was cancelled{finished}, {progress} stages finished; what they made is kept.",
    "Stopped": "The run {name} was stopped{finished}, {progress} stages finished; what they made is kept.",
    "Deleting": "The run {name} is being deleted{deleted}: its pods end first; then its artifacts go, if "
    "spec.deletionPolicy is Delete.",
}
_OTHER: Final = "The run {name} is in the state {state}: {message}."
# What to do next, by state.
_STEPS: Final[Mapping[str, str]] = {
    "Stalled": "It goes on by itself once that is put right.",
    "Failed": "Read `{command} logs {name}{stage}{options}`, put it right, and go on with "
    "`{command} retry {name}{options}`.",
    "Succeeded": "`{command} report {name}{options}` fetches its report.",
    "Cancelled": "`{command} retry {name}{options}` goes on with it.",
    "Stopped": "The same `soda run` command goes on with it.",
}
_LOCAL_FAILED: Final = "Read `soda logs {name}{stage}`; the same `soda run` command goes on with it."
_UNSEEN: Final = (
    "The operator has not seen the run {name} yet{created}. If it stays so, check that the soda operator runs and "
    "watches the namespace {namespace}."
)


def explain(resource: Resource, now: datetime, *, command: str = "soda", options: str = "") -> str:
    """The paragraph about a run at the time `now`. `command` and `options` are how the user calls us."""
    status, metadata = resource.get("status") or {}, resource["metadata"]
    words = {**_words(resource, now), "command": command, "options": options}
    if metadata.get("deletionTimestamp"):
        return _HEADS["Deleting"].format(**words)
    if status.get("observedGeneration", -1) < 0:
        return _UNSEEN.format(**words)
    state = status.get("state", "Pending")
    parts = [_HEADS.get(state, _OTHER).format(**words)]
    parts += _details(status, now) if state not in ("Succeeded", "Cancelled", "Stopped") else ()
    parts += [_step(resource, state).format(**words)]
    if status["observedGeneration"] < metadata.get("generation", 0):
        parts.append("The operator has not acted on the last change of the spec yet.")
    return " ".join(part for part in parts if part)


def _words(resource: Resource, now: datetime) -> dict[str, str]:
    status, metadata = resource.get("status") or {}, resource["metadata"]
    failed = [row["name"] for row in status.get("stages", ()) if row.get("state") == "failed"]
    score = f" with a score of {status['score']}" if status.get("score") else ""
    best = f" (best: round {status['bestRound']})" if score and "bestRound" in status else ""
    return {
        "name": metadata["name"],
        "namespace": metadata.get("namespace", "default"),
        "state": status.get("state", ""),
        "round": status.get("round") or "0",
        "progress": status.get("progress") or "no",
        "message": (status.get("message") or status.get("reason") or "no reason is given").rstrip("."),
        "stage": f" {failed[0]}" if failed else "",
        "score": score + best,
        "started": _since(status.get("startTime"), now, "for"),
        "finished": _since(status.get("finishTime"), now, "ago"),
        "created": _since(metadata.get("creationTimestamp"), now, "made"),
        "deleted": _since(metadata.get("deletionTimestamp"), now, "for"),
        "stalled": _since(_changed(status, "Stalled"), now, "for"),
        "suspended": _since(_changed(status, "Suspended"), now, "for"),
    }


def _details(status: Resource, now: datetime) -> Iterator[str]:
    """Sentences on the stages that run, wait or were tried again, and on servers that are not ready."""
    said = status.get("message", "")
    running = [row for row in status.get("stages", ()) if row.get("state") == "running"]
    if running:
        yield f"Running: {_listed([_stage(row, now) for row in running])}."
    starting = [row for row in status.get("stages", ()) if row.get("state") == "starting"]
    if starting:
        yield f"Starting: {_listed([_stage(row, now) for row in starting])}."
    for row in [*status.get("stages", ()), *status.get("services", ())]:
        text = row.get("message", "").rstrip(".")
        if text and row.get("state") != "failed" and text not in said:
            yield f"{row['name']}: {text}."
    servers = [row for row in status.get("services", ()) if not row.get("ready")]
    if servers:
        named = [f"{row['name']}{_since(row.get('startTime'), now, 'for')}" for row in servers]
        yield f"Not ready: server {_listed(named)}."


def _stage(row: Resource, now: datetime) -> str:
    done = f" at {row['done']:,} of {row['total']:,}" if row.get("total") else ""
    tries = f", attempt {row['attempt']}" if row.get("attempt", 1) > 1 else ""
    return f"{row['name']}{done}{_since(row.get('startTime'), now, 'for')}{tries}"


def _step(resource: Resource, state: str) -> str:
    status = resource["status"]
    if state == "Suspended" and status.get("reason") == "Suspended":
        return "`{command} resume {name}{options}` goes on with it."
    if state == "Failed" and resource.get("local"):
        return _LOCAL_FAILED
    return _STEPS.get(state, "")


def _changed(status: Resource, kind: str) -> str | None:
    """When a condition last changed."""
    found = (item for item in status.get("conditions", ()) if item["type"] == kind)
    return next((item["lastTransitionTime"] for item in found), None)


def _listed(items: list[str]) -> str:
    more = [f"{len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
    return ", ".join([*items[:_SHOWN], *more])


def _since(time: str | None, now: datetime, kind: str) -> str:
    """ " for 5m", " 5m ago" or " (made 5m ago)" with a leading blank; nothing without a time."""
    if not time:
        return ""
    text = age(time, now)
    return {"for": f" for {text}", "ago": f" {text} ago", "made": f" (made {text} ago)"}[kind]


def age(time: str, now: datetime) -> str:
    """How long ago, as kubectl writes it: 40s, 5m, 3h12m, 2d4h."""
    seconds = max(0, int((now - datetime.fromisoformat(time)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m" if minutes else f"{seconds}s"


def local_resource(document: Resource, *, alive: bool) -> dict[str, Any]:
    """A resource like a cluster's, of the status.json of a run on this machine. `alive`: somebody works on it."""
    stages, state = document["stages"], document["state"]
    if state == "Running" and not alive:
        state = "Stopped"  # killed before it could say so
    reached = [row["round"] for row in stages if row["state"] != "waiting"]
    scores = [row["headline"]["pass@1"] for row in stages if "pass@1" in row["headline"]]
    return {
        "local": True,
        "metadata": {"name": document["run"]},
        "status": {
            "observedGeneration": 0,
            "state": state,
            "message": document["message"],
            "round": f"{max(reached, default=0)}/{max((row['round'] for row in stages), default=0)}",
            "progress": f"{sum(row['state'] in FINISHED for row in stages)}/{len(stages)}",
            "score": f"{scores[-1]:.2f}" if scores else "",
            "stages": [
                {
                    **{name: row[name] for name in ("name", "state", "attempt", "digest", "headline")},
                    "message": row["reason"],
                    "done": row["done"] if row["total"] else row["counts"].get("rows"),
                    "total": row["total"] if row["state"] == "running" else None,
                }
                for row in stages
            ],
            **({"finishTime": document["updated"]} if state in TERMINAL else {}),
        },
    }


def now() -> datetime:
    return datetime.now(UTC)
