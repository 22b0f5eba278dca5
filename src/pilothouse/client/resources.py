"""Where objects of a kind are: the path of a resource, known for typed kinds, by discovery for others.

Discovery asks for one group and version when first needed and is remembered; a kind that is not there is looked for
once more, so that a definition made meanwhile is found.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from pilothouse.kinds.status import NotFound
from pilothouse.kinds.structs import Resource

from .calls import Caller
from .errors import BadAnswer, UnknownKind

__all__ = ["Discovery", "Mapping", "mapping_of", "split_api_version"]

_MAX_GROUPS: Final = 1024


class Mapping(NamedTuple):
    """Where one resource is."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """The name that is unique across groups: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def collection(self, namespace: str = "") -> str:
        """Return the path of all objects, of one namespace where one is given."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace and self.namespaced:
            return f"{root}/namespaces/{quote(namespace, safe='')}/{self.plural}"
        return f"{root}/{self.plural}"

    def item(self, name: str, namespace: str = "", subresource: str = "") -> str:
        """Return the path of one object. Raises ValueError for a name that no path can have."""
        if not name or name in {".", ".."} or "/" in name:
            problem = "is missing" if not name else f"{name!r} cannot be part of a path"
            raise ValueError(f"{self.name}: name: {problem}")
        path = f"{self.collection(namespace)}/{name if name.isalnum() else quote(name, safe='')}"
        return f"{path}/{subresource}" if subresource else path


def mapping_of(kind: object) -> Mapping:
    """Return where objects of a typed kind are. Raises UnknownKind, which says what to pass instead."""
    if not isinstance(kind, type) or not issubclass(kind, Resource) or not kind.version:
        shown = kind.__name__ if isinstance(kind, type) else repr(kind)[:80]
        raise UnknownKind(
            f"kind: {shown} is no type of resource; pass a class of pilothouse.kinds.structs, make your own by "
            "`class Widget(Resource, group=..., version=..., plural=...)`, or use "
            "client.dynamic(api_version, kind) for dictionaries"
        )
    if not kind.plural:
        raise UnknownKind(
            f"kind: {kind.__name__} has no path of its own, it is only sent to subresources; see the methods of Client "
            "such as create_token and evict"
        )
    group, version, name = kind.gvk
    return Mapping(group, version, name, kind.plural, kind.namespaced)


def split_api_version(api_version: str) -> tuple[str, str]:
    """Split `apps/v1` into group and version; `v1` is of the core group. Raises ValueError."""
    group, _, version = api_version.rpartition("/")
    if not version or "/" in group or api_version.startswith("/"):
        raise ValueError(f"apiVersion: {api_version!r}; want GROUP/VERSION, or VERSION alone for the core group")
    return group, version


class Discovery:
    """What the server has, asked for by group and version and remembered."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._known: dict[str, dict[str, Mapping]] = {}
        self._lock = asyncio.Lock()

    async def find(self, api_version: str, kind: str) -> Mapping:
        """Return where objects of a kind are. Raises UnknownKind where the server does not have it, and ApiStatus."""
        found = self._known.get(api_version, {}).get(kind)
        if found is not None:
            return found
        async with self._lock:
            found = self._known.get(api_version, {}).get(kind)
            if found is None:
                kinds = await self._ask(api_version)
                found = kinds.get(kind)
                if found is None:
                    names = ", ".join(sorted(kinds)) or "none"
                    raise UnknownKind(
                        f"the server has no kind {kind} of {api_version}; its kinds of it are: {names}. "
                        "Is the custom resource definition there and established?"
                    )
                if len(self._known) >= _MAX_GROUPS:
                    self._known.clear()
                self._known[api_version] = kinds
        return found

    def forget(self) -> None:
        """Ask anew with the next look-up."""
        self._known.clear()

    async def _ask(self, api_version: str) -> dict[str, Mapping]:
        group, version = split_api_version(api_version)
        path = (
            f"/apis/{quote(group, safe='')}/{quote(version, safe='')}" if group else f"/api/{quote(version, safe='')}"
        )
        try:
            body = await self._caller.call("GET", path)
        except NotFound:
            return {}
        try:
            listed = msgspec.json.decode(body)["resources"]
            return {one["kind"]: _mapping(group, version, one) for one in reversed(listed) if "/" not in one["name"]}
        except (msgspec.DecodeError, KeyError, TypeError) as error:
            raise BadAnswer(f"GET {path}: no list of resources: {error!r}") from error


def _mapping(group: str, version: str, one: dict[str, Any]) -> Mapping:
    return Mapping(
        one.get("group") or group, one.get("version") or version, one["kind"], one["name"], one["namespaced"]
    )
