"""etcd and the Kubernetes API server as processes, with the controllers and the scheduler when asked for.

RBAC is on, admission is what a default cluster has (Pod Security, RuntimeClass, quotas); certificates are new.
"""

from __future__ import annotations

import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from tests.cluster.certificates import Authority, Pair
from tests.cluster.client import Cluster
from tests.cluster.processes import Processes, free_port
from tests.cluster.programs import program

SERVICE_RANGE: Final = "10.96.0.0/16"
SERVICE_ADDRESS: Final = "10.96.0.1"  # of the Service `kubernetes`: the first one of the range
CONTROLLERS: Final = ("kube-controller-manager", "kube-scheduler")


class ControlPlane(Cluster):
    """A control plane in `folder`: `certificates/`, `etcd/`, `logs/` and `admin.kubeconfig`.

    `address` is what pods would call the API server by; with the default, only this machine can reach it.
    """

    def __init__(self, folder: Path, *, address: str = "127.0.0.1", detached: bool = False) -> None:
        super().__init__(folder / "admin.kubeconfig")
        self.folder = folder
        self.address = address
        self.processes = Processes(folder / "logs", detached)

    def start(self, controllers: bool = True, api_options: Sequence[str] = ()) -> None:
        """Returns when the API server is ready and, with controllers, when those run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        (self.folder / "server").write_text(f"https://127.0.0.1:{port}")
        etcd = self._start_etcd()
        self._start_api_server(port, etcd, api_options)
        self.client("admin", "kubernetes-admin", ["system:masters"])
        self._wait_ready()
        if controllers:
            self._start_controllers()

    def stop(self) -> None:
        """Kills: the API server would wait more than a minute for its clients, and the data is thrown away."""
        self.processes.stop(*CONTROLLERS, "kube-apiserver")
        self.processes.stop("etcd")
        shutil.rmtree(self.folder / "etcd", ignore_errors=True)

    @property
    def server(self) -> str:
        """The address of the API server from this machine."""
        return (self.folder / "server").read_text()

    @cached_property
    def authority(self) -> Authority:
        return Authority(self.folder / "certificates")

    def client(self, name: str, user: str, groups: Sequence[str] = ()) -> Path:
        """The file NAME.kubeconfig for a user; RBAC says what the user may do."""
        pair = self.authority.issue(name, user, groups)
        return self.authority.kubeconfig(self.folder / f"{name}.kubeconfig", self.server, pair)

    def _start_etcd(self) -> str:
        client, peer = f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        argv: list[str | Path] = [
            program("etcd"),
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--quota-backend-bytes=8589934592",
        ]
        self.processes.start("etcd", argv)
        return client

    def _start_api_server(self, port: int, etcd: str, options: Sequence[str]) -> None:
        issue, authority = self.authority.issue, self.authority
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        serving = issue("apiserver", "kube-apiserver", hosts=[*names, "127.0.0.1", SERVICE_ADDRESS, self.address])
        kubelet = issue("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        proxy = issue("front-proxy-client", "front-proxy-client")
        tokens, verify = self._token_keys()
        local = self.address.startswith("127.")
        argv: list[str | Path] = [
            program("kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--secure-port={port}",
            f"--bind-address={'127.0.0.1' if local else '0.0.0.0'}",
            f"--advertise-address={self.address}",
            # The Service `kubernetes` may not have a loopback address behind it.
            f"--endpoint-reconciler-type={'none' if local else 'lease'}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={authority.ca.certificate}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-signing-key-file={tokens}",
            f"--service-account-key-file={verify}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={authority.ca.certificate}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={proxy.certificate}",
            f"--proxy-client-key-file={proxy.key}",
            "--enable-aggregator-routing",
            *options,
        ]
        self.processes.start("kube-apiserver", argv)

    def _token_keys(self) -> tuple[Path, Path]:
        """The key that signs ServiceAccount tokens, and the public half that checks them."""
        pair = self.authority.issue("service-accounts", "service-accounts")
        private = serialization.load_pem_private_key(pair.key.read_bytes(), None)
        public = pair.key.with_suffix(".pub")
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        public.write_bytes(private.public_key().public_bytes(serialization.Encoding.PEM, form))
        return pair.key, public

    def _wait_ready(self, seconds: float = 60) -> None:
        context = ssl.create_default_context(cafile=str(self.authority.ca.certificate))
        admin = Pair(*(self.authority.folder / f"admin.{end}" for end in ("crt", "key")))
        context.load_cert_chain(admin.certificate, admin.key)
        end = time.monotonic() + seconds
        while True:
            self.processes.require("etcd")
            self.processes.require("kube-apiserver")
            try:
                with urllib.request.urlopen(f"{self.server}/readyz", timeout=5, context=context):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if isinstance(error, urllib.error.HTTPError):
                    error.close()
                if time.monotonic() > end:
                    log = self.processes.tail("kube-apiserver")
                    raise TimeoutError(f"the API server is not ready after {seconds:g} s:\n{log}") from error
            time.sleep(0.05)

    def _start_controllers(self) -> None:
        ca, keys = self.authority.ca, self.authority.folder
        config = {name: self.client(name, f"system:{name}") for name in CONTROLLERS}
        common = ["--leader-elect=false", "--bind-address=127.0.0.1"]
        self.processes.start(
            "kube-controller-manager",
            [
                program("kube-controller-manager"),
                f"--kubeconfig={config['kube-controller-manager']}",
                f"--root-ca-file={ca.certificate}",
                f"--service-account-private-key-file={keys / 'service-accounts.key'}",
                f"--cluster-signing-cert-file={ca.certificate}",
                f"--cluster-signing-key-file={ca.key}",
                "--use-service-account-credentials",
                "--kube-api-qps=300",
                "--kube-api-burst=600",
                f"--secure-port={free_port()}",
                *common,
            ],
        )
        self.processes.start(
            "kube-scheduler",
            [
                program("kube-scheduler"),
                f"--kubeconfig={config['kube-scheduler']}",
                f"--secure-port={free_port()}",
                *common,
            ],
        )
