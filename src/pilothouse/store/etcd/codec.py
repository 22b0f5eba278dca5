"""The codec in one place: requests, responses and errors between the store's structs and etcd's bytes."""

from __future__ import annotations

from pilothouse.store.etcd.errors_map import *  # noqa: F403
from pilothouse.store.etcd.requests import *  # noqa: F403
from pilothouse.store.etcd.responses import *  # noqa: F403
