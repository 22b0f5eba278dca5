"""Reach any Kubernetes API: typed calls over HTTP or within the process, informers, work queues, leader election.

Everything is imported when it is first named: `import pilothouse.client` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import Client
    from .config import ClientConfig, ExecConfig, Impersonation
    from .errors import (
        BadAnswer,
        ClientError,
        ConfigError,
        ConnectFailed,
        CredentialsError,
        StreamFailed,
        TransportError,
        TransportTimeout,
        UnknownKind,
    )
    from .helpers import ignore_not_found
    from .http import HttpTransport
    from .inprocess import InProcess
    from .kubeconfig import load_kubeconfig
    from .patches import JsonPatch, MergePatch, StrategicPatch
    from .resourceclient import ALL_NAMESPACES, ResourceClient
    from .transport import Answer, Transport
    from .watching import ObjectEvent

__all__ = [
    "ALL_NAMESPACES",
    "Answer",
    "BadAnswer",
    "Client",
    "ClientConfig",
    "ClientError",
    "ConfigError",
    "ConnectFailed",
    "CredentialsError",
    "ExecConfig",
    "HttpTransport",
    "Impersonation",
    "InProcess",
    "JsonPatch",
    "MergePatch",
    "ObjectEvent",
    "ResourceClient",
    "StrategicPatch",
    "StreamFailed",
    "Transport",
    "TransportError",
    "TransportTimeout",
    "UnknownKind",
    "ignore_not_found",
    "load_kubeconfig",
]

_HOMES = {
    "client": "Client",
    "config": "ClientConfig ExecConfig Impersonation",
    "errors": (
        "BadAnswer ClientError ConfigError ConnectFailed CredentialsError StreamFailed TransportError TransportTimeout "
        "UnknownKind"
    ),
    "helpers": "ignore_not_found",
    "http": "HttpTransport",
    "inprocess": "InProcess",
    "kubeconfig": "load_kubeconfig",
    "patches": "JsonPatch MergePatch StrategicPatch",
    "resourceclient": "ALL_NAMESPACES ResourceClient",
    "transport": "Answer Transport",
    "watching": "ObjectEvent",
}


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        home = next((home for home, names in _HOMES.items() if name in names.split()), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found: object = getattr(importlib.import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
