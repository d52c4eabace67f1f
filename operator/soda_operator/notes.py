"""Events for people, on transitions only. In: a run's status before and after. Out: Events. Pure.

They are named by what they say, so that telling the same twice makes one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

from soda_operator.observed import stamp

Raw = dict[str, Any]
COMPONENT: Final = "soda"
_WARNING_STATES: Final = ("Stalled", "Failed")


def notes(resource: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any], now: float) -> list[Raw]:
    """The Events of one change of a status."""
    return [
        _event(resource, kind, reason, message, mark, now)
        for kind, reason, message, mark in _transitions(old, new)
    ]


def _transitions(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    before = (old.get("state"), old.get("reason"))
    state, reason = new.get("state", ""), new.get("reason", "")
    if new.get("startTime") and not old.get("startTime"):
        yield "Normal", "Accepted", f"{len(new.get('stages', ()))} stages to go through", "accepted"
    was_held = before[0] in ("Suspended", "Stalled", "Waiting")
    if was_held and state in ("Pending", "Running"):
        yield "Normal", "Resumed", new.get("message", ""), f"resumed/{new.get('progress', '')}"
    elif (state, reason) != before and state not in ("Pending", "Running"):
        kind = "Warning" if state in _WARNING_STATES else "Normal"
        mark = f"{state}/{reason}/{new.get('finishTime', '')}/{new.get('progress', '')}"
        yield kind, reason or state, new.get("message", "") or state, mark
    rows = {row["name"]: row for row in old.get("stages", ())}
    for row in new.get("stages", ()):
        was = rows.get(row["name"], {})
        mark = f"{row['name']}/{row.get('attempt')}/{row['state']}"
        if row["state"] == "done" and was.get("state") != "done":
            scores = ", ".join(f"{name} {value:.3g}" for name, value in (row.get("headline") or {}).items())
            yield "Normal", "StageDone", f"{row['name']}{': ' if scores else ''}{scores}", mark
        if row.get("failures", 0) > was.get("failures", 0):
            reason = "StageFailed" if row["state"] == "failed" else "StageRetried"
            yield "Warning", reason, f"{row['name']}: {row.get('message', '')}", mark


def _event(resource: Mapping[str, Any], kind: str, reason: str, message: str, mark: str, now: float) -> Raw:
    meta = resource["metadata"]
    digest = hashlib.sha256(f"{meta['uid']}/{reason}/{mark}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{digest}", "namespace": meta["namespace"]},
        "involvedObject": {
            "apiVersion": resource["apiVersion"],
            "kind": resource["kind"],
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
        "type": kind,
        "reason": reason,
        "message": message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": stamp(now),
        "lastTimestamp": stamp(now),
        "count": 1,
    }
