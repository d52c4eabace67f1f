"""The project's images, built here from their real Dockerfiles with buildah and without a registry.

    python -m tests.cluster.images sandbox-python jobs     build these (or: all)
    python -m tests.cluster.images table                   how large they are
    python -m tests.cluster.images prune                   forget layers that no image has any more

The base is a Debian made by debootstrap under the tag that the Dockerfiles name. Archives and layers lie in
`$SODA_CACHE` or `~/.cache/soda`. An archive's name has a digest of all that went in, so what is unchanged is not
built again, and each image keeps one archive. Layers are kept too: a change of our code alone takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from soda_jobs.spec import LANGUAGES
from tests import gobuild

ROOT: Final = Path(__file__).parents[2]
BASE: Final = "docker.io/library/debian:bookworm-slim"
NAMES: Final = (
    "operator",
    "jobs",
    "train",
    *(f"sandbox-{language}" for language in LANGUAGES),
)
# What the slim image of Debian leaves out, and what its package manager keeps off the disk.
_LEFT_OUT: Final = ("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian")
_DPKG: Final = "".join(f"path-exclude /{folder}/*\n" for folder in _LEFT_OUT) + (
    "path-include /usr/share/doc/*/copyright\n"
)
_RELEASE: Final = "bookworm"
_SOURCES: Final = Path("/etc/apt/sources.list.d/debian.sources")
_PIP_SETTINGS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout", "retries")
_NPM_SETTINGS: Final = ("registry", "cafile", "proxy", "https-proxy")
_APT_SETTINGS: Final = re.compile(r"^Acquire::(?:Check-|Retries|https?::).*", re.MULTILINE)
_DIGEST: Final = "[0-9a-f]" * 12
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def image_name(name: str) -> str:
    """The name under which containerd knows the image once its archive is imported."""
    return f"docker.io/library/soda-{name}:test"


def image_archive(name: str) -> Path:
    """The image as a docker-archive, built now if what goes in has changed."""
    if name not in NAMES:
        raise ValueError(f"{name!r} is not an image; the images are {', '.join(NAMES)}")
    folder = gobuild.cache_folder() / "images"
    folder.mkdir(exist_ok=True)
    with gobuild.locked(f"image-{name}"):
        archive = folder / f"{name}-{digest(name)}.tar"
        if not archive.exists():
            _build(name)
            for stale in folder.glob(f"{name}-{_DIGEST}.tar*"):
                stale.unlink()
            fresh = archive.with_suffix(".tar.new")
            fresh.unlink(missing_ok=True)
            _buildah("push", "--quiet", image_name(name), f"docker-archive:{fresh}:{image_name(name)}")
            fresh.rename(archive)
    return archive


def digest(name: str) -> str:
    """Of everything that the image is made from, as far as this repository says it."""
    found = hashlib.sha256(f"{package_sources()}{_DPKG}".encode())
    for path in _inputs(name):
        found.update(f"\0{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111}\0".encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:12]


def copied(name: str) -> list[tuple[str, str]]:
    """What the Dockerfile copies from the repository: (source, target) in its order."""
    text = dockerfile(name).read_text().replace("\\\n", " ")
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith("COPY ")]
    return [(source, words[-1]) for words in lines if "--" not in words[0] for source in words[:-1]]


def package_sources(path: Path = _SOURCES) -> str:
    """Where the base gets its packages: this machine's sources without comments, when they are for its release.

    "" where there are none: the base then keeps the source that debootstrap took it from.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    text = "".join(line for line in lines if not line.startswith("#"))
    suites = re.findall(r"^Suites: *(.*)$", text, re.MULTILINE)
    is_same = suites and all(suite.split("-")[0] == _RELEASE for line in suites for suite in line.split())
    return text if is_same else ""


def dockerfile(name: str) -> Path:
    return ROOT / "images" / name / "Dockerfile"


@contextmanager
def mounted(name: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The image's file system as a folder, and what its configuration says (Env, User, WorkingDir, Labels)."""
    image_archive(name)
    container = _buildah("from", "--pull-never", image_name(name)).strip()
    try:
        described = json.loads(_buildah("inspect", "--type", "image", image_name(name)))
        yield Path(_buildah("mount", container).strip()), described["OCIv1"]["config"]
    finally:
        _buildah("rm", container)


def _inputs(name: str) -> Iterator[Path]:
    yield dockerfile(name)
    yield ROOT / ".dockerignore"
    for source, _ in copied(name):
        path = ROOT / source
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        yield from (file for file in files if "__pycache__" not in file.parts)


def _build(name: str) -> None:
    with gobuild.locked("image-base"):
        _make_base()
    with tempfile.TemporaryDirectory(prefix="soda-images-") as settings:
        volumes = [word for mount in _machine_settings(Path(settings)) for word in ("--volume", mount)]
        options = ["--isolation", "chroot", "--pull-never", "--layers", *volumes]
        _buildah("bud", *options, "--file", str(dockerfile(name)), "--tag", image_name(name), str(ROOT), loud=True)


def _make_base() -> None:
    """Debian under the Dockerfiles' own name for it."""
    if any(BASE in (image.get("names") or []) for image in json.loads(_buildah("images", "--json") or "[]")):
        return
    with tempfile.TemporaryDirectory(prefix="base-", dir=gobuild.cache_folder()) as temporary:
        tree = Path(temporary, "root")
        subprocess.run(["nice", "-n", "10", "debootstrap", "--variant=minbase", _RELEASE, tree], check=True)
        for folder in (*_LEFT_OUT, "var/cache/apt", "var/lib/apt/lists", "var/log"):
            shutil.rmtree(tree / folder, ignore_errors=True)
            (tree / folder).mkdir(parents=True)
        if sources := package_sources():
            (tree / "etc/apt/sources.list").unlink(missing_ok=True)
            Path(f"{tree}{_SOURCES}").write_text(sources)
        (tree / "etc/dpkg/dpkg.cfg.d/slim").write_text(_DPKG)
        for name in ("hostname", "resolv.conf"):
            (tree / "etc" / name).write_text("")
        container = _buildah("from", "--name", "soda-base", "scratch").strip()
        _buildah("add", "--quiet", container, str(tree), "/")
        _buildah("config", "--cmd", "bash", container)
        _buildah("commit", "--quiet", "--rm", container, BASE)


def _machine_settings(folder: Path) -> Iterator[str]:
    """This machine's way to its package registries, shown to the build and left in no image."""
    if package_sources():
        yield f"{_SOURCES}:{_SOURCES}:ro"
    apt = folder / "apt.conf"
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    apt.write_text("\n".join(_APT_SETTINGS.findall(dump)) + "\n")
    yield f"{apt}:/etc/apt/apt.conf.d/99-build:ro"
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    pairs = re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    lines = [f"{key} = {value}" for key, value in pairs if key in _PIP_SETTINGS]
    if _CERTIFICATES.exists():
        lines.append("cert = /etc/pip-certificates.crt")
        yield f"{_CERTIFICATES}:/etc/pip-certificates.crt:ro"
    pip = folder / "pip.conf"
    pip.write_text("\n".join(["[global]", *lines]) + "\n")
    yield f"{pip}:/etc/pip.conf:ro"
    npm = folder / "npmrc"
    npm.write_text("".join(f"{key}={value}\n" for key in _NPM_SETTINGS if (value := _npm_setting(key))))
    yield f"{npm}:/usr/local/etc/npmrc:ro"


def _npm_setting(key: str) -> str:
    """Nothing where npm is not installed or has no such setting; certificates lie where pip's do."""
    if shutil.which("npm") is None:
        return ""
    done = subprocess.run(["npm", "config", "get", key], capture_output=True, text=True, check=False)
    value = done.stdout.strip()
    if key == "cafile" and _CERTIFICATES.exists():
        return "/etc/pip-certificates.crt"
    return "" if done.returncode or value in ("null", "undefined") else value


def _buildah(*words: str, loud: bool = False) -> str:
    """Standard output; with `loud` it goes to standard error as it comes. Raises CalledProcessError."""
    storage = gobuild.cache_folder() / "containers"
    where = ["--root", str(storage / "storage"), "--runroot", str(storage / "run"), "--storage-driver", "overlay"]
    argv = ["nice", "-n", "10", "buildah", *where, *words]
    out = sys.stderr if loud else subprocess.PIPE
    return subprocess.run(argv, stdout=out, text=True, check=True, env=os.environ).stdout or ""


def table() -> str:
    """The archives that exist, in Markdown."""
    lines = ["| image | holds | MB unpacked |", "|---|---|---|"]
    for name in NAMES:
        archives = list((gobuild.cache_folder() / "images").glob(f"{name}-{_DIGEST}.tar"))
        size = f"{archives[0].stat().st_size / 1e6:,.0f}" if archives else "not built here"
        holds = dockerfile(name).read_text().splitlines()[0].removeprefix("# ")
        lines.append(f"| `soda-{name}` | {holds} | {size} |")
    return "\n".join(lines)


def prune() -> None:
    """Forget layers that no image has any more, when nothing is being built; builds make again what they miss."""
    _buildah("rmi", "--prune", loud=True)


def main(words: list[str]) -> None:
    if words == ["table"]:
        print(table())
        return
    if words == ["prune"]:
        prune()
        return
    for name in NAMES if words == ["all"] else words:
        started = time.monotonic()
        archive = image_archive(name)
        size = archive.stat().st_size / 1e6
        print(f"{name:20} {size:7.0f} MB  {time.monotonic() - started:6.1f} s  {archive}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
