"""Images of one static program, made without a registry, and what an image archive says about itself.

The format is the one of `docker save` and of `buildah push ... docker-archive:`.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests import gobuild

HERE = Path(__file__).parent
PAUSE = "localhost/pause:1"
PROBE = "localhost/probe:1"
USER = 65532


def pause_image() -> Path:
    """The image that holds a pod's namespaces open."""
    return _cached(PAUSE, HERE / "pause" / "pause.c", _build_pause, "/pause")


def probe_image() -> Path:
    """The image of `probe/main.go`, which looks around from inside a pod, as a user who owns `/work`."""
    return _cached(PROBE, HERE / "probe" / "main.go", _build_probe, "/probe")


def tags(archive: Path) -> dict[str, str]:
    """Each tag in an archive, with the digest of the image that it names."""
    with tarfile.open(archive) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        rows = json.load(manifest)
    return {tag: row["Config"].removesuffix(".json") for row in rows for tag in row["RepoTags"] or []}


def _cached(tag: str, source: Path, build: Callable[[Path], bytes], entrypoint: str) -> Path:
    digest = hashlib.sha256(source.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    folder = gobuild.cache_folder() / "images"
    folder.mkdir(exist_ok=True)
    path = folder / f"{tag.partition('/')[2].replace(':', '-')}-{digest}.tar"
    with gobuild.locked(path.name):
        if not path.exists():
            fresh = path.with_suffix(".new")
            _write(fresh, tag, build(source), [entrypoint])
            fresh.rename(path)
    return path


def _build_pause(source: Path) -> bytes:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip(
            "no C compiler, so the pause image cannot be built: install the Debian packages gcc and libc6-dev"
        )
    built = gobuild.cache_folder() / "images" / "pause"
    subprocess.run([compiler, "-static", "-Os", "-s", "-o", built, source], check=True)
    return built.read_bytes()


def _build_probe(source: Path) -> bytes:
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return gobuild.build(source.parent, ".", "probe", ldflags=f"-X main.source={digest}").read_bytes()


def _write(path: Path, tag: str, program: bytes, entrypoint: Sequence[str]) -> None:
    """A `docker save` archive of one layer with one program, the same bytes each time."""
    layer = _tar({entrypoint[0].lstrip("/"): program, "work/": b""}, mode=0o755, owner=USER)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": list(entrypoint), "User": f"{USER}:{USER}", "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z"}],
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]).encode()
    path.write_bytes(_tar({"manifest.json": manifest, name: config, "layer.tar": layer}))


def _tar(files: dict[str, bytes], mode: int = 0o644, owner: int = 0) -> bytes:
    """A name that ends in a slash is a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.size, info.mode, info.uid, info.gid = len(content), mode, owner, owner
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()
