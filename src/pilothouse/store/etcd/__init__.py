"""etcd's v3 API: its messages, their codec, a store behind it and the services in front of one.

`open_etcd("etcd://a:2379,b:2379")` opens a cluster. The client is imported when it is first named, so that a server
does not load it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pilothouse.store.etcd.backend import EtcdStore, open_etcd
    from pilothouse.store.etcd.settings import EtcdOptions

__all__ = ["EtcdOptions", "EtcdStore", "open_etcd"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pilothouse.store.etcd.backend"), name)
