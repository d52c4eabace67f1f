"""How a model server is started: one table from the engine's name to its argv.

In: engine, model, port, the name clients ask for, and the options of `spec.<role>.server` as a mapping
(`dtype`, `max_model_len`, `gpus`, `quantization`, `extra_args`; also `host`, a hub id's `revision` and, for `cpu`,
`threads`).
Out: argv. Every engine speaks the OpenAI API under `/v1`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from soda_jobs.errors import InvalidInput

# option -> flag, for the options that are one value each
_VLLM: Final = {
    "host": "--host",
    "dtype": "--dtype",
    "max_model_len": "--max-model-len",
    "gpus": "--tensor-parallel-size",
    "quantization": "--quantization",
    "revision": "--revision",  # of the tokenizer too, unless told otherwise
}
_CPU: Final = {
    "host": "--host",
    "dtype": "--dtype",
    "max_model_len": "--max-model-len",
    "threads": "--threads",
    "revision": "--revision",
}
_TUTOR: Final = {"host": "--host"}


def _vllm(model: str, port: int, name: str, options: Mapping[str, object]) -> list[str]:
    argv = ["vllm", "serve", model, "--port", str(port), "--served-model-name", name, *_flags(_VLLM, options)]
    extra = options.get("extra_args") or ()
    if not isinstance(extra, list | tuple):
        raise InvalidInput(f"{extra!r} is not a list of words", field="server.extraArgs")
    return [*argv, *(str(word) for word in extra)]


def _cpu(model: str, port: int, name: str, options: Mapping[str, object]) -> list[str]:
    module = ["python", "-m", "soda_jobs.models.serve_cpu"]
    return [*module, "--model", model, "--port", str(port), "--name", name, *_flags(_CPU, options)]


def _tutor(model: str, port: int, name: str, options: Mapping[str, object]) -> list[str]:
    return ["python", "-m", "soda_jobs.tutor", "--port", str(port), *_flags(_TUTOR, options)]


_ARGV: Final[dict[str, Callable[[str, int, str, Mapping[str, object]], list[str]]]] = {
    "cpu": _cpu,
    "tutor": _tutor,
    "vllm": _vllm,
}


def server_argv(
    engine: str, *, model_path_or_id: str, port: int, name: str, options: Mapping[str, object]
) -> list[str]:
    """The command that serves a model; it answers `/health` with 200 once it can be asked.

    An option that the engine does not have is left out: the spec has one set of options for all engines.
    """
    if engine not in _ARGV:
        raise InvalidInput(f"{engine!r} is not one of {', '.join(_ARGV)}", field="server.engine")
    return _ARGV[engine](model_path_or_id, port, name, options)


def _flags(table: Mapping[str, str], options: Mapping[str, object]) -> list[str]:
    given = {flag: options.get(option) for option, flag in table.items()}
    return [word for flag, value in given.items() if value is not None for word in (flag, str(value))]
