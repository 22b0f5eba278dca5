"""What every fresh server writes first, remembered: later ones get it as bytes, which saves most of their start."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.apiserver.server import ApiServer
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.kinds.times import format_seconds
from pilothouse.store import PutRequest, Store

__all__ = ["remember", "seed"]

_RESOURCES: Final = (
    "clusterroles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
    "flowschemas.flowcontrol.apiserver.k8s.io",
    "priorityclasses.scheduling.k8s.io",
)


class _Known(NamedTuple):
    key: bytes
    value: bytes


_known: list[_Known] = []
"""Filled once; a second plane that starts meanwhile only does without."""


def remember(server: ApiServer) -> None:
    """Keep the default objects of a server that began with an empty store, has just started and was used by nobody."""
    if _known:
        return
    caches = [cache for name in _RESOURCES if (cache := server.cacher.named(name)) is not None]
    _known.extend(
        _Known(cache.prefix + key.encode(), entry.value) for cache in caches for key, entry in cache.items.items()
    )


async def seed(store: Store, clock: Clock, ids: Ids) -> int:
    """Write what is remembered into an empty store, with ids and times of its own; return how many objects."""
    now = format_seconds(clock.now())
    await asyncio.gather(*(store.put(PutRequest(known.key, _fresh(known.value, now, ids))) for known in _known))
    return len(_known)


def _fresh(value: bytes, now: str, ids: Ids) -> bytes:
    obj: dict[str, Any] = msgspec.json.decode(value)
    metadata = obj["metadata"]
    metadata["uid"], metadata["creationTimestamp"] = ids.uuid(), now
    for each in metadata.get("managedFields", ()):
        each["time"] = now
    for each in obj.get("status", {}).get("conditions", ()):
        each["lastTransitionTime"] = now
    return msgspec.json.encode(obj)
