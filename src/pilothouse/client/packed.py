"""Objects of a cache that are read when somebody asks: their key and the head of their metadata are known before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from pilothouse.kinds.structs.meta import OwnerReference

__all__ = ["Head", "Packed", "Reader", "of_head", "reads_head", "unpacked"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Head(msgspec.Struct, frozen=True, gc=False):
    """What is known of an object that nobody has read yet; named as in `ObjectMeta`."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int
    deletion_timestamp: str | None
    labels: Mapping[str, str]
    owner_references: Sequence[OwnerReference]


class Reader(Protocol[T]):
    """What packed objects are read by; they are on its shelf."""

    def read(self, packed: Packed[T], *, passing: bool = False) -> T:
        """Read an object. passing: it is not to displace those that were read last. Raises BadAnswer for a misfit."""

    def drop(self, packed: Packed[T]) -> None:
        """Take an object off the shelf."""


class Packed(msgspec.Struct, Generic[T], eq=False):
    """An object of a cache: its key, the head of its metadata, and the whole when asked for.

    data, value, dropped are the reader's: its JSON as it came or deflated, what was read of it if that is kept, and
    whether another state is in its place.
    """

    key: str
    metadata: Head
    reader: Reader[T]
    data: bytes
    value: T | None = None
    dropped: bool = False

    def get(self) -> T:
        """Return the object, the same one for as long as it is among those read last. Raises BadAnswer for a misfit."""
        value = self.value
        return self.reader.read(self) if value is None else value

    def peek(self) -> T:
        """Return the object, but leave those read last where they are: for who reads all. Raises as `get`."""
        value = self.value
        return self.reader.read(self, passing=True) if value is None else value

    def drop(self) -> None:
        """Note that another state is in its place: it stays readable for as long as somebody refers to it."""
        self.reader.drop(self)


def unpacked(obj: T | Packed[T]) -> T:
    """Return an object, whether it is packed or not. Raises BadAnswer for a misfit."""
    return obj.get() if type(obj) is Packed else cast("T", obj)


def of_head(function: F) -> F:
    """Mark a function as looking at key parts of `metadata` alone, those of `Head`: no object is read for it.

    It gets a `Packed` in the place of an object, and where objects are not packed these themselves. For index
    functions, and for mappings and predicates of an operator.
    """
    function.reads_head = True  # type: ignore[attr-defined]  # functions take attributes
    return function


def reads_head(function: object) -> bool:
    """Whether a function was marked by `of_head`."""
    return bool(getattr(function, "reads_head", False))
