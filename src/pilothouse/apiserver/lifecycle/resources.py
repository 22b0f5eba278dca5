"""The resources whose objects have a life here: where their caches are and by which version they are spoken to."""

from __future__ import annotations

from collections.abc import Callable

from pilothouse.apiserver.cache.resourcecache import ResourceCache
from pilothouse.apiserver.rest.catalogue import Catalogue
from pilothouse.apiserver.rest.served import Served
from pilothouse.kinds.registry import Resource

__all__ = ["Resources"]

_NEEDED = frozenset({"delete", "list"})


class Resources:
    """What can be listed and deleted, each resource once, under the full name of its cache. Follows the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._all: dict[str, Served] | None = None
        self._kinds: dict[tuple[str, str], tuple[str, bool] | None] = {}
        self._changed: list[Callable[[], None]] = []

    def start(self, changed: Callable[[], None]) -> None:
        """Call `changed` whenever there are other resources than before."""
        if not self._changed:
            self._catalogue.changed.append(self._reset)
        self._changed.append(changed)

    def close(self) -> None:
        """Follow the catalogue no longer."""
        if self._changed:
            self._catalogue.changed.remove(self._reset)
            self._changed.clear()

    def _reset(self) -> None:
        self._all = None
        self._kinds.clear()
        for callback in self._changed:
            callback()

    def all(self) -> dict[str, Served]:
        """Return what serves each resource, by the full name of its cache."""
        if self._all is None:
            self._all = {}
            for resource in self._catalogue.registry:
                if not _NEEDED.issubset(resource.verbs):
                    continue
                # In the version that is kept, so that nothing has to be converted.
                kept = self._kept(resource)
                if kept is not None:
                    self._all.setdefault(kept.cache.name, kept)
        return self._all

    def _kept(self, resource: Resource) -> Served | None:
        """Return what serves a resource in the version that is kept; None where that one is not served."""
        try:
            return self._catalogue.served(*self._catalogue.registry.storage(resource).key)
        except LookupError:
            return None

    def get(self, name: str) -> Served | None:
        """Return what serves a resource."""
        return self.all().get(name)

    def cache(self, name: str) -> ResourceCache | None:
        """Return the objects of a resource."""
        served = self.all().get(name)
        return None if served is None else served.cache

    def of_kind(self, api_version: str, kind: str) -> tuple[str, bool] | None:
        """Return the full name of a kind's resource and whether it is namespaced; None where it is not served."""
        key = api_version, kind
        if key not in self._kinds:
            group, _, version = api_version.rpartition("/")
            found = self._catalogue.registry.by_kind(group, version, kind)
            served = None if found is None or "list" not in found.verbs else self._kept(found)
            if found is None or served is None:
                return None
            self._kinds[key] = served.cache.name, found.namespaced
        return self._kinds[key]
