"""A server that cannot start says why, and is not started for ever."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from soda_jobs.errors import GiveUp, InvalidInput, SandboxNotIsolated
from soda_jobs.local.last_words import last_words
from soda_jobs.local.services import HOPELESS, Services
from soda_jobs.plan import ServiceCommand

VLLM_SETTING = """\
(APIServer pid=12) INFO 11-21 16:48:01 [api_utils.py:286] non-default args: {'max_model_len': 100000}
Traceback (most recent call last):
  File "/x/vllm/engine/arg_utils.py", line 1955, in create_model_config
    return ModelConfig(
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (100000) is greater than the derived max_model_len [type=value_error]
    For further information visit https://errors.pydantic.dev/2.14/v/value_error
"""
VLLM_ENGINE = """\
(EngineCore pid=6719) ERROR 11-21 17:07:24 [core.py:1510]     raise RuntimeError(
(EngineCore pid=6719) ERROR 11-21 17:07:24 [core.py:1510] RuntimeError: Worker failed with error 'no memory'
(APIServer pid=4787) Traceback (most recent call last):
(APIServer pid=4787) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (VLLM_SETTING, "User-specified max_model_len (100000) is greater than the derived max_model_len"),
        (VLLM_ENGINE, "RuntimeError: Worker failed with error 'no memory'"),
        (
            "x\nhuggingface_hub.errors.HFValidationError: Repo id must be …\n",
            "HFValidationError: Repo id must be …",
        ),
        ("soda: spec.teacher.model: is not there\n", "spec.teacher.model: is not there"),
        ("one\nKilled\n\n", "Killed"),
        ("", "nothing"),
    ],
)
def test_the_line_that_counts_is_found(log: str, said: str) -> None:
    assert last_words(log) == said


@pytest.mark.parametrize(
    ("code", "kind", "starts"), [(64, InvalidInput, 1), (77, SandboxNotIsolated, 1), (1, GiveUp, HOPELESS)]
)
async def test_a_server_that_ends_by_itself_is_reported_in_its_own_words(
    code: int, kind: type[Exception], starts: int, tmp_path: Path
) -> None:
    log = tmp_path / "service-teacher.log"
    log.write_text("ValueError: of an earlier run\n")
    program = f"import sys; print('started'); print('ValueError: no such model'); sys.exit({code})"
    services = Services({}, tmp_path)
    begun = time.monotonic()
    with pytest.raises(kind, match=f"the server teacher ended with exit code {code}: ValueError: no such model"):
        await services.url(ServiceCommand("teacher", "teacher", argv=("python", "-c", program)))
    await services.keep_only(())
    assert log.read_text().count("started") == starts
    assert time.monotonic() - begun < 60


async def test_a_silent_end_is_not_explained_by_an_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "service-teacher.log").write_text("ValueError: of an earlier run\n")
    services = Services({}, tmp_path)
    with pytest.raises(GiveUp, match="ended with exit code 3: nothing"):
        await services.url(ServiceCommand("teacher", "teacher", argv=("python", "-c", "raise SystemExit(3)")))
    await services.keep_only(())
