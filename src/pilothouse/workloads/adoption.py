"""Which objects are a controller's by its selector: those it has, those it takes in, those it lets go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pilothouse.kinds.labels import Selector
from pilothouse.kinds.structs import Resource
from pilothouse.operator.owners import controller_of

__all__ = ["Claim", "claim"]

R = TypeVar("R", bound=Resource)


@dataclass(slots=True)
class Claim(Generic[R]):
    """What became of objects: kept are the controller's already, adopt are orphans that fit, release fit no more."""

    kept: list[R] = field(default_factory=list)
    adopt: list[R] = field(default_factory=list)
    release: list[R] = field(default_factory=list)


def claim(
    owner: Resource, selector: Selector, objects: Iterable[R], *, also: Callable[[R], bool] | None = None
) -> Claim[R]:
    """Sort objects of the owner's namespace by its selector. also: what has to be so besides.

    An owner that is being deleted adopts nothing and releases nothing; an object that is being deleted is not adopted.
    """
    made: Claim[R] = Claim()
    deleting = owner.metadata.deletion_timestamp is not None
    for obj in objects:
        controller = controller_of(obj)
        fits = selector.matches(obj.metadata.labels) and (also is None or also(obj))
        if controller is not None:
            if controller.uid != owner.metadata.uid:
                continue
            if fits:
                made.kept.append(obj)
            elif not deleting:
                made.release.append(obj)
        elif fits and not deleting and obj.metadata.deletion_timestamp is None:
            made.adopt.append(obj)
    return made
