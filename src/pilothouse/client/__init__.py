"""Reach any Kubernetes API: typed calls over HTTP or within the process, informers, work queues, leader election.

Everything is imported when it is first named: `import pilothouse.client` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know better; `typing` would take longer to load than all the rest

if TYPE_CHECKING:
    from .client import Client
    from .config import ClientConfig, ExecConfig, Impersonation
    from .election_core import ElectionOptions
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
    from .factory import CacheSyncError, Clusters, SharedInformerFactory
    from .helpers import ignore_not_found
    from .http import HttpTransport
    from .indexer import Indexer, Lister
    from .informer import Informer, InformerOptions
    from .inprocess import InProcess
    from .kubeconfig import load_kubeconfig
    from .leaderelection import LeaderElector, LeadershipLostError, LeaseLock
    from .listwatch import ListerWatcher, ListOptions, ListResult, WatchEvent, WatchOptions
    from .objects import DeletedFinalStateUnknown, key_of, split_key
    from .packed import Packed, of_head
    from .patches import JsonPatch, MergePatch, StrategicPatch
    from .ratelimit import RateLimiter, default_limiter
    from .recorder import ClientEventSink, EventBroadcaster, EventRecorder
    from .resourceclient import ALL_NAMESPACES, ResourceClient
    from .transport import Answer, Transport
    from .watching import ObjectEvent
    from .workqueue import LOW_PRIORITY, QueueShutDownError, WorkQueue

__all__ = [
    "ALL_NAMESPACES",
    "LOW_PRIORITY",
    "Answer",
    "BadAnswer",
    "CacheSyncError",
    "Client",
    "ClientConfig",
    "ClientError",
    "ClientEventSink",
    "Clusters",
    "ConfigError",
    "ConnectFailed",
    "CredentialsError",
    "DeletedFinalStateUnknown",
    "ElectionOptions",
    "EventBroadcaster",
    "EventRecorder",
    "ExecConfig",
    "HttpTransport",
    "Impersonation",
    "InProcess",
    "Indexer",
    "Informer",
    "InformerOptions",
    "JsonPatch",
    "LeaderElector",
    "LeadershipLostError",
    "LeaseLock",
    "ListOptions",
    "ListResult",
    "Lister",
    "ListerWatcher",
    "MergePatch",
    "ObjectEvent",
    "Packed",
    "QueueShutDownError",
    "RateLimiter",
    "ResourceClient",
    "SharedInformerFactory",
    "StrategicPatch",
    "StreamFailed",
    "Transport",
    "TransportError",
    "TransportTimeout",
    "UnknownKind",
    "WatchEvent",
    "WatchOptions",
    "WorkQueue",
    "default_limiter",
    "ignore_not_found",
    "key_of",
    "load_kubeconfig",
    "of_head",
    "split_key",
]

_HOMES = {
    "client": "Client",
    "config": "ClientConfig ExecConfig Impersonation",
    "election_core": "ElectionOptions",
    "errors": (
        "BadAnswer ClientError ConfigError ConnectFailed CredentialsError StreamFailed TransportError TransportTimeout "
        "UnknownKind"
    ),
    "factory": "CacheSyncError Clusters SharedInformerFactory",
    "helpers": "ignore_not_found",
    "http": "HttpTransport",
    "indexer": "Indexer Lister",
    "informer": "Informer InformerOptions",
    "inprocess": "InProcess",
    "kubeconfig": "load_kubeconfig",
    "leaderelection": "LeaderElector LeadershipLostError LeaseLock",
    "listwatch": "ListOptions ListResult ListerWatcher WatchEvent WatchOptions",
    "objects": "DeletedFinalStateUnknown key_of split_key",
    "packed": "Packed of_head",
    "patches": "JsonPatch MergePatch StrategicPatch",
    "ratelimit": "RateLimiter default_limiter",
    "recorder": "ClientEventSink EventBroadcaster EventRecorder",
    "resourceclient": "ALL_NAMESPACES ResourceClient",
    "transport": "Answer Transport",
    "watching": "ObjectEvent",
    "workqueue": "LOW_PRIORITY QueueShutDownError WorkQueue",
}


if not TYPE_CHECKING:  # so that a checker refuses names that there are not

    def __getattr__(name: str) -> object:
        home = next((home for home, names in _HOMES.items() if name in names.split()), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib  # noqa: PLC0415  # as above

        found: object = getattr(importlib.import_module(f".{home}", __name__), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
