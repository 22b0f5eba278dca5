"""What a user writes: a reconciler, which is given an object as it is and makes the world as it should be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Generic, NamedTuple, TypeAlias, TypeVar

from pilothouse.client.objects import namespace_of
from pilothouse.kinds.structs import Resource

if TYPE_CHECKING:
    from .context import Context

__all__ = ["FunctionReconciler", "ReconcileFunction", "Reconciler", "Request", "Result"]

R = TypeVar("R", bound=Resource)
R_contra = TypeVar("R_contra", bound=Resource, contravariant=True)


class Request(NamedTuple):
    """Which object is to be reconciled; the namespace is empty for one of the whole cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    @classmethod
    def of(cls, obj: Resource) -> Request:
        """Return the request for an object."""
        return cls(namespace_of(obj), obj.metadata.name)


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconciler may return. requeue_after: seconds after which it wants to be called again, if nothing happens.

    Raises ValueError for a time that is negative.
    """

    requeue_after: float | None = None

    def __post_init__(self) -> None:
        if self.requeue_after is not None and not self.requeue_after >= 0:
            raise ValueError(f"requeue_after: {self.requeue_after}; want seconds, 0 or more, or None")


class Reconciler(ABC, Generic[R_contra]):
    """Makes the world what objects of one type say. Subclass it as `Reconciler[Website]`.

    `reconcile` is called with the object as the cache has it whenever it, or something it owns, may have changed: once
    at a time for one object, for several objects side by side. It looks at what there is and does what is missing, so
    being called twice is fine. What it raises is logged, counted and tried again later; `TerminalError` is not tried
    again. Objects cannot be changed; use `replace` for a changed copy.

    owned: types whose objects it makes; a builder watches them as if `owns` was called for each.
    """

    owned: ClassVar[Sequence[type[Resource]]] = ()

    @abstractmethod
    async def reconcile(self, obj: R_contra, context: Context) -> Result | None:
        """Bring about what an object says; None is `Result()`."""

    def check(self, kind: type[Resource]) -> None:
        """Raise BuildError where it cannot work for a type; a builder calls it."""

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Take note that an object is gone; what it owned is removed by garbage collection, so mostly nothing is left.

        An operator that was not running at that time is not told; use a finalizer where that matters.
        """
        return None


ReconcileFunction: TypeAlias = Callable[[R, "Context"], Awaitable[Result | None]]


class FunctionReconciler(Reconciler[R]):
    """A coroutine function as a reconciler."""

    def __init__(self, function: ReconcileFunction[R]) -> None:
        self.function: Final = function

    def __repr__(self) -> str:
        return f"<FunctionReconciler {getattr(self.function, '__qualname__', self.function)!s}>"

    async def reconcile(self, obj: R, context: Context) -> Result | None:
        return await self.function(obj, context)
