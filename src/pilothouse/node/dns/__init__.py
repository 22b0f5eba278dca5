"""Names of the cluster: services and pods by DNS, as the Kubernetes DNS specification 1.1.0 has them.

Everything is imported when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .forwarding import Upstream
    from .resolvconf import PodDns, pod_dns, read_resolv_conf
    from .server import ClusterDns, host_resolvers

__all__ = ["ClusterDns", "PodDns", "Upstream", "host_resolvers", "pod_dns", "read_resolv_conf"]

_HOMES = {
    "ClusterDns": "server",
    "PodDns": "resolvconf",
    "Upstream": "forwarding",
    "host_resolvers": "server",
    "pod_dns": "resolvconf",
    "read_resolv_conf": "resolvconf",
}


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
