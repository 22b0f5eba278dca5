"""What a reconciler works with: caches to read, a client to write, events to record, the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pilothouse.client import Client, ignore_not_found
from pilothouse.client.deletion import Propagation
from pilothouse.client.patches import Patch
from pilothouse.client.recorder import EventRecorder
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.structs import Resource, Struct, to_dict

from .applying import Applier
from .errors import AlreadyOwned
from .owners import controller_of, with_owner
from .reconciler import Request

if TYPE_CHECKING:
    from .manager import Manager

__all__ = ["Context"]

R = TypeVar("R", bound=Resource)


class Context:
    """Given to each reconcile. Reads are of caches, in which what was written by it is seen; `client` asks the server.

    request: whose turn it is. client, clock, recorder: of the controller. tries: how often it failed before, in a row.
    """

    __slots__ = ("_applier", "_manager", "client", "clock", "recorder", "request", "tries")

    def __init__(
        self,
        request: Request,
        tries: int,
        manager: Manager,
        applier: Applier,
        recorder: EventRecorder,
        clock: Clock,
    ) -> None:
        self.request: Final = request
        self.tries: Final = tries
        self.client: Final[Client] = manager.client
        self.clock: Final = clock
        self.recorder: Final = recorder
        self._manager = manager
        self._applier = applier

    def get(self, kind: type[R], name: str, namespace: str | None = None) -> R | None:
        """Return an object of a cache, None where it has none; the namespace is the request's unless given.

        Raises NotRegistered, and BuildError for a type that no controller owns or watches, as there is no cache of it.
        """
        where = self.request.namespace if namespace is None else namespace
        indexer = self._manager.cached(kind).indexer
        key = f"{where}/{name}" if where and kind.namespaced else name
        return self._manager.writes(kind).get(key, indexer.get(key))

    def owned(self, kind: type[R], owner: Resource) -> list[R]:
        """Return the objects of a cache that an owner controls. Raises as `get`."""
        return self._manager.controlled(kind, owner.metadata.uid)

    def orphans(self, kind: type[R]) -> list[R]:
        """Return the objects of a cache in the request's namespace that nobody controls. Raises as `get`."""
        return self._manager.controlled(kind, "", self.request.namespace)

    def indexed(self, kind: type[R], index: str, value: str) -> list[R]:
        """Return the objects of a cache that an index of `Manager.index` has under a value. Raises as `get`."""
        return self._manager.cached(kind).indexer.by_index(index, value)

    async def apply(self, wanted: R, owner: Resource | None = None) -> R:
        """Make an object's fields those that are set, by server-side apply; return it as it is then.

        The server is asked only where something would change, if the type has a cache. owner: controls the object from
        then on, and its namespace is the default. Raises AlreadyOwned where the cache knows another controller.
        """
        if owner is not None:
            wanted = with_owner(wanted, owner)
        self._manager.scheme.check(type(wanted))
        live = self._live(wanted)
        if owner is not None and live is not None:
            present = controller_of(live)
            if present is not None and present.uid != owner.metadata.uid:
                raise AlreadyOwned(
                    f"{wanted.kind} {Request.of(live)}: {present.kind} {present.name} controls it, so {owner.kind} "
                    f"{owner.metadata.name} leaves it alone; give one of both another name"
                )
        return self._wrote(await self._applier.apply(wanted, live))

    async def apply_status(self, obj: R, status: Mapping[str, Any] | Struct) -> R:
        """Make an object's status these fields, by its subresource, where it lacks something of them."""
        tree = to_dict(status) if isinstance(status, Struct) else dict(status)
        return self._wrote(await self._applier.apply_status(obj, tree))

    async def create(self, obj: R) -> R:
        """Create an object; return it as it is then. Raises ApiStatus and OSError."""
        return self._wrote(await self.client.create(obj))

    async def update(self, obj: R) -> R:
        """Replace an object; return it as it is then. Raises ApiStatus, Conflict where it has changed, and OSError."""
        return self._wrote(await self.client.update(obj))

    async def update_status(self, obj: R) -> R:
        """Replace an object's status; return it as it is then. Raises as `update`."""
        return self._wrote(await self.client.update_status(obj))

    async def patch(self, obj: R, patch: Patch, **options: Any) -> R:
        """Change an object by a patch, see `Client.patch`; return it as it is then. Raises ApiStatus and OSError."""
        namespace = obj.metadata.namespace or None
        return self._wrote(await self.client.patch(type(obj), obj.metadata.name, patch, namespace, **options))

    async def delete(self, obj: Resource, *, propagation: Propagation = "Background") -> None:
        """Delete this very object, what it owns after it; one that is gone is fine. Raises Conflict for another UID."""
        self._applier.forget(obj)
        await ignore_not_found(
            self.client.delete(
                type(obj),
                obj.metadata.name,
                obj.metadata.namespace or None,
                propagation=propagation,
                uid=obj.metadata.uid,
            )
        )
        if self._manager.known(type(obj)) is not None:
            self._manager.writes(type(obj)).deleted(obj, self.clock.now())

    def _wrote(self, obj: R) -> R:
        if self._manager.known(type(obj)) is not None:
            self._manager.writes(type(obj)).wrote(obj)
        return obj

    def _live(self, wanted: R) -> R | None:
        informer = self._manager.known(type(wanted))
        if informer is None:
            return None
        name, namespace = wanted.metadata.name, wanted.metadata.namespace or self.client.namespace
        key = f"{namespace}/{name}" if type(wanted).namespaced else name
        return self._manager.writes(type(wanted)).get(key, informer.indexer.get(key))
