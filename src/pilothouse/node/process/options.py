"""What the process runtime can be told, with its defaults."""

from __future__ import annotations

import msgspec

from .spec import Mode

__all__ = ["Options"]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How this machine runs pods. `root` holds all state; two runtimes never share one.

    `mode` None takes the strongest isolation the machine allows. `pod_cidr` empty means 10.244.0.0/24, or part of 127/8
    where pods have no network of their own; `cluster_cidr` is of all nodes' pods, which see each
    other's addresses. `cgroup_prefix` is put before each group's path. `masquerade` lets pods
    reach other networks (needs nftables). `hidden` is what pods of `image: host` do not see, `local_images` the
    directories below which `oci:`, `oci-archive:` and `dir:` images may be.
    """

    root: str
    mode: Mode | None = None
    bridge: str = "pilothouse0"
    pod_cidr: str = ""
    cluster_cidr: str = ""
    mtu: int = 1500
    masquerade: bool = True
    cgroup_prefix: str = ""
    host_image: bool = True
    hidden: tuple[str, ...] = (
        "/etc/shadow",
        "/etc/shadow-",
        "/etc/gshadow",
        "/etc/gshadow-",
        "/etc/ssh",
        "/etc/ssl/private",
        "/etc/wireguard",
        "/root/.ssh",
        "/root/.aws",
        "/root/.docker",
        "/root/.gnupg",
        "/root/.kube",
        "/var/lib/pilothouse",
        "/var/lib/containerd",
        "/var/lib/docker",
        "/var/lib/kubelet",
        "/etc/kubernetes",
    )
    local_images: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    pids_limit: int = 0
    image_bytes: int = 64 << 30
