"""The builder: a controller described in a sentence.

`controller(manager).for_(Website).owns(Deployment).watches(ConfigMap, mapping).build(WebsiteReconciler())`
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeVar, overload

from pilothouse.client.ratelimit import RateLimiter
from pilothouse.kinds.structs import Resource

from .controllers import Controller, ControllerOptions, Source
from .errors import BuildError
from .handlers import Mapping, itself, owner_of
from .loop import LoopOptions
from .predicates import Predicate
from .reconciler import FunctionReconciler, ReconcileFunction, Reconciler, Request

if TYPE_CHECKING:
    from .manager import Manager

__all__ = ["Builder", "Owned", "Start", "controller"]

R = TypeVar("R", bound=Resource)
W = TypeVar("W", bound=Resource)

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


def controller(manager: Manager, name: str = "") -> Start:
    """Begin to describe a controller of a manager. name: of logs, metrics and as field manager; the kind's by default.

    Raises BuildError for a name that is none.
    """
    return Start(manager, name)


class Owned(Source):
    """Objects that the controller makes, and may therefore change and delete."""

    __slots__ = ()


class Start:
    """A controller of which the kind is still to be said."""

    def __init__(self, manager: Manager, name: str = "") -> None:
        if name and not _NAME.fullmatch(name):
            raise BuildError(f"controller name {name!r}: want lower-case letters, digits, '-' and '.', at most 63")
        self._manager = manager
        self._name = name

    def for_(self, kind: type[R], *predicates: Predicate[R] | Predicate[Resource]) -> Builder[R]:
        """Reconcile the objects of a kind. Raises NotRegistered."""
        self._manager.scheme.check(kind)
        return Builder(self._manager, self._name or kind.gvk[2].lower(), kind, predicates)


class Builder(Generic[R]):
    """A controller for objects of one kind, as far as it is described."""

    def __init__(self, manager: Manager, name: str, kind: type[R], predicates: Iterable[Predicate[Any]] = ()) -> None:
        self._manager = manager
        self._name = name
        self._kind = kind
        self._sources = [Source(kind, itself, _all_of(predicates))]
        self._owned: set[type[Resource]] = set()
        self._options = ControllerOptions()

    def owns(self, kind: type[W], *predicates: Predicate[W] | Predicate[Resource], controller: bool = True) -> Self:
        """Reconcile the owner when one of its objects changes.

        controller: whether only the owner counts that controls the object. Raises NotRegistered, and BuildError where
        the owner is of a namespace and the kind is not: such an object cannot be owned.
        """
        self._manager.scheme.check(kind)
        if self._kind.namespaced and not kind.namespaced:
            raise BuildError(
                f"controller {self._name}: {kind.__name__} is of the whole cluster, so no {self._kind.__name__} of a "
                f"namespace can own it; use watches({kind.__name__}, mapping)"
            )
        if kind in self._owned:
            raise BuildError(f"controller {self._name}: owns({kind.__name__}) is said twice; join the predicates by &")
        self._owned.add(kind)
        self._sources.append(Owned(kind, owner_of(self._kind, controller=controller), _all_of(predicates)))
        return self

    def watches(self, kind: type[W], mapping: Mapping[W], *predicates: Predicate[W] | Predicate[Resource]) -> Self:
        """Reconcile what a mapping says when an object of another kind changes. Raises NotRegistered."""
        self._manager.scheme.check(kind)
        self._sources.append(Source(kind, mapping, _all_of(predicates)))
        return self

    def with_options(
        self,
        *,
        concurrency: int | None = None,
        rate_limit: RateLimiter[Request] | None = None,
        timeout_seconds: float | None = None,
        fair: bool | None = None,
        loop: LoopOptions | None = None,
        field_manager: str | None = None,
        pacing_seconds: float | None = None,
    ) -> Self:
        """Set options, see `ControllerOptions`; those not given stay. Raises BuildError."""
        given = {
            "concurrency": concurrency,
            "rate_limit": rate_limit,
            "timeout_seconds": timeout_seconds,
            "fair": fair,
            "loop": loop,
            "field_manager": field_manager,
            "pacing_seconds": pacing_seconds,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        try:
            self._options = dataclasses.replace(self._options, **changes)
        except ValueError as error:
            raise BuildError(f"controller {self._name}: {error}") from error
        return self

    @overload
    def build(self, reconciler: Reconciler[R]) -> Controller[R]: ...
    @overload
    def build(self, reconciler: ReconcileFunction[R]) -> Controller[R]: ...

    def build(self, reconciler: Reconciler[R] | ReconcileFunction[R]) -> Controller[R]:
        """Make the controller and give it to the manager, which runs it.

        reconciler: an object of `Reconciler`, or a coroutine function that takes the object and the context. Raises
        BuildError where the manager has a controller of this name or runs already.
        """
        if isinstance(reconciler, type):
            raise BuildError(f"controller {self._name}: {reconciler.__name__} is a class; pass {reconciler.__name__}()")
        if not isinstance(reconciler, Reconciler):
            reconciler = FunctionReconciler(reconciler)
        reconciler.check(self._kind)
        for kind in reconciler.owned:
            if kind not in self._owned:
                self.owns(kind)
        made = Controller(self._manager, self._name, self._kind, reconciler, self._sources, self._options)
        self._manager.add(made)
        return made


def _all_of(predicates: Iterable[Predicate[Any]]) -> Predicate[Any] | None:
    joined: Predicate[Any] | None = None
    for predicate in predicates:
        joined = predicate if joined is None else joined & predicate
    return joined
