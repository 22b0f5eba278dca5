"""Which objects are garbage: the graph of owners and dependents, and what has to be done to one of them next. Pure.

The graph holds only objects that name owners, and those that are being deleted and wait for their dependents. Owners
are looked up where the references point, so that one which nobody has seen is absent rather than unknown. An owner is
the one meant only if kind, place and uid agree; namespaced owners are looked for in the dependent's own namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

__all__ = [
    "FOREGROUND",
    "ORPHAN",
    "Action",
    "Delete",
    "Graph",
    "Item",
    "Owner",
    "Place",
    "RemoveFinalizer",
    "RemoveOwners",
    "Unblock",
    "World",
]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"


class Owner(NamedTuple):
    """A reference to an owner. blocks: whether the owner may only go after the dependent."""

    uid: str
    api_version: str
    kind: str
    name: str
    blocks: bool = False


class Place(NamedTuple):
    """Where an object is: the full name of its resource, its namespace (empty for the cluster's), its name."""

    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Item:
    """What matters of an object. deleting: whether it was deleted and waits for finalizers or its grace period."""

    place: Place
    uid: str
    owners: tuple[Owner, ...] = ()
    deleting: bool = False
    finalizers: tuple[str, ...] = ()

    @property
    def foreground(self) -> bool:
        """Whether it is being deleted after its dependents."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphaning(self) -> bool:
        """Whether it is being deleted and leaves its dependents behind."""
        return self.deleting and ORPHAN in self.finalizers


class World(Protocol):
    """Where the graph looks up what references name."""

    def resource(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        """Return the full name of a kind's resource and whether it is namespaced; None where it is not served."""

    def find(self, place: Place) -> Item | None:
        """Return the object that is in a place now."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the item. dangling: references to owners that do not exist."""

    item: Item
    propagation: str
    dangling: tuple[Owner, ...] = ()


@dataclass(frozen=True, slots=True)
class RemoveOwners:
    """Take references to these owners from the item."""

    item: Item
    uids: frozenset[str]
    dangling: tuple[Owner, ...] = ()


@dataclass(frozen=True, slots=True)
class Unblock:
    """Let the item block no owner any more: it waits in a circle."""

    item: Item


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Take a finalizer from the item."""

    item: Item
    finalizer: str


Action: TypeAlias = Delete | RemoveOwners | Unblock | RemoveFinalizer


@dataclass(slots=True)
class _Classified:
    """The owners of an item by what has become of them."""

    solid: list[Owner]
    dangling: list[Owner]
    waiting: list[Owner]
    leaving: list[Owner]
    undecided: bool = False


class Graph:
    """The graph. `observe` and `forget` tell it of changes and return the uids to `decide` about."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._items: dict[str, Item] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        self._unresolved: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._items)

    def item(self, uid: str) -> Item | None:
        """Return an item that the graph holds."""
        return self._items.get(uid)

    def observe(self, item: Item) -> list[str]:
        """Take in an object as it is now; return the uids of those that have to be decided about."""
        old = self._items.get(item.uid)
        if item == old:
            return []
        self._keep(item, old)
        found = [item.uid] if item.uid in self._items else []
        if old is not None:
            now = {owner.uid: owner.blocks for owner in item.owners}
            found += [owner.uid for owner in old.owners if not now.get(owner.uid) and owner.uid in self._items]
        starts = item.foreground and not (old is not None and old.foreground)
        if starts or (item.orphaning and not (old is not None and old.orphaning)):
            found += self._dependents.get(item.uid, ())
        return found

    def _keep(self, item: Item, old: Item | None) -> None:
        if item.owners or item.foreground or item.orphaning:
            self._items[item.uid] = item
        else:
            self._items.pop(item.uid, None)
        self._unresolved.pop(item.uid, None)
        now = {owner.uid for owner in item.owners}
        if old is not None:
            self._unlink(item.uid, (owner.uid for owner in old.owners if owner.uid not in now))
        for uid in now:
            self._dependents.setdefault(uid, {})[item.uid] = None

    def _unlink(self, uid: str, owners: Iterable[str]) -> None:
        for owner in owners:
            dependents = self._dependents.get(owner)
            if dependents is not None:
                dependents.pop(uid, None)
                if not dependents:
                    del self._dependents[owner]

    def forget(self, uid: str) -> list[str]:
        """Take in that an object is gone; return the uids of those that have to be decided about."""
        old = self._items.pop(uid, None)
        self._unresolved.pop(uid, None)
        found = list(self._dependents.get(uid, ()))
        if old is not None:
            self._unlink(uid, {owner.uid for owner in old.owners})
            found += [owner.uid for owner in old.owners if owner.uid in self._items]
        return found

    def unresolved(self) -> list[str]:
        """Return the uids of items with owners of kinds that are not served; to be decided about when that changes."""
        found = list(self._unresolved)
        self._unresolved.clear()
        return found

    def misplaced(self, uid: str) -> list[Owner]:
        """Return the owners of an object of the cluster that are of namespaced kinds, which it cannot have."""
        item = self._items.get(uid)
        if item is None or item.place.namespace:
            return []
        kinds = ((owner, self._world.resource(owner.api_version, owner.kind)) for owner in item.owners)
        return [owner for owner, known in kinds if known is not None and known[1]]

    # Decisions

    def decide(self, uid: str) -> Action | None:
        """Return what has to be done to an object next, None where it may stay as it is."""
        item = self._items.get(uid)
        if item is None:
            return None
        owners = self._classify(item)
        if owners.leaving:
            return RemoveOwners(item, frozenset(owner.uid for owner in owners.leaving))
        if item.orphaning:
            return None if any(self._true_dependents(item)) else RemoveFinalizer(item, ORPHAN)
        if item.foreground:
            if not self._is_blocked(item):
                return RemoveFinalizer(item, FOREGROUND)
            return Unblock(item) if self._waits_for_itself(item) else None
        if item.deleting or not item.owners:
            return None
        if owners.undecided:
            self._unresolved[uid] = None
            return None
        dangling = tuple(owners.dangling)
        if owners.solid:
            gone = frozenset(owner.uid for owner in (*dangling, *owners.waiting))
            return RemoveOwners(item, gone, dangling) if gone else None
        return self._delete(item, owners, dangling)

    def _delete(self, item: Item, owners: _Classified, dangling: tuple[Owner, ...]) -> Action:
        if owners.waiting and self._dependents.get(item.uid):
            return Delete(item, "Foreground", dangling)
        if ORPHAN in item.finalizers:
            return Delete(item, "Orphan", dangling)
        return Delete(item, "Foreground" if FOREGROUND in item.finalizers else "Background", dangling)

    def _all_dependents(self, item: Item) -> Iterator[Item]:
        return (self._items[uid] for uid in self._dependents.get(item.uid, ()) if uid in self._items)

    def _true_dependents(self, item: Item) -> Iterator[Item]:
        """Yield those whose reference means this very object, and not merely its uid."""
        for dependent in self._all_dependents(item):
            if any(owner.uid == item.uid and self._place(owner, dependent) == item.place for owner in dependent.owners):
                yield dependent

    def _is_blocked(self, item: Item) -> bool:
        return any(
            owner.blocks and owner.uid == item.uid
            for dependent in self._true_dependents(item)
            for owner in dependent.owners
        )

    def _waits_for_itself(self, item: Item) -> bool:
        """Whether items that are all being deleted in the foreground wait for each other in a circle with this one."""
        seen: set[str] = set()
        ahead = [owner.uid for owner in item.owners if owner.blocks]
        while ahead:
            uid = ahead.pop()
            if uid == item.uid:
                return True
            above = self._items.get(uid)
            if above is not None and above.foreground and uid not in seen:
                seen.add(uid)
                ahead += [owner.uid for owner in above.owners if owner.blocks]
        return False

    def _classify(self, item: Item) -> _Classified:
        found = _Classified([], [], [], [])
        for owner in item.owners:
            place = self._place(owner, item)
            if place is None:
                found.undecided = True
                continue
            there = self._world.find(place)
            if there is None or there.uid != owner.uid:
                found.dangling.append(owner)
            elif there.orphaning:
                found.leaving.append(owner)
            elif there.foreground:
                found.waiting.append(owner)
            else:
                found.solid.append(owner)
        return found

    def _place(self, owner: Owner, item: Item) -> Place | None:
        """Return where a reference points; None for kinds not served, and where what is the cluster's cannot point."""
        known = self._world.resource(owner.api_version, owner.kind)
        if known is None:
            return None
        resource, namespaced = known
        if not namespaced:
            return Place(resource, "", owner.name)
        namespace = item.place.namespace
        return Place(resource, namespace, owner.name) if namespace else None
