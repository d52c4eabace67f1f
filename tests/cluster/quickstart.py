"""A whole distillation on a real node: `python -m tests.cluster.quickstart [FILE]`, or `make cluster-quickstart`.

Brings the node up, builds and imports the images, starts an S3 server for the artifacts, installs the chart with
helm, applies the run as a user would, shows its progress and fetches its report. The node stays for a look around;
`make cluster-down` removes it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from tests import gobuild
from tests.cluster.client import RESTRICTED
from tests.cluster.images import digest, image_archive, image_name
from tests.cluster.node import Node, alone, missing
from tests.cluster.programs import program
from tests.s3server.plugin import ACCESS_KEY, SECRET_KEY, S3Server
from tests.s3server.plugin import build as s3_program

ROOT: Final = Path(__file__).parents[2]
SAMPLE: Final = ROOT / "crds/samples/quickstart.yaml"
NAMESPACE: Final = "soda"
BUCKET: Final = "soda"
S3_PORT: Final = 7070
TERMINAL: Final = ("Succeeded", "Failed", "Cancelled")


def images(run: Mapping[str, Any]) -> list[str]:
    """The images that a run on CPUs needs, and the operator's."""
    languages = run["spec"].get("execution", {}).get("languages", ["python"])
    return ["operator", "jobs", "train", *(f"sandbox-{language}" for language in languages)]


@contextmanager
def s3_server(node: Node) -> Iterator[S3Server]:
    """An S3 server on this machine that pods reach at the node's address; its folder outlives it."""
    folder = gobuild.cache_folder() / "cluster-s3" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    server = S3Server(s3_program(), folder, S3_PORT, host=node.address)
    server.start()
    try:
        if not (folder / BUCKET).exists():
            server.make_bucket(BUCKET)
        yield server
    finally:
        server.kill()


def install(node: Node, endpoint: str, run: Mapping[str, Any]) -> None:
    """The chart, its images, and the secret that its storage names."""
    for name in images(run):
        print(f"image {name}", file=sys.stderr, flush=True)
        node.import_image(image_archive(name))
    meta = {"name": NAMESPACE, "labels": RESTRICTED}
    node.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    secret = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    node.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3", "namespace": NAMESPACE},
            "stringData": secret,
        }
    )
    values = {
        "image": _image("operator"),
        "podAnnotations": {"soda.dev/image": digest("operator")},  # the tag stays the same when the image changes
        "images": {name: _image(name) for name in images(run) if name != "operator"},
        "storage": {"url": f"s3://{BUCKET}/store", "endpoint": endpoint, "secretRef": {"name": "s3"}},
    }
    helm = [program("helm"), f"--kubeconfig={node.kubeconfig}", "upgrade", "--install", "soda"]
    words = [ROOT / "charts/soda", f"--namespace={NAMESPACE}", "--values=-", "--wait", "--timeout=180s"]
    subprocess.run([*helm, *words], input=json.dumps(values), text=True, check=True, stdout=sys.stderr)


def _image(name: str) -> dict[str, str]:
    repository, _, tag = image_name(name).rpartition(":")
    return {"repository": repository, "tag": tag}


def follow(node: Node, name: str, seconds: float = 3600) -> dict[str, Any]:
    """The run's status once it is over; a line for each change until then."""
    end, shown = time.monotonic() + seconds, ""
    began = time.monotonic()
    while time.monotonic() < end:
        status: dict[str, Any] = node.get("distillationrun", name, namespace=NAMESPACE).get("status") or {}
        words = [status.get(key, "") for key in ("state", "round", "progress", "score", "message")]
        line = "  ".join(str(word) for word in words if word)
        if line != shown:
            print(f"{time.monotonic() - began:6.0f} s  {line[:160]}", flush=True)
            shown = line
        if status.get("state") in TERMINAL:
            return status
        time.sleep(1)
    raise TimeoutError(f"the run {name} is not over after {seconds:g} s: {shown}")


def fetch_report(server: S3Server, name: str, target: Path) -> Path:
    """Copy a run's report out of the store."""
    target.mkdir(parents=True, exist_ok=True)
    with closing(server.client()) as client:
        for file in ("report.html", "report.json"):
            client.download_file(BUCKET, f"store/runs/{name}/{file}", str(target / file))
    return target / "report.html"


def main(words: list[str]) -> int:
    if reason := missing():
        print(reason, file=sys.stderr)
        return 1
    run = yaml.safe_load((Path(words[0]) if words else SAMPLE).read_text())
    node = Node(detached=True)
    with alone(seconds=60):
        if not (node.kept.exists() and node.running()):
            node.start()
            node.kept.touch()
    name = run["metadata"]["name"]
    with s3_server(node) as server:
        install(node, server.endpoint, run)
        print(f"export KUBECONFIG={node.kubeconfig}", flush=True)
        node.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps(run))
        status = follow(node, name)
        if status["state"] != "Succeeded":
            return 1
        report = fetch_report(server, name, Path(os.environ.get("SODA_STATE", ".soda")) / "cluster" / name)
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
