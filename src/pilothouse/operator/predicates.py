"""Predicates: which events of an object are worth a reconcile. They combine by `&`, `|` and `~`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from pilothouse.client.objects import annotations_of, labels_of, uid_of
from pilothouse.client.packed import of_head, reads_head
from pilothouse.kinds import labels
from pilothouse.kinds.structs import Resource

__all__ = [
    "Predicate",
    "annotations_changed",
    "deletion_began",
    "generation_changed",
    "ignore_creation",
    "ignore_deletion",
    "labels_changed",
    "matches",
    "where",
]

R = TypeVar("R", bound=Resource)


class Predicate(Generic[R]):
    """Says which events pass; without an override all do.

    reads_head: whether it looks at parts of `metadata` alone, those of `pilothouse.client.packed.Head`; no object has
    to be read for it then.
    """

    reads_head: bool = False

    def create(self, obj: R) -> bool:
        """Whether it matters that an object is new, or was there at the start."""
        return True

    def update(self, old: R, new: R) -> bool:
        """Whether a change matters; both are the same for a resync."""
        return True

    def delete(self, obj: R) -> bool:
        """Whether it matters that an object is gone; it is its last known state."""
        return True

    def __and__(self, other: Predicate[Any]) -> Predicate[R]:
        return _Both(self, other)

    def __or__(self, other: Predicate[Any]) -> Predicate[R]:
        return _Either(self, other)

    def __invert__(self) -> Predicate[R]:
        return _Not(self)


class _Both(Predicate[R]):
    def __init__(self, one: Predicate[R], other: Predicate[R]) -> None:
        self._one, self._other = one, other
        self.reads_head = one.reads_head and other.reads_head

    def create(self, obj: R) -> bool:
        return self._one.create(obj) and self._other.create(obj)

    def update(self, old: R, new: R) -> bool:
        return self._one.update(old, new) and self._other.update(old, new)

    def delete(self, obj: R) -> bool:
        return self._one.delete(obj) and self._other.delete(obj)


class _Either(Predicate[R]):
    def __init__(self, one: Predicate[R], other: Predicate[R]) -> None:
        self._one, self._other = one, other
        self.reads_head = one.reads_head and other.reads_head

    def create(self, obj: R) -> bool:
        return self._one.create(obj) or self._other.create(obj)

    def update(self, old: R, new: R) -> bool:
        return self._one.update(old, new) or self._other.update(old, new)

    def delete(self, obj: R) -> bool:
        return self._one.delete(obj) or self._other.delete(obj)


class _Not(Predicate[R]):
    def __init__(self, inner: Predicate[R]) -> None:
        self._inner = inner
        self.reads_head = inner.reads_head

    def create(self, obj: R) -> bool:
        return not self._inner.create(obj)

    def update(self, old: R, new: R) -> bool:
        return not self._inner.update(old, new)

    def delete(self, obj: R) -> bool:
        return not self._inner.delete(obj)


class _Where(Predicate[R]):
    def __init__(self, takes: Callable[[R], bool]) -> None:
        self._takes = takes
        self.reads_head = reads_head(takes)

    def create(self, obj: R) -> bool:
        return self._takes(obj)

    def update(self, old: R, new: R) -> bool:
        return self._takes(new)

    def delete(self, obj: R) -> bool:
        return self._takes(obj)


class _Changed(Predicate[Resource]):
    """Passes updates where something differs, and all that is no update."""

    def __init__(self, part: Callable[[Resource], object]) -> None:
        self._part = part
        self.reads_head = reads_head(part)

    def update(self, old: Resource, new: Resource) -> bool:
        # Another UID is another object of the same name.
        return self._part(old) != self._part(new) or uid_of(old) != uid_of(new)


class _IgnoreDeletion(Predicate[Resource]):
    reads_head = True

    def delete(self, obj: Resource) -> bool:
        return False


class _IgnoreCreation(Predicate[Resource]):
    reads_head = True

    def create(self, obj: Resource) -> bool:
        return False


def where(takes: Callable[[R], bool]) -> Predicate[R]:
    """Pass events of objects that a function takes; of an update the new state counts."""
    return _Where(takes)


def matches(selector: str) -> Predicate[Resource]:
    """Pass events of objects whose labels a selector takes, such as `app in (web, api)`. Raises ValueError."""
    compiled = labels.parse(selector)
    return _Where(of_head(lambda obj: compiled.matches(labels_of(obj))))


generation_changed: Final[Predicate[Resource]] = _Changed(
    of_head(lambda obj: (obj.metadata.generation, obj.metadata.deletion_timestamp))
)
"""Passes updates that change the specification or begin the deletion: not those of the status. Kinds without a
generation, such as ConfigMap, never pass."""

labels_changed: Final[Predicate[Resource]] = _Changed(of_head(lambda obj: dict(labels_of(obj))))
"""Passes updates that change labels."""

annotations_changed: Final[Predicate[Resource]] = _Changed(lambda obj: dict(annotations_of(obj)))
"""Passes updates that change annotations."""

deletion_began: Final[Predicate[Resource]] = _Changed(of_head(lambda obj: obj.metadata.deletion_timestamp))
"""Passes updates by which an object begins to be deleted."""

ignore_deletion: Final[Predicate[Resource]] = _IgnoreDeletion()
"""Passes all but deletions."""

ignore_creation: Final[Predicate[Resource]] = _IgnoreCreation()
"""Passes all but creations."""
