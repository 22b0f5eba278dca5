"""The cache of an informer: objects by key and by whatever else they are looked up, and listers to read it."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, TypeVar

from pilothouse.client.objects import labels_of, namespace_of
from pilothouse.kinds.labels import Selector
from pilothouse.kinds.status import NotFound, not_found

__all__ = ["NAMESPACE_INDEX", "IndexFunction", "Indexer", "IndexerError", "Lister", "NamespaceLister"]

T = TypeVar("T")

IndexFunction = Callable[[T], Iterable[str]]
"""Gives the values under which an object is found in an index. Must depend on the object alone."""

NAMESPACE_INDEX: Final = "namespace"


class IndexerError(LookupError):
    """There is no such index, or there is one already."""


def _by_namespace(obj: Any) -> tuple[str]:
    return (namespace_of(obj),)


class Indexer(Generic[T]):
    """Objects by key, with indexes that are kept up to date.

    It is changed on the event loop's thread alone, and every reading method is one step of it; other threads may read
    single objects. Objects are shared: nobody changes them. indexers: by name; "namespace" is always there.
    failed: is told of an index function that raised; the object is then not found by that index.
    """

    __slots__ = ("_failed", "_indexers", "_indices", "_items")

    def __init__(
        self,
        indexers: Mapping[str, IndexFunction[T]] | None = None,
        *,
        failed: Callable[[str, str, Exception], object] | None = None,
    ) -> None:
        self._items: dict[str, T] = {}
        self._indexers: dict[str, IndexFunction[T]] = {}
        self._indices: dict[str, dict[str, dict[str, None]]] = {}
        self._failed = failed
        self.add_indexers({NAMESPACE_INDEX: _by_namespace, **(indexers or {})})

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def get(self, key: str) -> T | None:
        """Return the object of this key, or None."""
        return self._items.get(key)

    def list(self) -> list[T]:
        """Return all objects, in the order in which they came."""
        return [*self._items.values()]

    def keys(self) -> Iterator[str]:
        """Iterate over all keys; the cache must not change meanwhile."""
        return iter(self._items)

    def by_index(self, name: str, value: str) -> builtins.list[T]:
        """Return the objects that an index has under a value. Raises IndexerError where there is no such index."""
        items = self._items
        return [items[key] for key in self._index(name).get(value, ())]

    def index_keys(self, name: str, value: str) -> builtins.list[str]:
        """Return the keys that an index has under a value. Raises IndexerError where there is no such index."""
        return [*self._index(name).get(value, ())]

    def index_values(self, name: str) -> builtins.list[str]:
        """Return all values of an index. Raises IndexerError where there is no such index."""
        return [*self._index(name)]

    @property
    def indexes(self) -> frozenset[str]:
        """The names of all indexes."""
        return frozenset(self._indexers)

    def add_indexers(self, indexers: Mapping[str, IndexFunction[T]]) -> None:
        """Add indexes, also of a cache that holds objects. Raises IndexerError for a name that is taken."""
        for name in indexers:
            if name in self._indexers:
                raise IndexerError(f"index {name}: there is one already; give the other another name")
        for name, function in indexers.items():
            self._indexers[name] = function
            index: dict[str, dict[str, None]] = {}
            self._indices[name] = index
            for key, obj in self._items.items():
                for value in self._values(name, function, key, obj):
                    index.setdefault(value, {})[key] = None

    def put(self, key: str, obj: T) -> T | None:
        """Store an object under its key; return the one that was there."""
        old = self._items.get(key)
        self._items[key] = obj
        for name, function in self._indexers.items():
            if old is not None and name == NAMESPACE_INDEX:
                continue  # it is a part of the key
            values = self._values(name, function, key, obj)
            index = self._indices[name]
            if old is not None:
                before = self._values(name, function, key, old)
                if before == values:
                    continue
                self._unlist(index, key, before)
            for value in values:
                entry = index.get(value)
                if entry is None:
                    index[value] = {key: None}
                else:
                    entry[key] = None
        return old

    def remove(self, key: str) -> T | None:
        """Forget an object; return it, or None where there was none."""
        old = self._items.pop(key, None)
        if old is not None:
            for name, function in self._indexers.items():
                self._unlist(self._indices[name], key, self._values(name, function, key, old))
        return old

    def _values(self, name: str, function: IndexFunction[T], key: str, obj: T) -> tuple[str, ...]:
        try:
            return tuple(function(obj))
        except Exception as error:  # noqa: BLE001  a user's function must not end the cache
            if self._failed is not None:
                self._failed(name, key, error)
            return ()

    @staticmethod
    def _unlist(index: dict[str, dict[str, None]], key: str, values: Iterable[str]) -> None:
        for value in values:
            entry = index.get(value)
            if entry is not None:
                entry.pop(key, None)
                if not entry:
                    del index[value]

    def _index(self, name: str) -> dict[str, dict[str, None]]:
        try:
            return self._indices[name]
        except KeyError:
            known = ", ".join(sorted(self._indices))
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
        return _selected(self._indexer.list(), selector)

    def get(self, name: str) -> T:
        """Return an object of the whole cluster. Raises NotFound."""
        return self._get(name, name)

    def namespaced(self, namespace: str) -> NamespaceLister[T]:
        """Return the lister of one namespace."""
        return NamespaceLister(self, namespace)

    def _in(self, namespace: str, selector: Selector | None) -> builtins.list[T]:
        return _selected(self._indexer.by_index(NAMESPACE_INDEX, namespace), selector)

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
        """Return an object by name. Raises NotFound."""
        return self._lister._get(f"{self._namespace}/{name}", name)


def _selected(items: list[T], selector: Selector | None) -> list[T]:
    if selector is None or selector.empty:
        return items
    matches = selector.matches
    return [item for item in items if matches(labels_of(item))]
