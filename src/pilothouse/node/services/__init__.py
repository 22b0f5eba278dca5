"""Services and network policies on a node: by rules of nftables where they can be made, else as far as possible.

Everything is imported when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .carrying import Limits
    from .kernel import KernelBackend
    from .loadbalancers import add_load_balancers
    from .noderoutes import NodeRoutes
    from .policing import NetworkPolicies
    from .proxy import ServiceProxy, choose_backend
    from .proxying import Backend
    from .servicerules import ProxyNetwork
    from .userspace import UserspaceBackend

__all__ = [
    "Backend",
    "KernelBackend",
    "Limits",
    "NetworkPolicies",
    "NodeRoutes",
    "ProxyNetwork",
    "ServiceProxy",
    "UserspaceBackend",
    "add_load_balancers",
    "choose_backend",
]

_HOMES = {
    "Backend": "proxying",
    "KernelBackend": "kernel",
    "Limits": "carrying",
    "NetworkPolicies": "policing",
    "NodeRoutes": "noderoutes",
    "ProxyNetwork": "servicerules",
    "ServiceProxy": "proxy",
    "UserspaceBackend": "userspace",
    "add_load_balancers": "loadbalancers",
    "choose_backend": "proxy",
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
