"""A real Kubernetes node on this machine: the control plane, containerd, kubelet, kube-proxy, CoreDNS and gVisor.

One node to a machine: the bridge, the cgroup and kube-proxy's rules have one name each.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests import gobuild
from tests.cluster import archive, node_files, remnants
from tests.cluster.client import Cluster
from tests.cluster.control_plane import CONTROLLERS, ControlPlane
from tests.cluster.node_files import ADDRESS, BRIDGE, CGROUP, NAME
from tests.cluster.processes import wait_until
from tests.cluster.programs import folder as programs_folder
from tests.cluster.programs import program

# What the programs here need to be built and to run; images are made with the last two.
DEBIAN_PACKAGES: Final = (
    "gcc",
    "libc6-dev",
    "libseccomp-dev",
    "pkg-config",
    "nftables",
    "iproute2",
    "mount",
    "util-linux",
    "debootstrap",
    "buildah",
)
_TOOLS: Final = ("cc", "pkg-config", "nft", "ip", "umount", "setpriv")
_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}
_ON_PATH: Final = ["runc", "containerd-shim-runc-v2", "runsc", "containerd-shim-runsc-v1"]
_CNI: Final = ["bridge", "loopback", "host-local"]
_HOST: Final = ("containerd", "kubelet", "kube-proxy", "coredns")
_IMAGES: Final = "images"


def default_folder() -> Path:
    return Path(os.environ.get("SODA_NODE") or gobuild.cache_folder() / "node").resolve()


def missing() -> str:
    """Why no node can run on this machine, or nothing."""
    if sys.platform != "linux":
        return f"a node runs on Linux, this is {sys.platform}"
    if os.geteuid() != 0:
        return "a node needs root: it makes cgroups, mounts and a network bridge"
    held = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    if lacking := [name for name, bit in _CAPABILITIES.items() if not held >> bit & 1]:
        return f"a node needs {' and '.join(lacking)}, which this root does not have"
    if lacking := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"not installed: {', '.join(lacking)} (apt-get install {' '.join(DEBIAN_PACKAGES)})"
    return ""


class Node(ControlPlane):
    """A node in `folder`. `address` is this machine as pods see it: a server that listens on it serves pods."""

    def __init__(self, folder: Path | None = None, *, detached: bool = False) -> None:
        super().__init__(folder or default_folder(), address=ADDRESS, detached=detached)
        self.kept = self.folder / "kept"  # it stays when the process that started it ends

    def start(self, controllers: bool = True, api_options: Sequence[str] = ()) -> None:
        """Removes what an earlier node left, then returns when the new one is Ready."""
        remnants.clean(self.folder, keep=_IMAGES)
        self.folder.mkdir(parents=True, exist_ok=True)
        _make_bridge()
        _make_cgroups()
        self._write_files()
        self._start_containerd()
        super().start(controllers, api_options)
        self.apply(*node_files.objects())
        wait_until((self.folder / "containerd.sock").exists, "containerd's socket", 30)
        self.import_image(archive.pause_image())
        self._start_on_host()
        try:
            self.wait(_is_ready, "node", NAME)
        except TimeoutError as error:
            ends = [f"--- {name}\n{self.processes.tail(name, 8)}" for name in _HOST]
            raise TimeoutError("\n".join([str(error), *ends])) from error

    def stop(self) -> None:
        """Ends pods with it, and removes all but the imported images."""
        self.processes.stop("kubelet", *CONTROLLERS, "kube-apiserver", "kube-proxy", "coredns")
        super().stop()
        self.processes.stop("containerd")
        remnants.clean(self.folder, keep=_IMAGES)

    def running(self) -> bool:
        return all(self.processes.pid(name) for name in ("etcd", "kube-apiserver", *CONTROLLERS, *_HOST))

    def import_image(self, path: Path) -> list[str]:
        """Makes the images of a `docker save` archive known to kubelet, and gives their tags."""
        seen = self.folder / _IMAGES / "imported.json"
        found = archive.tags(path)
        if not found:
            raise ValueError(
                f"{path} names no image: write it with a tag, as `buildah push ... docker-archive:` does"
            )
        with gobuild.locked("node-images"):  # test sessions may share a node that stays
            known: dict[str, str] = json.loads(seen.read_text()) if seen.exists() else {}
            if any(known.get(tag) != digest for tag, digest in found.items()):
                self.ctr("images", "import", str(path))
                seen.write_text(json.dumps({**known, **found}, indent=1))
        return sorted(found)

    def ctr(self, *words: str) -> str:
        """containerd's own client, in the namespace that kubelet uses."""
        return remnants.run(program("ctr"), "-a", self.folder / "containerd.sock", "-n", "k8s.io", *words)

    def _write_files(self) -> None:
        programs = programs_folder([*_ON_PATH, *_CNI])
        (self.folder / "cni").mkdir()
        files = {
            "containerd.toml": node_files.containerd(self.folder, self.folder / _IMAGES, programs),
            "runsc.toml": node_files.runsc(self.folder, programs),
            "cni/soda.conflist": node_files.cni(self.folder),
            "resolv.conf": "",
        }
        for name, content in files.items():
            (self.folder / name).write_text(content)

    def _start_containerd(self) -> None:
        path = f"{programs_folder(_ON_PATH)}:{os.environ['PATH']}"
        argv: list[str | Path] = [program("containerd"), "--config", self.folder / "containerd.toml"]
        self.processes.start("containerd", argv, {"PATH": path})

    def _start_on_host(self) -> None:
        user = f"system:node:{NAME}"
        serving = self.authority.issue("kubelet-serving", user, ["system:nodes"], [ADDRESS, NAME])
        proxy = self.client("kube-proxy", "system:kube-proxy")
        names = self.client("coredns", node_files.DNS_ROLE)
        files = {
            "kubelet.json": node_files.kubelet(
                self.folder, self.authority.ca.certificate, serving.certificate, serving.key
            ),
            "kube-proxy.json": node_files.kube_proxy(proxy),
            "Corefile": node_files.corefile(names),
        }
        for name, content in files.items():
            (self.folder / name).write_text(content)
        argv: list[str | Path] = [
            program("kubelet"),
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self.client('kubelet', user, ['system:nodes'])}",
            f"--root-dir={self.folder / 'kubelet'}",
            f"--cert-dir={self.folder / 'kubelet-certificates'}",
            f"--node-ip={ADDRESS}",
            f"--hostname-override={NAME}",
        ]
        self.processes.start("kubelet", argv)
        self.processes.start("kube-proxy", [program("kube-proxy"), f"--config={self.folder / 'kube-proxy.json'}"])
        self.processes.start("coredns", [program("coredns"), f"-conf={self.folder / 'Corefile'}"])


class ExternalNode(Cluster):
    """A cluster that somebody else runs. `SODA_TEST_ADDRESS` is this machine as its pods see it."""

    @property
    def address(self) -> str:
        return os.environ.get("SODA_TEST_ADDRESS") or pytest.skip(
            "SODA_TEST_ADDRESS does not say how pods reach us"
        )

    def import_image(self, path: Path) -> list[str]:
        pytest.skip(f"a cluster that was given must have the images itself, so {path.name} is not imported")


@contextmanager
def on_this_machine(seconds: float = 3600) -> Iterator[Node]:
    """The node that stays, if there is one; else one of our own, once nobody else has one."""
    node = Node()
    if node.kept.exists() and node.running():
        yield node
        return
    with alone(seconds):
        if node.kept.exists() and node.running():
            yield node
            return
        try:
            node.start()
            yield node
        finally:
            node.stop()


@contextmanager
def alone(seconds: float) -> Iterator[None]:
    """One at a time makes or removes the machine's node; a session holds this as long as its node runs."""
    with (gobuild.cache_folder() / "node.lock").open("w") as lock:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise TimeoutError(
                        "a test session has the node of this machine: try again when it ends"
                    ) from None
                time.sleep(0.5)
        yield


def _is_ready(node: Any) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def _make_bridge() -> None:
    """Before anything starts: it carries the address of the node, and a loopback one would be refused."""
    remnants.run("ip", "link", "add", BRIDGE, "address", "02:50:da:00:00:01", "type", "bridge")
    remnants.run("ip", "address", "add", f"{ADDRESS}/24", "dev", BRIDGE)
    remnants.run("ip", "link", "set", BRIDGE, "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def _make_cgroups() -> None:
    """kubelet wants its root cgroup to exist; what it finds there is what pods may have."""
    name, top = CGROUP.strip("/"), remnants.CGROUPS
    if (top / "cgroup.controllers").exists():
        wanted = {"cpu", "cpuset", "io", "memory", "pids"} & set((top / "cgroup.controllers").read_text().split())
        (top / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in sorted(wanted)))
        (top / name).mkdir(exist_ok=True)
        return
    for hierarchy in top.iterdir():
        if hierarchy.is_dir() and not hierarchy.is_symlink() and hierarchy.name != "unified":
            (hierarchy / name).mkdir(exist_ok=True)
            for setting in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / setting).exists():
                    (hierarchy / name / setting).write_text((hierarchy / setting).read_text())
