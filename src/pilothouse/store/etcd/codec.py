"""The codec in one place: requests, responses and errors between the store's structs and etcd's bytes."""

from __future__ import annotations

from pilothouse.store.etcd import errors_map, requests, responses
from pilothouse.store.etcd.errors_map import *  # noqa: F403
from pilothouse.store.etcd.requests import *  # noqa: F403
from pilothouse.store.etcd.responses import *  # noqa: F403

__all__ = [*errors_map.__all__, *requests.__all__, *responses.__all__]  # noqa: PLE0604  # lists of strings, of three modules
