"""The images: what each holds, and that it runs as a stranger on a read-only root."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from soda_jobs.sandbox.client import run_programs
from soda_jobs.sandbox.types import Program
from tests.cluster import images

SANDBOXES = [name for name in images.NAMES if name.startswith("sandbox-")]
PINNED = {
    "javascript": "20.18.0",
    "go": "1.26.6",
    "typescript": "5.9.3",
}  # in requirements/; the others come with Debian
# For each language a program that passes, one that does not, and the verdict on it.
PROGRAMS = {
    "python": ("import distutils, sqlite3, ssl", "import numpy", "import"),
    "java": (
        "public class Main { public static void main(String[] a) { System.out.println(1); } }",
        "public class Main { public static void main(String[] a) { int x = nothing; } }",
        "name",
    ),
    "javascript": ("console.log(structuredClone(1))", "nothing()", "name"),
    "c": (
        "#include <math.h>\nint main(int n, char **a) { return sin(n) > 2; }",
        "int main() { return x; }",
        "name",
    ),
    "cpp": ("#include <vector>\nint main() { std::vector<int> a; }", "int main() { return nothing; }", "name"),
    "go": (
        'package main\nimport ("fmt"; "net/http")\nfunc main() { fmt.Println(http.StatusOK) }',
        "package main\nfunc main() { nothing() }",
        "name",
    ),
    "typescript": ("const a: number = require('fs').readdirSync('/').length; export {};", "nothing();", "name"),
    "rust": (
        "use std::collections::HashMap; fn main() { HashMap::<i32, i32>::new(); }",
        "fn main() { x }",
        "name",
    ),
    "ruby": ("require 'json'; require 'test/unit'", "nothing", "name"),
}
ALSO = {"cpp": ["c"], "rust": ["c"], "typescript": ["javascript"]}  # what its toolchain is made of
# What a container runtime does: the image is the root, read-only, with a /tmp of its own; then a stranger runs.
ENTER = """
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs tmpfs "$root/sys"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . .
umount -l .
exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs --bounding-set -all "$@"
"""


@dataclass
class Image:
    name: str
    root: Path
    settings: dict[str, Any]

    def argv(self, *words: str) -> list[str]:
        inside = ["env", "-i", f"--chdir={self.settings['WorkingDir']}", *self.settings["Env"], *words]
        enter = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", ENTER, "sh", str(self.root)]
        return [*enter, *inside]

    def run(self, *words: str) -> str:
        done = subprocess.run(self.argv(*words), capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def packages(self) -> set[str]:
        listed = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
        return set(self.run("python", "-c", listed).split())


@pytest.fixture(scope="module")
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    if os.geteuid() != 0 or shutil.which("buildah") is None or shutil.which("debootstrap") is None:
        pytest.skip("images are built here by root with buildah and debootstrap; elsewhere build them with docker")
    with images.mounted(request.param) as (root, settings):
        yield Image(request.param, root, settings)


def each(names: list[str] | tuple[str, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("image", names, indirect=True)


LOOK = """
import importlib.util, os, pathlib, soda_jobs
pathlib.Path.home().joinpath("x").write_text("the home folder takes files")
print(os.access(soda_jobs.__file__, os.W_OK), os.path.exists(importlib.util.cache_from_source(soda_jobs.__file__)))
"""


@pytest.mark.cluster
@each(images.NAMES)
def test_runs_as_a_stranger_on_a_read_only_root(image: Image) -> None:
    assert image.settings["User"] == "65532:65532"
    assert image.settings["Labels"]["org.opencontainers.image.title"] == f"soda-{image.name}"
    assert not image.settings.get("Entrypoint")
    assert image.run("id", "-u") == "65532"
    assert image.run("python", "-c", LOOK) == "False True", "our code: writable? compiled?"


@pytest.mark.cluster
@each(images.NAMES)
def test_leaves_no_caches_and_nothing_that_others_may_write(image: Image) -> None:
    for folder in ("root", "tmp", "var/lib/apt/lists", "var/cache/apt", "var/log"):
        left = [path for path in (image.root / folder).rglob("*") if path.is_file()]
        assert {path.name for path in left} <= {".bashrc", ".profile"}, folder
    ours = [path for path in (image.root / "opt/soda").rglob("*") if not path.is_symlink()]
    assert [path for path in ours if path.stat().st_mode & 0o022 or path.stat().st_uid] == []


@pytest.mark.cluster
@each(["operator"])
def test_the_operator_holds_neither_torch_nor_an_s3_client(image: Image) -> None:
    image.run("python", "-c", "import soda_operator, soda_jobs.plan, kopf, kubernetes.aio")
    assert {"kopf", "kubernetes"} <= image.packages()
    assert not image.packages() & {"torch", "boto3", "botocore", "aioboto3", "pip", "setuptools"}


@pytest.mark.cluster
@each(["jobs", "train"])
def test_every_stage_can_be_asked_for(image: Image) -> None:
    assert "usage: soda" in image.run("python", "-m", "soda_jobs", "--help")
    assert ("torch" in image.packages()) == (image.name == "train")
    assert "pip" not in image.packages()


@pytest.mark.cluster
@each(["train"])
def test_torch_computes_on_the_cpu(image: Image) -> None:
    assert (
        image.run("python", "-c", "import torch, transformers, trl; print((torch.eye(2) @ torch.ones(2)).sum())")
        == "tensor(2.)"
    )


@pytest.mark.cluster
@each(SANDBOXES)
def test_a_sandbox_runs_its_language_and_holds_nothing_else(image: Image) -> None:
    language = image.name.removeprefix("sandbox-")
    assert image.packages() == set()
    good, bad, word = PROGRAMS[language]
    with subprocess.Popen(
        image.argv("python", "-m", "soda_jobs.sandbox", "--workers", "1"), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            events = (json.loads(line) for line in process.stderr)
            ready = next(event for event in events if event["event"] == "sandbox_ready")
            programs = [Program(name, language, code, "") for name, code in (("good", good), ("bad", bad))]
            verdicts = asyncio.run(run_programs(ready["url"], programs))
        finally:
            process.kill()
    found = {name for name, version in ready["languages"].items() if version is not None}
    assert found == {"python", language, *ALSO.get(language, ())}
    assert ready["languages"][language] == PINNED.get(language, ready["languages"][language])
    assert {name: verdict.verdict for name, verdict in verdicts.items()} == {"good": "pass", "bad": word}, verdicts


@pytest.mark.parametrize(("release", "is_taken"), [("bookworm", True), ("trixie", False)])
def test_the_base_gets_its_packages_where_this_machine_does(tmp_path: Path, release: str, is_taken: bool) -> None:
    sources = f"Types: deb\nURIs: http://mirror.example.com/debian\nSuites: {release} {release}-updates\n"
    (tmp_path / "debian.sources").write_text(f"# a comment\n{sources}")
    assert images.package_sources(tmp_path / "debian.sources") == (sources if is_taken else "")
    assert images.package_sources(tmp_path / "none") == ""


@pytest.mark.parametrize("name", SANDBOXES)
def test_a_sandbox_image_is_given_all_that_the_sandbox_imports(name: str, tmp_path: Path) -> None:
    for source, target in images.copied(name):
        if source.startswith("soda_jobs"):
            here, there = images.ROOT / source, tmp_path / target.removeprefix("/opt/soda/")
            if here.is_dir():
                shutil.copytree(here, there, dirs_exist_ok=True)
            else:
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy(here, there)
    for module in ("soda_jobs.sandbox.__main__", "soda_jobs.sandbox.worker"):
        argv = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.append({str(tmp_path)!r}); import {module}",
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
