"""What runs on a node: for each service its configuration files and its command line. Values only; ``node.py`` starts them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from e2e.kubernetes.images import PAUSE
from e2e.kubernetes.init import ADDRESS, API_SERVICE, NAME

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.kubernetes.credentials import Credentials

PODS = "10.98.0.0/22"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_VOLUME_PLUGINS = "/var/lib/kubelet/volume-plugins"  # its default place is a folder of the machine's


def containerd_config(folder: Path) -> str:
    """Images, snapshots and sockets in their usual places; what would lie elsewhere on the machine lies in ``folder``."""
    return f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{folder}/opt"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE}"
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = "{folder}/certs.d"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true # without CAP_SYS_RESOURCE nobody's score can be lowered, and containers do not start
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
"""


def network_config() -> str:
    """A bridge whose pods reach each other and the node, and nothing else. Addresses are forgotten at a reboot, as the pods are."""
    addresses = {"type": "host-local", "dataDir": "/run/cni", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "ipam": addresses}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]})


def kubelet_config(credentials: Credentials, *, cgroup: str, taint: str) -> str:
    """Kubelet's configuration: its pods below ``cgroup``, its node registered with ``taint``, nothing evicted, no image collected."""
    never = {
        "memory.available": "1Mi",
        "nodefs.available": "0%",
        "nodefs.inodesFree": "0%",
        "imagefs.available": "0%",
        "imagefs.inodesFree": "0%",
    }
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": credentials["ca.crt"]},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{cgroup}",
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "evictionHard": never,
            "failCgroupV1": False,
            "failSwapOn": False,
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "makeIPTablesUtilChains": False,
            "maxPods": 150,
            "nodeStatusUpdateFrequency": "5s",
            "registerWithTaints": [{"key": taint, "effect": "NoSchedule"}],
            "resolvConf": "",
            "tlsCertFile": credentials["kubelet.crt"],
            "tlsPrivateKeyFile": credentials["kubelet.key"],
            "volumePluginDir": _VOLUME_PLUGINS,
        }
    )


def commands(folder: Path, credentials: Credentials) -> dict[str, tuple[str, ...]]:
    """The command line of each service; ``folder`` holds the configuration files."""
    etcd, admin = "http://127.0.0.1:2379", str(credentials.admin)
    peers = "http://127.0.0.1:2380"
    trusting = ("--kubeconfig", admin, "--authentication-kubeconfig", admin, "--authorization-kubeconfig", admin)
    alone = ("--leader-elect=false", "--bind-address", "127.0.0.1")
    return {
        "containerd": ("containerd", "--config", str(folder / "containerd.toml")),
        "etcd": (
            *("etcd", "--data-dir", "/var/lib/etcd"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}"),
            # A node of this kind can be halted, but its disk's cache cannot be lost.
            "--unsafe-no-fsync",
        ),
        "apiserver": (
            *("kube-apiserver", "--etcd-servers", etcd, "--secure-port", "443", "--advertise-address", ADDRESS),
            *("--service-cluster-ip-range", f"{API_SERVICE.rpartition('.')[0]}.0/24", "--endpoint-reconciler-type", "none"),
            *("--tls-cert-file", credentials["apiserver.crt"], "--tls-private-key-file", credentials["apiserver.key"]),
            *("--client-ca-file", credentials["ca.crt"], "--token-auth-file", credentials["tokens.csv"], "--anonymous-auth=false"),
            *("--kubelet-certificate-authority", credentials["ca.crt"], "--kubelet-preferred-address-types", "InternalIP"),
            *("--kubelet-client-certificate", credentials["apiserver.crt"], "--kubelet-client-key", credentials["apiserver.key"]),
            *("--authorization-mode", "Node,RBAC", "--enable-admission-plugins", "NodeRestriction", "--allow-privileged"),
            *("--service-account-issuer", "https://kubernetes.default.svc", "--api-audiences", "https://kubernetes.default.svc"),
            *("--service-account-key-file", credentials["sa.key"], "--service-account-signing-key-file", credentials["sa.key"]),
        ),
        "controller-manager": (
            *("kube-controller-manager", *trusting, *alone, "--flex-volume-plugin-dir", _VOLUME_PLUGINS),
            *("--service-account-private-key-file", credentials["sa.key"], "--root-ca-file", credentials["ca.crt"]),
        ),
        "scheduler": ("kube-scheduler", *trusting, *alone),
        "kubelet": (
            *("kubelet", "--config", str(folder / "kubelet.yaml"), "--kubeconfig", str(credentials.kubelet)),
            *("--hostname-override", NAME, "--node-ip", ADDRESS, "--v", "2"),
        ),
        # The API over a Unix socket: this process is not in the node's network.
        "proxy": ("kubectl", "proxy", "--unix-socket", str(folder.parent / "api.sock")),
    }
