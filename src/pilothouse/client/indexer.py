"""The cache of an informer: objects by key and by whatever else they are looked up, and listers to read it."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pilothouse.client.collector import no_collections
from pilothouse.client.errors import BadAnswer
from pilothouse.client.objects import labels_of, namespace_of
from pilothouse.client.packed import Packed, of_head, reads_head, unpacked
from pilothouse.kinds.labels import Selector
from pilothouse.kinds.status import NotFound, not_found

__all__ = ["NAMESPACE_INDEX", "IndexFunction", "Indexer", "IndexerError", "Lister", "NamespaceLister"]

T = TypeVar("T")

IndexFunction = Callable[[T], Iterable[str]]
"""Gives the values under which an object is found in an index. Must depend on the object alone.

Marked by `of_head` it looks at what a `Head` has, and no packed object is read for it.
"""

NAMESPACE_INDEX: Final = "namespace"
_FEW: Final = 64
"""Objects that are read without keeping the garbage collector out, which takes longer than to read a few."""


class IndexerError(LookupError):
    """There is no such index, or there is one already."""


class _Index(NamedTuple):
    function: IndexFunction[Any]
    of_head: bool
    keys: dict[str, dict[str, None]]
    """By value."""
    values: dict[str, tuple[str, ...]]
    """By key."""


@of_head
def _by_namespace(obj: Any) -> tuple[str]:
    return (namespace_of(obj),)


class Indexer(Generic[T]):
    """Objects by key, with indexes that are kept up to date.

    It is changed on the event loop's thread alone, and every reading method is one step of it; other threads may read
    single objects. Objects are shared: nobody changes them. Those that were put in packed are read when they are asked
    for: of thousands that takes a while, so ask for those of an index or a selector rather than for all.

    indexers: by name; "namespace" is always there. failed: is told of an index function that raised; the object is
    then not found by that index. unreadable: is told of a packed object that does not fit its type.
    """

    __slots__ = ("_failed", "_indexes", "_items", "_unreadable")

    def __init__(
        self,
        indexers: Mapping[str, IndexFunction[T]] | None = None,
        *,
        failed: Callable[[str, str, Exception], object] | None = None,
        unreadable: Callable[[str, Exception], object] | None = None,
    ) -> None:
        self._items: dict[str, T | Packed[T]] = {}
        self._indexes: dict[str, _Index] = {}
        self._failed = failed
        self._unreadable = unreadable
        self.add_indexers({NAMESPACE_INDEX: _by_namespace, **(indexers or {})})

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def get(self, key: str) -> T | None:
        """Return the object of this key, or None. Raises BadAnswer for one that does not fit its type."""
        found = self._items.get(key)
        return found.get() if type(found) is Packed else found  # type: ignore[return-value]  # not packed, so T

    def list(self, selector: Selector | None = None) -> builtins.list[T]:
        """Return all objects, or those whose labels a selector takes, in the order in which they came."""
        return self._read(self._items.values(), selector)

    def keys(self) -> Iterator[str]:
        """Iterate over all keys; the cache must not change meanwhile."""
        return iter(self._items)

    @property
    def entries(self) -> Mapping[str, T | Packed[T]]:
        """What is cached by key, packed objects as they are."""
        return self._items

    def by_index(self, name: str, value: str, selector: Selector | None = None) -> builtins.list[T]:
        """Return the objects that an index has under a value. Raises IndexerError where there is no such index."""
        keys, items = self._index(name).keys.get(value), self._items
        return self._read([items[key] for key in keys], selector) if keys else []

    def index_keys(self, name: str, value: str) -> builtins.list[str]:
        """Return the keys that an index has under a value. Raises IndexerError where there is no such index."""
        return [*self._index(name).keys.get(value, ())]

    def index_values(self, name: str) -> builtins.list[str]:
        """Return all values of an index. Raises IndexerError where there is no such index."""
        return [*self._index(name).keys]

    @property
    def indexes(self) -> frozenset[str]:
        """The names of all indexes."""
        return frozenset(self._indexes)

    def add_indexers(self, indexers: Mapping[str, IndexFunction[T]]) -> None:
        """Add indexes, also of a cache that holds objects. Raises IndexerError for a name that is taken."""
        for name in indexers:
            if name in self._indexes:
                raise IndexerError(f"index {name}: there is one already; give the other another name")
        for name, function in indexers.items():
            index = self._indexes[name] = _Index(function, reads_head(function), {}, {})
            for key, obj in self._items.items():
                self._enlist(name, index, key, obj)

    def put(self, key: str, obj: T | Packed[T]) -> T | Packed[T] | None:
        """Store an object under its key; return the one that was there."""
        old = self._items.get(key)
        self._items[key] = obj
        if old is None:
            for name, index in self._indexes.items():
                self._enlist(name, index, key, obj)
            return None
        if len(self._indexes) > 1:
            for name, index in self._indexes.items():
                if name != NAMESPACE_INDEX:  # which is a part of the key
                    self._enlist(name, index, key, obj)
        if type(old) is Packed and old is not obj:
            old.drop()
        return old

    def remove(self, key: str) -> T | Packed[T] | None:
        """Forget an object; return it, or None where there was none."""
        old = self._items.pop(key, None)
        if old is not None:
            for index in self._indexes.values():
                self._unlist(index, key)
            if type(old) is Packed:
                old.drop()
        return old

    def _read(self, items: Collection[T | Packed[T]], selector: Selector | None) -> builtins.list[T]:
        if selector is not None and not selector.empty:
            matches = selector.matches
            items = [item for item in items if matches(labels_of(item))]
        if len(items) <= _FEW:
            return self._peeked(items)
        with no_collections():
            return self._peeked(items)

    def _peeked(self, items: Iterable[T | Packed[T]]) -> builtins.list[T]:
        found: builtins.list[T] = []
        for item in items:
            if type(item) is not Packed:
                found.append(item)  # type: ignore[arg-type]  # not packed, so T
                continue
            try:
                found.append(item.peek())
            except BadAnswer as error:
                if self._unreadable is not None:
                    self._unreadable(item.key, error)
        return found

    def _enlist(self, name: str, index: _Index, key: str, obj: T | Packed[T]) -> None:
        try:
            values = tuple(index.function(obj if index.of_head else unpacked(obj)))
        except Exception as error:  # noqa: BLE001  a user's function must not end the cache
            if self._failed is not None:
                self._failed(name, key, error)
            values = ()
        before = index.values.get(key)
        if before == values:
            return
        if before is not None:
            self._unlist(index, key)
        index.values[key] = values
        for value in values:
            entry = index.keys.get(value)
            if entry is None:
                index.keys[value] = {key: None}
            else:
                entry[key] = None

    @staticmethod
    def _unlist(index: _Index, key: str) -> None:
        for value in index.values.pop(key, ()):
            entry = index.keys.get(value)
            if entry is not None:
                entry.pop(key, None)
                if not entry:
                    del index.keys[value]

    def _index(self, name: str) -> _Index:
        try:
            return self._indexes[name]
        except KeyError:
            known = ", ".join(sorted(self._indexes))
            raise IndexerError(
                f"index {name}: there is none; add it with add_indexers, or use one of: {known}"
            ) from None


class Lister(Generic[T]):
    """Reads a cache by selector, namespace and name. It never asks the server.

    group, resource: for what an error says.
    """

    __slots__ = ("_group", "_indexer", "_resource")

    def __init__(self, indexer: Indexer[T], group: str = "", resource: str = "") -> None:
        self._indexer = indexer
        self._group = group
        self._resource = resource

    def list(self, selector: Selector | None = None) -> list[T]:
        """Return the objects whose labels a selector takes; all without one."""
        return self._indexer.list(selector)

    def get(self, name: str) -> T:
        """Return an object of the whole cluster. Raises NotFound, and BadAnswer for one that does not fit its type."""
        return self._get(name, name)

    def namespaced(self, namespace: str) -> NamespaceLister[T]:
        """Return the lister of one namespace."""
        return NamespaceLister(self, namespace)

    def _in(self, namespace: str, selector: Selector | None) -> builtins.list[T]:
        return self._indexer.by_index(NAMESPACE_INDEX, namespace, selector)

    def _get(self, key: str, name: str) -> T:
        found = self._indexer.get(key)
        if found is None:
            refusal: NotFound = not_found(self._group, self._resource, name)
            raise refusal
        return found


class NamespaceLister(Generic[T]):
    """Reads what a cache has of one namespace."""

    __slots__ = ("_lister", "_namespace")

    def __init__(self, lister: Lister[T], namespace: str) -> None:
        self._lister = lister
        self._namespace = namespace

    def list(self, selector: Selector | None = None) -> list[T]:
        """Return the objects whose labels a selector takes; all without one."""
        return self._lister._in(self._namespace, selector)

    def get(self, name: str) -> T:
        """Return an object by name. Raises NotFound, and BadAnswer for one that does not fit its type."""
        return self._lister._get(f"{self._namespace}/{name}", name)
