"""Keep bytes: a durable, revisioned key-value store with etcd v3 semantics.

`EmbeddedStore` keeps them in this process, `EtcdStore` in an etcd cluster; both are a `Store`. The engines are
imported when they are first named, so that the types alone stay light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from pilothouse.store.errors import StoreError
from pilothouse.store.model import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    Event,
    KeyValue,
    PutRequest,
    RangeRequest,
    TxnRequest,
    WatchRequest,
    WatchResponse,
    prefix_end,
)
from pilothouse.store.protocol import Store, Watch

if TYPE_CHECKING:
    from pilothouse.store.engine import EmbeddedStore
    from pilothouse.store.etcd.backend import EtcdStore
    from pilothouse.store.options import StoreOptions

__all__ = [
    "Compare",
    "CompareResult",
    "CompareTarget",
    "DeleteRangeRequest",
    "EmbeddedStore",
    "EtcdStore",
    "Event",
    "KeyValue",
    "PutRequest",
    "RangeRequest",
    "Store",
    "StoreError",
    "StoreOptions",
    "TxnRequest",
    "Watch",
    "WatchRequest",
    "WatchResponse",
    "prefix_end",
]

_ENGINES = {
    "EmbeddedStore": "pilothouse.store.engine",
    "EtcdStore": "pilothouse.store.etcd.backend",
    "StoreOptions": "pilothouse.store.options",
}


def __getattr__(name: str) -> object:
    module = _ENGINES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)
