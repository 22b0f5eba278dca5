"""All resources as they are served now: built-in ones, and custom ones as their definitions come and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.rest.conversions import Conversions
from pilothouse.apiserver.rest.served import Custom, Served
from pilothouse.kinds.registry import Registry, Resource, builtin

__all__ = ["Catalogue"]

Key = tuple[str, str, str]


class Catalogue:
    """The registry of the moment, and what serves each of its resources.

    loopback_endpoints: whether endpoints of services may be at 127.0.0.0/8.
    """

    def __init__(self, cacher: Cacher, *, loopback_endpoints: bool = False) -> None:
        self._loopback = loopback_endpoints
        self.registry: Registry = builtin()
        self.conversions = Conversions(lambda: self.registry)
        self.changed: list[Callable[[], None]] = []
        """Called after the registry has changed."""
        self._cacher = cacher
        self._served: dict[Key, Served] = {}
        self._custom: dict[Key, Custom] = {}
        self._warnings: dict[Key, tuple[str, ...]] = {}

    def served(self, group: str, version: str, resource: str) -> Served | None:
        """Return what serves a resource in a version; None where there is no such."""
        key = (group, version, resource)
        found = self._served.get(key)
        if found is None:
            wanted = self.registry.get(*key)
            if wanted is None:
                return None
            found = Served(
                wanted,
                self.registry,
                self._cacher,
                self.conversions,
                self._custom.get(key),
                loopback_endpoints=self._loopback,
            )
            found.warnings = self._warnings.get(key, ())
            self._served[key] = found
        return found

    def preferred(self, full_name: str) -> Served | None:
        """Return what serves a resource in its first version, by its full name."""
        plural, _, group = full_name.partition(".")
        for version in self.registry.versions(group):
            if self.registry.get(group, version, plural) is not None:
                return self.served(group, version, plural)
        return None

    def all_preferred(self) -> list[Served]:
        """Return what serves each resource whose objects are kept, in one version each."""
        found: dict[str, Served] = {}
        for resource in self.registry:
            if "list" in resource.verbs and resource.full_name not in found:
                served = self.served(*resource.key)
                if served is not None:
                    found[resource.full_name] = served
        return list(found.values())

    def replace_custom(
        self,
        added: Iterable[tuple[Resource, Custom, tuple[str, ...]]],
        removed: Iterable[Key],
    ) -> list[Served]:
        """Serve these custom resources, and others no longer; return what served them until now."""
        gone = [key for key in removed if self.registry.get(*key) is not None]
        new = list(added)
        self.registry = self.registry.with_resources([resource for resource, _, _ in new], gone)
        ended = []
        for key in gone:
            self._custom.pop(key, None)
            self._warnings.pop(key, None)
            if (old := self._served.pop(key, None)) is not None:
                ended.append(old)
        for resource, custom, warnings in new:
            key = resource.key
            self._custom[key] = custom
            self._warnings[key] = warnings
            if (old := self._served.pop(key, None)) is not None:
                ended.append(old)
        for callback in self.changed:
            callback()
        return ended
