"""The programs a Kubernetes node is made of: one table, each built from the pinned module under `tools/`."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import gobuild

TOOLS: Final = Path(__file__).parent / "tools"
KUBERNETES: Final = "v1.36.3"
_VERSION: Final = "k8s.io/component-base/version"
_K8S_FLAGS: Final = f"-X {_VERSION}.gitVersion={KUBERNETES} -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=36"


@dataclass(frozen=True)
class Program:
    """One row: the folder under `tools/`, the package to build, and how."""

    tool: str
    package: str
    ldflags: str = ""
    tags: str = ""
    cgo: bool = False


_K8S = {
    name: Program("kubernetes", f"k8s.io/kubernetes/cmd/{name}", _K8S_FLAGS)
    for name in (
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kubectl",
        "kube-proxy",
    )
}
_CONTAINERD = "github.com/containerd/containerd/v2/cmd"
_CNI = "github.com/containernetworking/plugins/plugins"

PROGRAMS: Final = {
    **_K8S,
    "etcd": Program("etcd", "go.etcd.io/etcd/server/v3"),
    "containerd": Program("containerd", f"{_CONTAINERD}/containerd"),
    "ctr": Program("containerd", f"{_CONTAINERD}/ctr"),
    "containerd-shim-runc-v2": Program("containerd", f"{_CONTAINERD}/containerd-shim-runc-v2"),
    "runc": Program("runc", "github.com/opencontainers/runc", tags="seccomp", cgo=True),
    "runsc": Program("gvisor", "gvisor.dev/gvisor/runsc"),
    "containerd-shim-runsc-v1": Program("gvisor", "gvisor.dev/gvisor/shim"),
    "bridge": Program("cni", f"{_CNI}/main/bridge"),
    "loopback": Program("cni", f"{_CNI}/main/loopback"),
    "host-local": Program("cni", f"{_CNI}/ipam/host-local"),
    "portmap": Program("cni", f"{_CNI}/meta/portmap"),
    "coredns": Program("coredns", "github.com/coredns/coredns"),
    "helm": Program("helm", "helm.sh/helm/v4/cmd/helm"),
    "kueue": Program("kueue", "sigs.k8s.io/kueue/cmd/kueue"),
}


def program(name: str) -> Path:
    """The named program, built now if it is not in the cache."""
    row = PROGRAMS[name]
    module = TOOLS / row.tool
    work = _patched_gvisor(module) if row.tool == "gvisor" else None
    options = ["-mod=vendor"] if work else []
    return gobuild.build(
        module,
        row.package,
        name,
        ldflags=row.ldflags,
        tags=row.tags,
        cgo=row.cgo,
        work=work,
        options=options,
    )


def folder(names: list[str]) -> Path:
    """A folder in which each program lies under its own name, as a PATH and as CNI want it."""
    target = gobuild.cache_folder() / "path"
    target.mkdir(exist_ok=True)
    for name in names:
        link = target / name
        built = program(name)
        if not link.is_symlink() or link.readlink() != built:
            link.unlink(missing_ok=True)
            link.symlink_to(built)
    return target


def _patched_gvisor(module: Path) -> Path:
    """A vendor tree in which lowering an OOM score is allowed to fail.

    Without CAP_SYS_RESOURCE nobody may lower `oom_score_adj`, and the gVisor shim gives up when it cannot. The
    score only tells the kernel whom to kill first, so a test node can do without.
    """
    tree = gobuild.cache_folder() / "gvisor-vendor"
    done = tree / ".patched"
    with gobuild.locked("gvisor-vendor"):
        if done.exists():
            return tree
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir()
        for name in ("go.mod", "go.sum"):
            shutil.copy(module / name, tree / name)
        (tree / "tools.go").write_text(
            'package tools\n\nimport (\n\t_ "gvisor.dev/gvisor/runsc"\n\t_ "gvisor.dev/gvisor/shim"\n)\n'
        )
        subprocess.run(["go", "mod", "vendor"], cwd=tree, check=True)
        source = tree / "vendor/github.com/containerd/containerd/v2/pkg/sys/oom_linux.go"
        text = source.read_text()
        strict = "if os.IsPermission(err) && (!runningPrivileged() || userns.RunningInUserNS()) {"
        assert strict in text, f"{source} is not the file that the patch was written for"
        source.write_text(
            text.replace(strict, "if os.IsPermission(err) || !runningPrivileged() || userns.RunningInUserNS() {")
        )
        done.touch()
    return tree
