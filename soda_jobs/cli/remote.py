"""Commands on a run in a cluster. Everything is asked of the API server through kubectl.

status, watch and explain read the run; logs reads its pods; suspend, resume, cancel and retry change its spec;
report reads the run's store with the caller's own credentials.
"""

from __future__ import annotations

import json
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from soda_jobs.cli.explain import FINISHED, TERMINAL, now
from soda_jobs.cli.explain import explain as paragraph
from soda_jobs.cli.kubectl import Kubectl
from soda_jobs.cli.look import table
from soda_jobs.cli.watching import HEADINGS, headline, rows, state_of
from soda_jobs.cli.watching import watch as follow_run
from soda_jobs.errors import InvalidInput
from soda_jobs.names import ROLE_LABEL, RUN_LABEL, SERVICE_LABEL, STAGE_LABEL

SERVICE_PREFIX: Final = "service-"
_POLL_SECONDS: Final = 2.0


def status(arguments: Namespace) -> int:
    run = Kubectl.of(arguments).run(arguments.run)
    if arguments.output == "json":
        print(json.dumps(_facts(run), ensure_ascii=False))
        return 0
    print(headline(run))
    table(HEADINGS, rows(run))
    return 0


def _facts(run: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {name: run["metadata"].get(name) for name in ("name", "namespace", "generation")}
    return {**metadata, "status": run.get("status") or {}}


def watch(arguments: Namespace) -> int:
    kubectl = Kubectl.of(arguments)
    return follow_run(
        lambda: kubectl.run(arguments.run), seconds=arguments.interval, as_json=arguments.output == "json"
    )


def explain(arguments: Namespace) -> int:
    run = Kubectl.of(arguments).run(arguments.run)
    text = paragraph(run, now(), command=arguments.program, options=arguments.options)
    print(json.dumps({**_facts(run), "text": text}, ensure_ascii=False) if arguments.output == "json" else text)
    return 0


# -- changing a run ----------------------------------------------------------------------------------------------


def suspend(arguments: Namespace) -> int:
    return _change(
        arguments, {"suspend": True}, "stops; what is committed stays, `{program} resume {name}{options}` goes on"
    )


def resume(arguments: Namespace) -> int:
    return _change(arguments, {"suspend": False}, "goes on from what is committed")


def cancel(arguments: Namespace) -> int:
    return _change(
        arguments, {"cancel": True}, "ends; what is committed stays, `{program} retry {name}{options}` goes on"
    )


def retry(arguments: Namespace) -> int:
    """A new token makes a run that failed or was cancelled go on."""
    kubectl = Kubectl.of(arguments)
    state = state_of(kubectl.run(arguments.run))
    if state not in ("Failed", "Cancelled"):
        raise InvalidInput(f"the run {arguments.run} is {state}; only one that failed or was cancelled is retried")
    kubectl.patch(arguments.run, {"retryToken": f"{now():%Y%m%dT%H%M%S%fZ}", "cancel": False, "suspend": False})
    print(f"the run {arguments.run} goes on from what is committed")
    return 0


def _change(arguments: Namespace, spec: dict[str, Any], text: str) -> int:
    kubectl = Kubectl.of(arguments)
    state = state_of(kubectl.run(arguments.run))
    if state in TERMINAL:
        raise InvalidInput(f"the run {arguments.run} is over ({state}), so there is nothing to {arguments.verb}")
    kubectl.patch(arguments.run, spec)
    words = {"name": arguments.run, "program": arguments.program, "options": arguments.options}
    print(f"the run {arguments.run} {text.format(**words)}")
    return 0


# -- logs --------------------------------------------------------------------------------------------------------


def logs(arguments: Namespace) -> int:
    kubectl = Kubectl.of(arguments)
    run = kubectl.run(arguments.run)
    wanted = selector(arguments.run, arguments.stage)
    pods = newest_first(kubectl.json("get", "pods", f"--selector={wanted}")["items"])
    if not pods and not arguments.follow:
        others = kubectl.json("get", "pods", f"--selector={selector(arguments.run, None)}")["items"]
        known = ", ".join(sorted({what_of(pod) for pod in others})) or "none; they are deleted with their Jobs"
        raise InvalidInput(
            f"no pod of {arguments.stage or 'the run'} is there ({state_of(run)}); there are pods of: {known}"
        )
    if arguments.follow:
        return _follow(kubectl, arguments, wanted)
    for pod in pods:
        print(f"==> {title(pod)} <==", flush=True)
        if pod["status"].get("phase") != "Pending":
            kubectl.start("logs", pod["metadata"]["name"], "--all-containers").wait()
    return 0


def selector(run: str, stage: str | None) -> str:
    """The pods of a run, of one of its stages, or of a server named as in service-NAME."""
    if stage is None:
        return f"{RUN_LABEL}={run}"
    label = SERVICE_LABEL if stage.startswith(SERVICE_PREFIX) else STAGE_LABEL
    return f"{RUN_LABEL}={run},{label}={stage.removeprefix(SERVICE_PREFIX)}"


def what_of(pod: Mapping[str, Any]) -> str:
    """What a pod is for, as `logs` takes it."""
    labels = pod["metadata"].get("labels", {})
    service = f"{SERVICE_PREFIX}{labels[SERVICE_LABEL]}" if SERVICE_LABEL in labels else None
    return str(labels.get(STAGE_LABEL) or service or labels.get(ROLE_LABEL) or pod["metadata"]["name"])


def newest_first(pods: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    named = sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))
    return sorted(named, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), reverse=True)


def title(pod: Mapping[str, Any]) -> str:
    job = pod["metadata"].get("labels", {}).get("batch.kubernetes.io/job-name")
    facts = [what_of(pod), f"job {job}" if job else "", f"pod {pod['metadata']['name']}"]
    return ", ".join(filter(None, [*facts, pod["status"].get("phase", "")]))


def _follow(kubectl: Kubectl, arguments: Namespace, wanted: str) -> int:
    """Print lines as pods write them, and those of new pods, until what is followed is over."""
    followed: dict[str, subprocess.Popen[str]] = {}
    try:
        while True:
            for pod in kubectl.json("get", "pods", f"--selector={wanted}")["items"]:
                name = pod["metadata"]["name"]
                if name not in followed and pod["status"].get("phase") != "Pending":
                    followed[name] = kubectl.start("logs", name, "--all-containers", "--follow", "--prefix")
            is_over = _is_over(kubectl.run(arguments.run), arguments.stage)
            if is_over and all(process.poll() is not None for process in followed.values()):
                return 0
            time.sleep(_POLL_SECONDS)
    finally:
        for process in followed.values():
            process.terminate()
            process.wait()


def _is_over(run: Mapping[str, Any], stage: str | None) -> bool:
    states = {row["name"]: row.get("state") for row in (run.get("status") or {}).get("stages", ())}
    return state_of(run) in TERMINAL or states.get(stage or "") in (*FINISHED, "failed")


# -- the report --------------------------------------------------------------------------------------------------


def report(arguments: Namespace) -> int:
    """Copy the report from the run's store into the state folder; the cluster's credentials stay there."""
    from soda_jobs.settings import open_artifacts, state_folder
    from soda_jobs.store.base import URL_FIELD

    run = Kubectl.of(arguments).run(arguments.run)
    settings = store_of(run, arguments.store, arguments.endpoint)
    try:
        artifacts = open_artifacts(settings, state_folder())
        documents = {name: artifacts.get_document(arguments.run, name) for name in ("report.html", "report.json")}
    except ImportError as error:
        raise InvalidInput(
            f"reading {settings.url} needs boto3; install it with: pip install soda-distill[jobs]"
        ) from error
    except InvalidInput as error:
        if error.field == URL_FIELD:
            raise
        raise InvalidInput(
            f"the report is in {settings.url}, which your own AWS credentials do not open ({error}); set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to ones that may read it"
        ) from error
    if documents["report.html"] is None or documents["report.json"] is None:
        raise InvalidInput(f"the run {arguments.run} has no report in {settings.url} yet; it is {state_of(run)}")
    folder = state_folder() / "runs" / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in documents.items():
        (folder / name).write_bytes(data or b"")
    print((documents["report.json"] or b"").decode() if arguments.output == "json" else folder / "report.html")
    return 0


def store_of(run: Mapping[str, Any], url: str | None, endpoint: str | None) -> Any:
    """The settings of the store a run's report is in: what the caller says, then the status, then the spec."""
    from soda_jobs.settings import StoreSettings

    storage = run["spec"].get("storage") or {}
    where = url or (run.get("status") or {}).get("artifacts") or storage.get("url") or ""
    if "://" not in where and not (url and Path(url).is_dir()):
        raise InvalidInput(
            f"the run {run['metadata']['name']} does not say yet which store it uses; name it with --store"
        )
    return StoreSettings(
        url=where if "://" in where else str(Path(where).absolute()),
        endpoint=endpoint or storage.get("endpoint"),
        region=storage.get("region"),
        path_style=storage.get("pathStyle"),
    )
