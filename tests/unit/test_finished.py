"""The digests of committed stages survive the way through a termination message."""

from __future__ import annotations

import hashlib
import json

import pytest

from soda_jobs.errors import ExitCode, GiveUp
from soda_jobs.finished import LIMIT, decode, encode
from soda_jobs.graph import Graph, Kind, Stage, with_pinned
from soda_jobs.job import RESULT_LIMIT, fit

STAGES = [f"r1-stage-{number}" for number in range(120)]
DIGESTS = {stage: hashlib.sha256(stage.encode()).hexdigest() for stage in STAGES}


def test_what_is_encoded_is_decoded() -> None:
    some = {stage: DIGESTS[stage] for stage in (STAGES[0], STAGES[3], STAGES[7])}
    text = encode(STAGES, some)
    assert decode(STAGES, text) == some
    assert text.count(",") == 7, "empty items at the end are left out"
    assert encode(STAGES, {}) == ""
    assert decode(STAGES, "") == {}


def test_what_does_not_fit_is_left_out_from_the_end() -> None:
    text = encode(STAGES, DIGESTS)
    assert len(text) <= LIMIT
    assert decode(STAGES, text) == {stage: DIGESTS[stage] for stage in STAGES[:79]}
    assert decode(STAGES, encode(STAGES, DIGESTS, limit=86)) == {STAGES[0]: DIGESTS[STAGES[0]]}
    assert decode(STAGES, encode(STAGES, DIGESTS, limit=87)) == {stage: DIGESTS[stage] for stage in STAGES[:2]}
    assert encode(STAGES, DIGESTS, limit=-5) == ""


@pytest.mark.parametrize("text", ["abc", "x" * 43, ",,,,", "!" * 43])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"stages|SHA-256|base64"):
        decode(STAGES[:3], text)


def test_a_result_fits_into_a_termination_message() -> None:
    done = {"state": "done", "digest": "ab", "counts": {f"count-{number}": number for number in range(500)}}
    assert json.loads(fit(done)) == {"state": "done", "digest": "ab"}
    failed = {"state": "failed", "reason": ExitCode.GIVE_UP.name, "message": str(GiveUp('ä"\n' * 5000))}
    text = fit(failed)
    assert len(text.encode()) <= RESULT_LIMIT
    assert failed["message"].startswith(json.loads(text)["message"][:500])
    assert len(json.loads(text)["message"]) > 500


def test_only_pinned_stages_change() -> None:
    graph = Graph("soda", 1, (Stage("a", Kind.SOURCE, 0, {"source": "x"}), Stage("b", Kind.SOURCE, 0, {})))
    pinned = with_pinned(graph, {"a": "12"})
    assert pinned.stage("a").settings == {"source": "x", "digest": "12"}
    assert pinned.stage("b") is graph.stage("b")
