"""Finalizers: keep an object until what is outside of the cluster is cleaned up."""

from __future__ import annotations

from typing import Any, TypeVar

from pilothouse.client import Client, ignore_not_found
from pilothouse.client.objects import resource_version_of
from pilothouse.kinds.structs import Resource

__all__ = ["add_finalizer", "has_finalizer", "is_being_deleted", "remove_finalizer"]

R = TypeVar("R", bound=Resource)


def is_being_deleted(obj: Resource) -> bool:
    """Whether an object is only still there because of its finalizers or its grace period."""
    return obj.metadata.deletion_timestamp is not None


def has_finalizer(obj: Resource, name: str) -> bool:
    """Whether an object has a finalizer."""
    return name in obj.metadata.finalizers


async def add_finalizer(client: Client, obj: R, name: str) -> R:
    """Add a finalizer where it is not there yet; return the object as it is then. Do it before anything is made.

    name: a domain and a word, `example.com/site`. Raises ValueError for one without a domain or an object that is being
    deleted, which takes no new finalizers; Conflict where the object has changed since it was read.
    """
    if "/" not in name:
        raise ValueError(f"finalizer {name!r}: want DOMAIN/NAME, such as example.com/site")
    if has_finalizer(obj, name):
        return obj
    if is_being_deleted(obj):
        raise ValueError(f"{obj.kind} {obj.metadata.name}: it is being deleted and takes no new finalizer {name}")
    return await _write(client, obj, [*obj.metadata.finalizers, name])


async def remove_finalizer(client: Client, obj: R, name: str) -> R | None:
    """Remove a finalizer where it is there; return the object as it is then, None where it is gone. Raises Conflict."""
    if not has_finalizer(obj, name):
        return obj
    return await ignore_not_found(_write(client, obj, [each for each in obj.metadata.finalizers if each != name]))


async def _write(client: Client, obj: R, finalizers: list[str]) -> R:
    # The version makes others' changes to the same list a conflict, where a merge patch would undo them.
    metadata: dict[str, Any] = {"finalizers": finalizers, "resourceVersion": resource_version_of(obj)}
    return await client.patch(type(obj), obj.metadata.name, {"metadata": metadata}, obj.metadata.namespace or None)
