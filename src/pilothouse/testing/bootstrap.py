"""What every fresh server writes first, remembered: later ones get it as bytes, which saves most of their start."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.apiserver.server import ApiServer
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.kinds.times import format_seconds
from pilothouse.store import PutRequest, Store

__all__ = ["knows_services", "remember", "remember_services", "seed"]

_SERVICES: Final = "apiservices.apiregistration.k8s.io"
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


_known: dict[str, list[_Known]] = {}
"""By resource; the same whichever plane filled it."""


def remember(server: ApiServer) -> None:
    """Keep the default objects of a server that began with an empty store, has just started and was used by nobody."""
    for resource in _RESOURCES:
        _keep(server, resource)


def knows_services() -> bool:
    """Whether the APIServices are remembered too, which a server writes after its start."""
    return _SERVICES in _known


def remember_services(server: ApiServer, names: Container[str]) -> None:
    """Keep the APIServices of these names."""
    _keep(server, _SERVICES, names)


def _keep(server: ApiServer, resource: str, names: Container[str] | None = None) -> None:
    cache = server.cacher.named(resource)
    found = cache.items.items() if cache is not None else ()
    _known[resource] = [
        _Known(cache.prefix + key.encode(), entry.value)
        for key, entry in found
        if cache is not None and (names is None or key in names)
    ]


async def seed(store: Store, clock: Clock, ids: Ids) -> int:
    """Write what is remembered into an empty store, with ids and times of its own; return how many objects."""
    now = format_seconds(clock.now())
    known = [each for found in list(_known.values()) for each in found]
    await asyncio.gather(*(store.put(PutRequest(each.key, _fresh(each.value, now, ids))) for each in known))
    return len(known)


def _fresh(value: bytes, now: str, ids: Ids) -> bytes:
    obj: dict[str, Any] = msgspec.json.decode(value)
    metadata = obj["metadata"]
    metadata["uid"], metadata["creationTimestamp"] = ids.uuid(), now
    for each in metadata.get("managedFields", ()):
        each["time"] = now
    for each in obj.get("status", {}).get("conditions", ()):
        each["lastTransitionTime"] = now
    return msgspec.json.encode(obj)
