"""What the programs of a node read: one function for each configuration file, from values to text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from tests.cluster.archive import PAUSE

NAME: Final = "soda-node"
BRIDGE: Final = "soda0"
ADDRESS: Final = "10.244.0.1"  # of the bridge: the node's, the API server's and the name server's
POD_RANGE: Final = "10.244.0.0/24"
CGROUP: Final = "/soda-node"
DNS_ROLE: Final = "system:coredns"


def containerd(folder: Path, images: Path, programs: Path) -> str:
    """The TOML of containerd; a JSON string is a TOML string."""
    quoted = {
        "root": images,
        "state": folder / "containerd",
        "socket": folder / "containerd.sock",
        "pause": PAUSE,
        "programs": programs,
        "cni": folder / "cni",
        "runc": programs / "runc",
        "runc_root": folder / "runc",
        "runsc_config": folder / "runsc.toml",
    }
    return _CONTAINERD % {name: json.dumps(str(value)) for name, value in quoted.items()}


# Without CAP_SYS_RESOURCE nobody may lower an OOM score, hence restrict_oom_score_adj.
_CONTAINERD = """\
version = 3
root = %(root)s
state = %(state)s
[grpc]
  address = %(socket)s
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = %(pause)s
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%(programs)s]
    conf_dir = %(cni)s
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = 'runc'
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = 'io.containerd.runc.v2'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        BinaryName = %(runc)s
        Root = %(runc_root)s
        SystemdCgroup = false
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc]
      runtime_type = 'io.containerd.runsc.v1'
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc.options]
        TypeUrl = 'io.containerd.runsc.v1.options'
        ConfigPath = %(runsc_config)s
"""


def runsc(folder: Path, programs: Path) -> str:
    """The TOML of gVisor's shim: systrap needs nothing from the processor, so it runs inside virtual machines."""
    return (
        f"binary_name = {json.dumps(str(programs / 'runsc'))}\n"
        f"root = {json.dumps(str(folder / 'runsc'))}\n"
        '[runsc_config]\nplatform = "systrap"\n'
    )


def cni(folder: Path) -> str:
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "soda",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "isGateway": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": POD_RANGE, "gateway": ADDRESS}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        "dataDir": str(folder / "addresses"),
                    },
                }
            ],
        }
    )


def kubelet(folder: Path, ca: Path, certificate: Path, key: Path) -> str:
    settings: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(ca)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "healthzPort": 0,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": CGROUP,
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(folder / "resolv.conf"),
        "containerRuntimeEndpoint": f"unix://{folder / 'containerd.sock'}",
        "podLogsDir": str(folder / "pod-logs"),
        "volumePluginDir": str(folder / "volume-plugins"),
        # A test node that runs out of disk should fail its tests, not evict their pods.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 200,
        "syncFrequency": "10s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }
    return json.dumps(settings, indent=1)


def kube_proxy(kubeconfig: Path) -> str:
    """Pods share one bridge, so an answer from a Service's pod goes around the node unless it is masqueraded."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "bindAddress": ADDRESS,
            "clusterCIDR": POD_RANGE,
            "hostnameOverride": NAME,
            "healthzBindAddress": "",
            "metricsBindAddress": "",
            "oomScoreAdj": 0,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "conntrack": {"maxPerCore": 0},
            "nftables": {"masqueradeAll": True, "minSyncPeriod": "100ms"},
        }
    )


def corefile(kubeconfig: Path) -> str:
    """Names of the cluster and no others: there is nowhere to forward them to."""
    return (
        f".:53 {{\n    bind {ADDRESS}\n    errors\n"
        "    kubernetes cluster.local in-addr.arpa {\n"
        f"        kubeconfig {kubeconfig}\n        ttl 1\n    }}\n}}\n"
    )


def objects() -> list[dict[str, Any]]:
    """What the cluster holds from the start: the gVisor class, and what CoreDNS may read.

    The API server itself binds the user `system:kube-proxy` to its role.
    """
    rbac = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "gvisor"},
            "handler": "runsc",
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": DNS_ROLE},
            "rules": [
                {
                    "apiGroups": [""],
                    "resources": ["services", "pods", "namespaces"],
                    "verbs": ["list", "watch"],
                },
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": DNS_ROLE},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": DNS_ROLE},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": DNS_ROLE}],
        },
    ]
