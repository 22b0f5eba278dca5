"""A controller's pods: which it has, takes in and lets go, and making and deleting them with the usual events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from pilothouse.client import ignore_not_found
from pilothouse.kinds.labels import Selector
from pilothouse.kinds.status import ApiStatus, NotFound
from pilothouse.kinds.structs import Pod, Resource, to_dict
from pilothouse.operator import Context
from pilothouse.operator.owners import owner_reference

from .adoption import claim

__all__ = ["BURST", "claimed", "create_pods", "delete_pods", "in_growing_batches", "is_namespace_ending"]

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

BURST: Final = 500
"""Pods that one reconcile makes or deletes at most."""

_NAMESPACE_ENDING: Final = "NamespaceTerminating"


async def claimed(
    context: Context,
    owner: Resource,
    selector: Selector,
    objects: Iterable[R],
    finalizer: str = "",
    *,
    also: Callable[[R], bool] | None = None,
) -> list[R]:
    """Return which objects are the owner's, having taken in orphans that fit and let go those that fit no more.

    objects: of the owner's namespace, those it controls and those that nobody does. finalizer: given to those taken in
    and taken from those let go. also: what has to be so of one that fits besides. Raises ApiStatus and OSError.
    """
    found = claim(owner, selector, objects, also=also)
    if found.adopt and not await _may_adopt(context, owner):
        found.adopt.clear()
    adopted = [await _adopt(context, owner, obj, finalizer) for obj in found.adopt]
    for obj in found.release:
        await ignore_not_found(_release(context, owner, obj, finalizer))
    return [*found.kept, *(obj for obj in adopted if obj is not None)]


async def create_pods(context: Context, owner: Resource, pods: Sequence[Pod]) -> ApiStatus | None:
    """Create pods, a few at first and more as it goes well; return the first refusal, after which no more are made.

    Each is told by an event of the owner. In a namespace that is going away nothing can be made, which is no fault.
    """

    async def create(pod: Pod) -> ApiStatus | None:
        try:
            made = await context.create(pod)
        except ApiStatus as error:
            if is_namespace_ending(error):
                return None
            context.recorder.warning(owner, "FailedCreate", f"Error creating: {error.message}")
            return error
        context.recorder.normal(owner, "SuccessfulCreate", f"Created pod: {made.metadata.name}")
        return None

    return await in_growing_batches(pods, create)


async def delete_pods(context: Context, owner: Resource, pods: Iterable[Pod]) -> ApiStatus | None:
    """Delete pods side by side; return the first refusal. Each is told by an event of the owner."""

    async def delete(pod: Pod) -> ApiStatus | None:
        try:
            await context.delete(pod)
        except ApiStatus as error:
            context.recorder.warning(owner, "FailedDelete", f"Error deleting: {error.message}")
            return error
        context.recorder.normal(owner, "SuccessfulDelete", f"Deleted pod: {pod.metadata.name}")
        return None

    answers = await asyncio.gather(*map(delete, pods))
    return next((error for error in answers if error is not None), None)


async def in_growing_batches(items: Sequence[T], work: Callable[[T], Awaitable[ApiStatus | None]]) -> ApiStatus | None:
    """Do work for items: one, then two, four, ... side by side; return the first refusal, after whose batch it ends."""
    done, size = 0, 1
    while done < len(items):
        answers = await asyncio.gather(*map(work, items[done : done + size]))
        refused = next((error for error in answers if error is not None), None)
        if refused is not None:
            return refused
        done, size = done + size, size * 2
    return None


def is_namespace_ending(error: ApiStatus) -> bool:
    """Whether a write was refused because the namespace is going away."""
    return any(cause.get("reason") == _NAMESPACE_ENDING for cause in error.causes)


async def _may_adopt(context: Context, owner: R) -> bool:
    """Ask the server whether the owner is still there and stays: the cache may not know of its deletion yet."""
    try:
        fresh = await context.client.get(type(owner), owner.metadata.name, owner.metadata.namespace)
    except NotFound:
        return False
    return fresh.metadata.uid == owner.metadata.uid and fresh.metadata.deletion_timestamp is None


async def _adopt(context: Context, owner: Resource, obj: R, finalizer: str) -> R | None:
    reference: dict[str, Any] = to_dict(owner_reference(owner))
    metadata: dict[str, Any] = {"ownerReferences": [*_references(obj), reference], "uid": obj.metadata.uid}
    if finalizer and finalizer not in obj.metadata.finalizers:
        metadata["finalizers"] = [*obj.metadata.finalizers, finalizer]
    return await ignore_not_found(context.patch(obj, {"metadata": metadata}))


async def _release(context: Context, owner: Resource, obj: Resource, finalizer: str) -> None:
    others = [found for found in _references(obj) if found["uid"] != owner.metadata.uid]
    metadata: dict[str, Any] = {"ownerReferences": others or None, "uid": obj.metadata.uid}
    if finalizer in obj.metadata.finalizers:
        metadata["finalizers"] = [found for found in obj.metadata.finalizers if found != finalizer] or None
    await context.patch(obj, {"metadata": metadata})


def _references(obj: Resource) -> list[dict[str, Any]]:
    return [to_dict(found) for found in obj.metadata.owner_references]
