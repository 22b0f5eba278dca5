"""Keeping controller revisions: making one that is missing, numbering one anew, deleting what is beyond the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.kinds.status import AlreadyExists
from pilothouse.kinds.structs import ControllerRevision, replace
from pilothouse.operator import Context
from pilothouse.workloads.revisions import has_data

__all__ = ["create_revision", "delete_revisions", "numbered"]

_MAX_COLLISIONS: Final = 16
"""Names that are tried in one reconcile."""


async def create_revision(
    context: Context, wanted: Callable[[int], ControllerRevision], collisions: int
) -> tuple[ControllerRevision, int]:
    """Make a revision under the first name that nothing else has; return it, and how often a name was taken.

    wanted: gives the revision, named for a number of collisions. Raises ApiStatus and OSError.
    """
    for count in range(collisions, collisions + _MAX_COLLISIONS):
        made = wanted(count)
        try:
            return await context.create(made), count
        except AlreadyExists:
            name, namespace = made.metadata.name, made.metadata.namespace
            there = await context.client.get(ControllerRevision, name, namespace)
            if has_data(there, made.data):
                return there, count
    raise AlreadyExists(f"controller revision {made.metadata.name}: so are {_MAX_COLLISIONS} other names; delete some")


async def numbered(context: Context, revision: ControllerRevision, number: int) -> ControllerRevision:
    """Return a revision with this number, changed where it has another. Raises ApiStatus and OSError."""
    return revision if revision.revision == number else await context.update(replace(revision, revision=number))


async def delete_revisions(context: Context, revisions: Iterable[ControllerRevision]) -> None:
    """Delete revisions; those that are gone are fine. Raises ApiStatus and OSError."""
    for each in revisions:
        await ignore_not_found(context.delete(each))
