"""The one door to a cluster: the user's own `kubectl`, with its contexts, proxies and authentication plugins.

In: words as on its command line. Out: JSON or lines. Every failure is one sentence: InvalidInput for what the user
can change, Retry when the cluster is away.
"""

from __future__ import annotations

import json
import re
import subprocess
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, Final

from soda_jobs.errors import InvalidInput, Retry, SodaError

RESOURCE: Final = "distillationruns.soda.dev"

# What kubectl says -> what the user should do; the first match counts.
_NO_CRD: Final = (
    "the cluster does not know DistillationRun; install soda's chart, or choose another with --context"
)
_FORBIDDEN: Final = "you may not do this ({line}); ask for the role soda-edit, or soda-view to look"
_AWAY: Final = "the cluster cannot be reached ({line}); try again, or choose another one with --context"
_SENTENCES: Final[tuple[tuple[str, type[SodaError], str], ...]] = (
    (r"doesn't have a resource type|could not find the requested resource", InvalidInput, _NO_CRD),
    (r"\(Forbidden\)", InvalidInput, _FORBIDDEN),
    (r"\(Unauthorized\)|must be logged in", InvalidInput, "the cluster refuses your credentials; log in again"),
    (
        r"context .* does not exist|context was not found",
        InvalidInput,
        "{line}; `kubectl config get-contexts` lists yours",
    ),
    (r"refused - did you|Unable to connect|i/o timeout|no such host|ServiceUnavailable", Retry, _AWAY),
)


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the options that choose a cluster and a namespace."""

    options: tuple[str, ...] = ()

    @classmethod
    def of(cls, arguments: Namespace) -> Kubectl:
        given = {name: getattr(arguments, name) for name in ("namespace", "context", "kubeconfig")}
        return cls(tuple(f"--{name}={value}" for name, value in given.items() if value is not None))

    def argv(self, *words: str) -> list[str]:
        return ["kubectl", *self.options, *words]

    def text(self, *words: str) -> str:
        """What it prints. Raises the sentence for what it says when it fails."""
        process = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, errors = process.communicate()
        if process.returncode:
            raise sentence(errors or out)
        return str(out)

    def json(self, *words: str) -> Any:
        return json.loads(self.text(*words, "--output=json"))

    def start(self, *words: str, **pipes: Any) -> subprocess.Popen[str]:
        """Start it with our own standard output and error, or `pipes`."""
        try:
            return subprocess.Popen(self.argv(*words), stdin=subprocess.DEVNULL, text=True, **pipes)
        except OSError as error:
            raise InvalidInput(
                f"the program kubectl cannot be started ({error.strerror}); install it and put it on your PATH"
            ) from error

    def run(self, name: str) -> dict[str, Any]:
        """The run of this name; InvalidInput that lists the others when there is none."""
        try:
            found: dict[str, Any] = self.json("get", RESOURCE, name)
        except NoSuchRun:
            names = self.text("get", RESOURCE, "--output=name").split()
            known = ", ".join(sorted(item.partition("/")[2] for item in names)) or "none"
            raise NoSuchRun(f"there is no run {name!r} in this namespace; runs there: {known}") from None
        return found

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Change some fields of a run's spec."""
        self.text("patch", RESOURCE, name, "--type=merge", "--patch", json.dumps({"spec": spec}))


class NoSuchRun(InvalidInput):
    """The API server knows no run of the name."""


def sentence(text: str) -> SodaError:
    """What kubectl wrote to standard error, as an error with a next step."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not re.match(r"[EWI]\d{4} ", line)]
    line = (lines or text.strip().splitlines() or ["nothing"])[-1].removeprefix("error: ")
    if "(NotFound)" in line:
        return NoSuchRun(line.partition("): ")[2])
    for pattern, kind, wording in _SENTENCES:
        if re.search(pattern, text):
            return kind(wording.format(line=line))
    return InvalidInput(f"kubectl: {line}")
