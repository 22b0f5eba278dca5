"""All that can be done with the objects of one resource, whatever they are read as."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar, overload

import msgspec

from pilothouse.foundation.clock import Clock, SystemClock

from .calls import Caller
from .codecs import Codec, Page, RawList, read_items
from .deletion import Propagation, deletion_body, is_status
from .paging import PAGE_SIZE, raw_pages
from .patches import APPLY, Patch, patch_body
from .resources import Mapping
from .selecting import Selector, query, selector_text
from .watching import IDLE_SECONDS, ObjectEvent, raw_events, resumed

if TYPE_CHECKING:
    from .lister import ListWatch

__all__ = ["ALL_NAMESPACES", "PAGE_SIZE", "Propagation", "ResourceClient"]

T = TypeVar("T")

Items: TypeAlias = list[T]  # where `list` is a method

ALL_NAMESPACES: Final = "*"
"""As namespace of a list, watch or deletion: all of them."""


class ResourceClient(Generic[T]):
    """Calls about one resource: made by `Client.of` and `Client.dynamic`.

    namespace: for calls that name none. Raises ApiStatus (`pilothouse.kinds.status`) for what the server refuses and
    TransportError where it cannot be reached.
    """

    def __init__(  # made by the client alone
        self,
        caller: Caller,
        codec: Callable[[Mapping], Codec[T]],
        mapping: Mapping | Callable[[], Awaitable[Mapping]],
        *,
        namespace: str,
        field_manager: str,
        clock: Clock | None = None,
    ) -> None:
        self._caller = caller
        self._make = codec
        self._find = mapping if callable(mapping) else None
        self._known = (mapping, codec(mapping)) if isinstance(mapping, Mapping) else None
        self._namespace = namespace
        self._manager = field_manager
        self._clock = clock or SystemClock()

    async def mapping(self) -> Mapping:
        """Return where the resource is. Raises UnknownKind where the server does not have it."""
        return (await self._resource())[0]

    async def list_watch(
        self, namespace: str = ALL_NAMESPACES, *, labels: Selector = "", fields: Selector = ""
    ) -> ListWatch[T]:
        """Return what a reflector lists and watches by. Raises UnknownKind where the server does not have it."""
        from .lister import ListWatch  # noqa: PLC0415  # only for informers

        mapping, codec = await self._resource()
        return ListWatch(self._caller, mapping, codec, namespace, labels=labels, fields=fields)

    async def _resource(self) -> tuple[Mapping, Codec[T]]:
        if self._known is None:
            assert self._find is not None  # noqa: S101  # one of both is there
            mapping = await self._find()
            self._known = mapping, self._make(mapping)
        return self._known

    def _in(self, namespace: str | None) -> str:
        if namespace == ALL_NAMESPACES:
            raise ValueError("namespace: one object is in one namespace; name it")
        return namespace or self._namespace

    def _collection(self, mapping: Mapping, namespace: str | None) -> str:
        return mapping.collection("" if namespace == ALL_NAMESPACES else namespace or self._namespace)

    def _place(self, codec: Codec[T], mapping: Mapping, value: T, namespace: str | None) -> tuple[str, str]:
        """Return the name and namespace of an object that is to be written."""
        name, own = codec.head(value)
        if own and namespace and own != namespace:
            raise ValueError(
                f"{mapping.kind} {name!r}: metadata.namespace is {own!r}, but the call says {namespace!r}; "
                "leave one out"
            )
        return name, own or self._in(namespace)

    @overload
    async def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        resource_version: str = "",
        raw: Literal[False] = False,
    ) -> T: ...

    @overload
    async def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        resource_version: str = "",
        raw: Literal[True],
    ) -> bytes: ...

    async def get(
        self,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        resource_version: str = "",
        raw: bool = False,
    ) -> T | bytes:
        """Return one object; raw: as bytes. resource_version: no older than this, "0" as it is at hand."""
        mapping, codec = self._known or await self._resource()
        target = mapping.item(name, self._in(namespace), subresource)
        if resource_version:
            target += query(resourceVersion=resource_version)
        data = await self._caller.call("GET", target, accept=codec.accept)
        return data if raw else codec.decode(data)

    async def list(
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        limit: int = PAGE_SIZE,
        resource_version: str = "",
        resource_version_match: str = "",
    ) -> AsyncGenerator[T, None]:
        """Give all objects, asking for a page when it is needed; between pages the list stays that of one moment.

        labels, fields: select by. limit: objects a page, 0 asks for all at once. Raises Expired where the iteration
        takes so long that the server has forgotten that moment.
        """
        async with aclosing(
            self.pages(
                namespace,
                labels=labels,
                fields=fields,
                limit=limit,
                resource_version=resource_version,
                resource_version_match=resource_version_match,
            )
        ) as pages:
            async for page in pages:
                for item in page.items:
                    yield item

    async def list_all(
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        limit: int = PAGE_SIZE,
        resource_version: str = "",
    ) -> Items[T]:
        """Return all objects as a list; as `list`, but the next page is on its way while one is read."""
        mapping, codec = self._known or await self._resource()
        found: Items[T] = []
        pages = self._raw_pages(
            mapping, codec, namespace, labels, fields, ahead=True, limit=limit, resourceVersion=resource_version
        )
        async with aclosing(pages):
            async for page in pages:
                found.extend(read_items(codec, page).items)
        return found

    async def pages(
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        limit: int = PAGE_SIZE,
        resource_version: str = "",
        resource_version_match: str = "",
    ) -> AsyncGenerator[Page[T], None]:
        """Give all objects page by page, each with the list's metadata."""
        mapping, codec = self._known or await self._resource()
        pages = self._raw_pages(
            mapping,
            codec,
            namespace,
            labels,
            fields,
            limit=limit,
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
        )
        async with aclosing(pages):
            async for page in pages:
                yield read_items(codec, page)

    def _raw_pages(
        self,
        mapping: Mapping,
        codec: Codec[T],
        namespace: str | None,
        labels: Selector,
        fields: Selector,
        *,
        ahead: bool = False,
        **parameters: str | int,
    ) -> AsyncGenerator[RawList, None]:
        selected = {"labelSelector": selector_text(labels), "fieldSelector": selector_text(fields)}
        return raw_pages(
            self._caller,
            self._collection(mapping, namespace),
            mapping.name,
            accept=codec.accept_list,
            ahead=ahead,
            **selected,
            **parameters,
        )

    async def create(
        self, value: T, namespace: str | None = None, *, dry_run: bool = False, field_manager: str = ""
    ) -> T:
        """Create an object and return it as the server keeps it. Raises AlreadyExists."""
        mapping, codec = self._known or await self._resource()
        _, place = self._place(codec, mapping, value, namespace)
        target = mapping.collection(place) + self._written(dry_run, field_manager)
        return codec.decode(await self._caller.call("POST", target, codec.encode(value), accept=codec.accept))

    async def update(
        self,
        value: T,
        namespace: str | None = None,
        *,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> T:
        """Replace an object and return it as the server keeps it.

        Raises Conflict where it has changed since it was read, that is where its resource version is another one.
        """
        mapping, codec = self._known or await self._resource()
        name, place = self._place(codec, mapping, value, namespace)
        target = mapping.item(name, place, subresource) + self._written(dry_run, field_manager)
        return codec.decode(await self._caller.call("PUT", target, codec.encode(value), accept=codec.accept))

    async def update_status(self, value: T, namespace: str | None = None, *, dry_run: bool = False) -> T:
        """Replace an object's status; the rest of it is not looked at. Raises Conflict as `update`."""
        return await self.update(value, namespace, subresource="status", dry_run=dry_run)

    async def apply(
        self,
        value: T,
        namespace: str | None = None,
        *,
        force: bool = False,
        field_manager: str = "",
        subresource: str = "",
        dry_run: bool = False,
    ) -> T:
        """Apply an object: create it, or make its fields those that are set here, and drop those set before.

        force: take over fields of other managers, for which Conflict is raised otherwise. Follows server-side apply.
        """
        mapping, codec = self._known or await self._resource()
        name, place = self._place(codec, mapping, value, namespace)
        target = mapping.item(name, place, subresource) + query(
            fieldManager=field_manager or self._manager, force=force, dryRun="All" if dry_run else ""
        )
        data = await self._caller.call(
            "PATCH", target, codec.encode(value), content_type=APPLY, accept=codec.accept, repeatable=True
        )
        return codec.decode(data)

    async def patch(
        self,
        name: str,
        patch: Patch,
        namespace: str | None = None,
        *,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> T:
        """Change parts of an object and return it. A dictionary is a merge patch, a list a JSON patch."""
        mapping, codec = self._known or await self._resource()
        body, content_type = patch_body(patch)
        target = mapping.item(name, self._in(namespace), subresource) + self._written(dry_run, field_manager)
        return codec.decode(
            await self._caller.call("PATCH", target, body, content_type=content_type, accept=codec.accept)
        )

    async def delete(
        self,
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> T | None:
        """Delete an object; return it where the server answers with it, as with one that finalizers still hold.

        propagation: what becomes of the objects that it owns. uid, resource_version: delete only this very object,
        or only as it was read; Conflict is raised otherwise.
        """
        mapping, codec = self._known or await self._resource()
        body = deletion_body(propagation, grace_seconds, uid, resource_version, dry_run)
        data = await self._caller.call("DELETE", mapping.item(name, self._in(namespace)), body)
        return None if is_status(data) else codec.decode(data)

    async def delete_collection(
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> None:
        """Delete all objects that are selected; without a selector all of the namespace."""
        mapping, _ = self._known or await self._resource()
        target = self._collection(mapping, namespace) + query(
            labelSelector=selector_text(labels), fieldSelector=selector_text(fields)
        )
        await self._caller.call("DELETE", target, deletion_body(propagation, grace_seconds, "", "", dry_run))

    @overload
    def watch(
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        since: str = "",
        resume: bool = False,
        bookmarks: bool = False,
        timeout_seconds: int = 0,
        idle_seconds: float = IDLE_SECONDS,
        raw: Literal[False] = False,
    ) -> AsyncGenerator[ObjectEvent[T], None]: ...

    @overload
    def watch(
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        since: str = "",
        resume: bool = False,
        bookmarks: bool = False,
        timeout_seconds: int = 0,
        idle_seconds: float = IDLE_SECONDS,
        raw: Literal[True],
    ) -> AsyncGenerator[ObjectEvent[msgspec.Raw], None]: ...

    async def watch(  # noqa: PLR0913
        self,
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        since: str = "",
        resume: bool = False,
        bookmarks: bool = False,
        timeout_seconds: int = 0,
        idle_seconds: float = IDLE_SECONDS,
        raw: bool = False,
    ) -> AsyncGenerator[ObjectEvent[T] | ObjectEvent[msgspec.Raw], None]:
        """Give the changes of objects as they happen, until the server ends the watch, most often after minutes.

        since: the resource version to go on from, of a list; without one it begins with an ADDED for each object that
        is there. resume: go on by itself after each end and break. bookmarks: give these too. idle_seconds: silence
        after which the connection counts as dead. raw: give objects as their bytes. For a watch that never misses
        anything use an informer. Raises Expired where `since` is too old: list anew.
        """
        mapping, codec = self._known or await self._resource()
        target = self._collection(mapping, namespace) + query(
            watch=True,
            allowWatchBookmarks=True,
            labelSelector=selector_text(labels),
            fieldSelector=selector_text(fields),
            timeoutSeconds=timeout_seconds,
        )
        if resume:
            source = resumed(self._caller, target, since, self._clock, accept=codec.accept, idle=idle_seconds)
        else:
            version = f"&resourceVersion={since}" if since else ""
            answer = await self._caller.request(
                "GET", target + version, stream=True, idle=idle_seconds, accept=codec.accept
            )
            source = raw_events(answer)
        async with aclosing(source):
            async for event in source:
                if bookmarks or event.type != "BOOKMARK":
                    yield ObjectEvent(event.type, event.object if raw else codec.decode(event.object))  # type: ignore[arg-type, misc]

    def _written(self, dry_run: bool, field_manager: str) -> str:
        return query(dryRun="All" if dry_run else "", fieldManager=field_manager or self._manager)
