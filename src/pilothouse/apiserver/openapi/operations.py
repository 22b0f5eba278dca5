"""What can be done with resources, as OpenAPI tells it: a list of operations that both its forms are written from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pilothouse.apiserver.openapi.parameters import CONNECT, DELETE, DELETE_COLLECTION, LIST, LOG, PATCH, WRITE
from pilothouse.kinds.registry import Resource, Subresource
from pilothouse.kinds.table import kinds

__all__ = ["DELETE_OPTIONS", "PATCH_TYPE", "STATUS", "Operation", "friendly_name", "operations", "title", "type_name"]

_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
DELETE_OPTIONS: Final = f"{_META}DeleteOptions"
PATCH_TYPE: Final = f"{_META}Patch"
STATUS: Final = f"{_META}Status"
WATCH_EVENT: Final = f"{_META}WatchEvent"
_RESOURCES: Final = f"{_META}APIResourceList"
_OK: Final = ("200",)
_CHANGED: Final = ("200", "201")
_CREATED: Final = ("200", "201", "202")
_DELETED: Final = ("200", "202")
_CONNECT_METHODS: Final = ("delete", "get", "head", "options", "patch", "post", "put")
_CONNECT_VERBS: Final = {"get": "get", "create": "post"}

Gvk = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    action: what `x-kubernetes-action` says. gvk: the kind it is about. body, answer: full names of types, empty where
    there is none or where it is text. query: names of its parameters. watches: whether the answer may be a stream.
    custom: whether it is about a custom resource, which has no strategic merge patch.
    """

    path: str
    method: str
    id: str
    tag: str
    action: str = ""
    gvk: Gvk | None = None
    body: str = ""
    answer: str = ""
    codes: tuple[str, ...] = _OK
    query: tuple[str, ...] = ()
    watches: bool = False
    custom: bool = False

    @property
    def description(self) -> str:
        """A line about it."""
        return f"{self.action} {self.gvk[2]}" if self.gvk else "get available resources"


def friendly_name(group: str, version: str, kind: str) -> str:
    """Return the name of a custom resource's type, its group the other way round."""
    return ".".join([*reversed(group.split(".")), version, kind])


def type_name(group: str, version: str, kind: str) -> str:
    """Return the full name of the type of a kind."""
    return kinds().get((group, version, kind)) or friendly_name(group, version, kind)


def title(group: str, version: str) -> str:
    """Return a group and version as identifiers of operations have them: `CoreV1`, `RbacAuthorizationV1`."""
    words = (group.removesuffix(".k8s.io") or "core").split(".")
    return "".join(word[:1].upper() + word[1:] for word in [*words, version])


def _tag(group: str, version: str) -> str:
    name = title(group, "")
    return f"{name[:1].lower()}{name[1:]}_{version}"


def operations(group: str, version: str, resources: tuple[Resource, ...]) -> Iterator[Operation]:
    """Give all operations of a group and version."""
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    tag = _tag(group, version)
    yield Operation(f"{prefix}/", "get", f"get{title(group, version)}APIResources", tag, answer=_RESOURCES)
    for resource in resources:
        yield from _Writer(resource, tag).all()


class _Writer:
    """Writes the operations of one resource."""

    def __init__(self, resource: Resource, tag: str) -> None:
        self.resource: Final = resource
        self.tag: Final = tag
        self.verbs: Final = frozenset(resource.verbs)
        self.type: Final = type_name(*resource.gvk)
        self.list_type: Final = type_name(resource.group, resource.version, resource.list_kind)
        self.title: Final = title(resource.group, resource.version)
        self.scope: Final = "Namespaced" if resource.namespaced else ""
        namespace = "/namespaces/{namespace}" if resource.namespaced else ""
        self.collection: Final = f"{resource.path_prefix}{namespace}/{resource.resource}"
        self.object: Final = f"{self.collection}/{{name}}"

    def _id(self, verb: str, after: str = "", between: str = "") -> str:
        return f"{verb}{self.title}{between}{self.scope}{self.resource.kind}{after}"

    def _make(  # noqa: PLR0913 - what an operation has
        self,
        path: str,
        method: str,
        name: str,
        action: str,
        *,
        gvk: Gvk | None = None,
        body: str = "",
        answer: str = "",
        codes: tuple[str, ...] = _OK,
        query: tuple[str, ...] = (),
        watches: bool = False,
    ) -> Operation:
        kind = gvk or self.resource.gvk
        custom = self.resource.custom
        return Operation(path, method, name, self.tag, action, kind, body, answer, codes, query, watches, custom)

    def all(self) -> Iterator[Operation]:
        """Give the resource's operations and those of its subresources."""
        yield from self._collection()
        yield from self._object()
        yield from self._everywhere()
        for one in self.resource.subresources:
            yield from self._connect(one) if one.kind in CONNECT else self._sub(one)
        if "watch" in self.verbs:
            yield from self._watches()

    def _collection(self) -> Iterator[Operation]:
        if "list" in self.verbs:
            name = self._id("list")
            yield self._make(
                self.collection, "get", name, "list", answer=self.list_type, query=LIST, watches="watch" in self.verbs
            )
        if "create" in self.verbs:
            name = self._id("create")
            yield self._make(
                self.collection, "post", name, "post", body=self.type, answer=self.type, codes=_CREATED, query=WRITE
            )
        if "deletecollection" in self.verbs:
            name = self._id("delete", between="Collection")
            yield self._make(
                self.collection,
                "delete",
                name,
                "deletecollection",
                body=DELETE_OPTIONS,
                answer=STATUS,
                query=DELETE_COLLECTION,
            )

    def _object(self) -> Iterator[Operation]:
        if "get" in self.verbs:
            yield self._make(self.object, "get", self._id("read"), "get", answer=self.type)
        if "update" in self.verbs:
            yield self._make(
                self.object,
                "put",
                self._id("replace"),
                "put",
                body=self.type,
                answer=self.type,
                codes=_CHANGED,
                query=WRITE,
            )
        if "patch" in self.verbs:
            yield self._patch(self.object, self._id("patch"), self.type, None)
        if "delete" in self.verbs:
            yield self._make(
                self.object,
                "delete",
                self._id("delete"),
                "delete",
                body=DELETE_OPTIONS,
                answer=STATUS,
                codes=_DELETED,
                query=DELETE,
            )

    def _patch(self, path: str, name: str, answer: str, gvk: Gvk | None) -> Operation:
        return self._make(
            path, "patch", name, "patch", gvk=gvk, body=PATCH_TYPE, answer=answer, codes=_CHANGED, query=PATCH
        )

    def _everywhere(self) -> Iterator[Operation]:
        """Give the list over all namespaces."""
        if self.resource.namespaced and "list" in self.verbs:
            path = f"{self.resource.path_prefix}/{self.resource.resource}"
            name = f"list{self.title}{self.resource.kind}ForAllNamespaces"
            yield self._make(path, "get", name, "list", answer=self.list_type, query=LIST, watches=True)

    def _sub(self, one: Subresource) -> Iterator[Operation]:
        path, gvk = f"{self.object}/{one.name}", (one.group, one.version, one.kind)
        kind, after = type_name(*gvk), one.name[:1].upper() + one.name[1:]
        if "get" in one.verbs:
            text = one.name == "log"
            yield self._make(
                path,
                "get",
                self._id("read", after),
                "get",
                gvk=gvk,
                answer="" if text else kind,
                query=LOG if text else (),
            )
        if "create" in one.verbs:
            yield self._make(
                path,
                "post",
                self._id("create", after),
                "post",
                gvk=gvk,
                body=kind,
                answer=kind,
                codes=_CREATED,
                query=WRITE,
            )
        if "update" in one.verbs:
            yield self._make(
                path,
                "put",
                self._id("replace", after),
                "put",
                gvk=gvk,
                body=kind,
                answer=kind,
                codes=_CHANGED,
                query=WRITE,
            )
        if "patch" in one.verbs:
            yield self._patch(path, self._id("patch", after), kind, gvk)

    def _connect(self, one: Subresource) -> Iterator[Operation]:
        proxied = one.name == "proxy"
        methods = _CONNECT_METHODS if proxied else [_CONNECT_VERBS[verb] for verb in sorted(one.verbs, reverse=True)]
        gvk, after = (one.group, one.version, one.kind), one.name[:1].upper() + one.name[1:]
        for method in methods:
            name = self._id("connect", after, method[:1].upper() + method[1:])
            path = f"{self.object}/{one.name}"
            yield self._make(path, method, name, "connect", gvk=gvk, query=CONNECT[one.kind])
            if proxied:
                yield self._make(
                    f"{path}/{{path}}", method, f"{name}WithPath", "connect", gvk=gvk, query=CONNECT[one.kind]
                )

    def _watches(self) -> Iterator[Operation]:
        """Give the old paths for watching."""
        prefix = f"{self.resource.path_prefix}/watch"
        rest = self.collection.removeprefix(self.resource.path_prefix)

        def watch(path: str, name: str, action: str) -> Operation:
            return self._make(path, "get", name, action, answer=WATCH_EVENT, query=LIST, watches=True)

        yield watch(f"{prefix}{rest}", self._id("watch", "List"), "watchlist")
        yield watch(f"{prefix}{rest}/{{name}}", self._id("watch"), "watch")
        if self.resource.namespaced:
            name = f"watch{self.title}{self.resource.kind}ListForAllNamespaces"
            yield watch(f"{prefix}/{self.resource.resource}", name, "watchlist")
