"""Owner references: who owns an object, who controls it, and setting them so that garbage collection works."""

from __future__ import annotations

from typing import TypeVar

from pilothouse.kinds.structs import Resource, replace
from pilothouse.kinds.structs.meta import OwnerReference

from .errors import AlreadyOwned

__all__ = ["controller_of", "is_controlled_by", "owner_reference", "with_owner"]

R = TypeVar("R", bound=Resource)


def owner_reference(owner: Resource, *, controller: bool = True) -> OwnerReference:
    """Return the reference to an owner as it is on the server. Raises ValueError for one without name or UID.

    controller: whether it is the one that manages the object; an object has one of these at most. Deletion of the
    owner in the foreground then waits for the object.
    """
    metadata = owner.metadata
    if not metadata.uid or not metadata.name:
        raise ValueError(
            f"{owner.kind} {metadata.name or 'without a name'}: metadata.uid is not set, so it cannot own; pass the "
            "object as the server gave it"
        )
    return OwnerReference(
        api_version=str(owner.api_version),
        kind=str(owner.kind),
        name=metadata.name,
        uid=metadata.uid,
        controller=controller or None,
        block_owner_deletion=controller or None,
    )


def controller_of(obj: Resource) -> OwnerReference | None:
    """Return the reference to the controller of an object, None where it has none."""
    for found in obj.metadata.owner_references:
        if found.controller:
            return found
    return None


def is_controlled_by(obj: Resource, owner: Resource) -> bool:
    """Whether an owner, this very one by its UID, controls an object."""
    found = controller_of(obj)
    return found is not None and found.uid == owner.metadata.uid


def with_owner(obj: R, owner: Resource, *, controller: bool = True) -> R:
    """Return an object with an owner added; its namespace is the owner's where it has none.

    Raises AlreadyOwned where another one controls it; ValueError where the owner is of another namespace, or is of one
    and the object of the whole cluster: the garbage collector would delete such an object.
    """
    home, there = owner.metadata.namespace, obj.metadata.namespace
    if home and not type(obj).namespaced:
        raise ValueError(
            f"{obj.kind} {obj.metadata.name}: it is of the whole cluster, so {owner.kind} {home}/{owner.metadata.name} "
            "cannot own it; use a finalizer to remove it"
        )
    if home and there and home != there:
        raise ValueError(
            f"{obj.kind} {there}/{obj.metadata.name}: {owner.kind} {home}/{owner.metadata.name} is of another "
            "namespace, so it cannot own it; put it into the same one, or use a finalizer to remove it"
        )
    present = controller_of(obj)
    if controller and present is not None and present.uid != owner.metadata.uid:
        raise AlreadyOwned(
            f"{obj.kind} {there or home}/{obj.metadata.name}: {present.kind} {present.name} controls it, so "
            f"{owner.kind} {owner.metadata.name} cannot; give one of both another name"
        )
    others = [found for found in obj.metadata.owner_references if found.uid != owner.metadata.uid]
    references = [*others, owner_reference(owner, controller=controller)]
    if home and not there:
        return replace(obj, metadata__namespace=home, metadata__owner_references=references)
    return replace(obj, metadata__owner_references=references)
