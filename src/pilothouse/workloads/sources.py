"""Whose turn it is when an object changes: that of its controller, or of all that might adopt it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pilothouse.client.packed import of_head
from pilothouse.kinds.labels import Selector, SelectorError
from pilothouse.kinds.structs import Resource
from pilothouse.operator import Manager, Request
from pilothouse.operator.owners import controller_of

__all__ = ["controller_or_adopters"]

R = TypeVar("R", bound=Resource)


def controller_or_adopters(
    manager: Manager, kind: type[R], selector_of: Callable[[R], Selector]
) -> Callable[[Resource], Iterable[Request]]:
    """Map an object to its controller of a kind, or, where nobody controls it, to all whose selector takes it."""
    group, _, name = kind.gvk

    @of_head
    def mapped(obj: Resource) -> Iterable[Request]:
        owner = controller_of(obj)
        namespace = obj.metadata.namespace
        if owner is not None:
            ours = owner.kind == name and owner.api_version.rpartition("/")[0] == group
            return (Request(namespace, owner.name),) if ours else ()
        if not obj.metadata.labels or obj.metadata.deletion_timestamp is not None:
            return ()
        adopters = manager.informer(kind).lister().namespaced(namespace).list()
        return [Request.of(each) for each in adopters if _takes(selector_of, each, obj)]

    return mapped


def _takes(selector_of: Callable[[R], Selector], adopter: R, obj: Resource) -> bool:
    try:
        return selector_of(adopter).matches(obj.metadata.labels)
    except SelectorError:
        return False
