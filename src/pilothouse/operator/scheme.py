"""The scheme: which types an operator knows, each registered before it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Self

from pilothouse.kinds.structs import Resource, built_in_type_for

from .errors import NotRegistered, SchemeConflict

__all__ = ["Scheme"]

Gvk = tuple[str, str, str]

_BUILT_IN: Final = "pilothouse.kinds.structs."


class Scheme:
    """The types of an operator by group, version and kind.

    Those of `pilothouse.kinds.structs` are known; own ones are registered: `Scheme(Website)` or `register(Website)`.
    built_in: False knows only what is registered.
    """

    def __init__(self, *kinds: type[Resource], built_in: bool = True) -> None:
        self._built_in = built_in
        self._kinds: dict[Gvk, type[Resource]] = {}
        self.register(*kinds)

    def __contains__(self, kind: object) -> bool:
        if not isinstance(kind, type) or not issubclass(kind, Resource):
            return False
        return self._kinds.get(kind.gvk) is kind or (kind.gvk not in self._kinds and self._knows_built_in(kind))

    def __iter__(self) -> Iterator[type[Resource]]:
        return iter(self._kinds.values())

    def register(self, *kinds: type[Resource]) -> Self:
        """Make types known; a second time is fine.

        Raises NotRegistered for what is no type of resource with a path, SchemeConflict where another type is there.
        """
        for kind in kinds:
            _check_type(kind)
            known = self._kinds.get(kind.gvk)
            if known is not None and known is not kind:
                raise SchemeConflict(
                    f"scheme: {_shown(kind.gvk)} is registered as {_name(known)} already; give {_name(kind)} another "
                    "kind or version, or use one of both everywhere"
                )
            self._kinds[kind.gvk] = kind
        return self

    def check(self, kind: type[Resource]) -> None:
        """Raise NotRegistered, which names the remedy, for a type that is not known."""
        if kind in self:
            return
        _check_type(kind)
        other = self._kinds.get(kind.gvk)
        if other is not None:
            raise NotRegistered(
                f"scheme: {_name(kind)} is not registered; {_shown(kind.gvk)} is {_name(other)} here, use that class"
            )
        raise NotRegistered(
            f"scheme: {_name(kind)} ({_shown(kind.gvk)}) is not registered; register it before the manager uses it: "
            f"Manager(client, scheme=Scheme({kind.__name__})) or manager.scheme.register({kind.__name__})"
        )

    def type_of(self, group: str, version: str, kind: str) -> type[Resource]:
        """Return the type of a kind. Raises NotRegistered."""
        gvk = group, version, kind
        found = self._kinds.get(gvk)
        if found is None:
            found = built_in_type_for(*gvk)
            if found is None or not self._knows_built_in(found):
                raise NotRegistered(
                    f"scheme: no type is registered for {_shown(gvk)}; write `class {kind}(Resource, group={group!r}, "
                    f"version={version!r}, plural=...)` and register it with manager.scheme.register({kind})"
                )
        return found

    def _knows_built_in(self, kind: type[Resource]) -> bool:
        return self._built_in and kind.__module__.startswith(_BUILT_IN) and bool(kind.plural)


def _check_type(kind: object) -> None:
    if not isinstance(kind, type) or not issubclass(kind, Resource) or not kind.version:
        raise NotRegistered(
            f"scheme: {kind!r} is no type of resource; write `class Website(Resource, group='example.com', "
            "version='v1', plural='websites')` and register that"
        )
    if not kind.plural:
        raise NotRegistered(f"scheme: {_name(kind)} has no plural, so no path; name it: class ...(plural='...')")


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _shown(gvk: Gvk) -> str:
    group, version, kind = gvk
    return f"{kind} of {group}/{version}" if group else f"{kind} of {version}"
