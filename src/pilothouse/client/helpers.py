"""Small helps around calls."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from pilothouse.kinds.status import NotFound

__all__ = ["ignore_not_found"]

T = TypeVar("T")


async def ignore_not_found(call: Awaitable[T]) -> T | None:
    """Wait for a call, and return None where the object is not there.

    `await ignore_not_found(client.get(Pod, "web"))` gives the pod or None. A path that the server does not have is no
    missing object: that NotFound is raised.
    """
    try:
        return await call
    except NotFound as error:
        if error.details is None or not (error.details.name or error.details.kind):
            raise
        return None
