"""GET of one object and of many: stored bytes on their way out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from typing import Any

from pilothouse.apiserver.cache.cacher import Cacher, key_of
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.model import Answer, Response, Sink, StreamingResponse
from pilothouse.apiserver.negotiation import Negotiated
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.engine import Call
from pilothouse.apiserver.rest.options import ListOptions, list_options, resource_version
from pilothouse.apiserver.rest.rendering import Renderer, negotiated
from pilothouse.apiserver.rest.selecting import Selection, selection
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.rest.tokens import NOW, Token, decode_token, encode_token
from pilothouse.apiserver.storing import Storage, store_status
from pilothouse.kinds.fielderrors import json_text
from pilothouse.kinds.status import Expired, not_found, too_large_resource_version
from pilothouse.store import StoreError, prefix_end
from pilothouse.store.errors import Compacted, FutureRevision

__all__ = ["Page", "Reading"]

_STREAMED = 256
"""Objects from which on a list goes out in pieces, with other work in between."""
_PIECE = 256 * 1024
_AT_ONCE = 200
"""Objects looked at before other work gets its turn."""
_PAGE = 500
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class ExpiredToken(Expired):
    """A continue token whose version is compacted away; the Status has one that goes on with what is there now."""

    def __init__(self, token: str) -> None:
        super().__init__(_TOO_OLD)
        self._token = token

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "metadata": {"continue": self._token}}


class Page:
    """What a list found: the objects, the version they are of, and how it goes on."""

    __slots__ = ("entries", "remaining", "token", "version")

    def __init__(self, entries: list[Entry], version: int, token: str = "", remaining: int | None = None) -> None:
        self.entries = entries
        self.version = version
        self.token = token
        self.remaining = remaining

    def metadata(self, *, custom: bool = False) -> Object:
        """Return the metadata of the list; lists of custom resources always say how they go on."""
        made: Object = {"resourceVersion": str(self.version)}
        if self.token or custom:
            made["continue"] = self.token
        if self.remaining:
            made["remainingItemCount"] = self.remaining
        return made


class Reading:
    """Reads objects."""

    def __init__(self, cacher: Cacher, storage: Storage, renderer: Renderer) -> None:
        self._cacher = cacher
        self._storage = storage
        self._renderer = renderer

    # One

    def get(self, call: Call) -> Answer | Awaitable[Answer]:
        """Answer a GET of one object; at once where its stored bytes are what was asked for. Raises ApiStatus."""
        request = call.request
        if self._cacher.shared:
            return self._get_shared(call)
        if request.query_text:
            wanted = resource_version(request.param("resourceVersion"))
            if wanted is not None and wanted > self._cacher.revision:
                raise too_large_resource_version(wanted, self._cacher.revision)
        return self._found(call)

    def _found(self, call: Call) -> Answer | Awaitable[Answer]:
        served, info, renderer = call.served, call.info, self._renderer
        entry = served.cache.items.get(f"{info.namespace}/{info.name}" if served.resource.namespaced else info.name)
        if entry is None:
            raise not_found(served.resource.group, served.resource.resource, info.name)
        if negotiated(call.request) is None and renderer.is_direct(served, entry):
            return Response(200, entry.encoded(served.form))
        return renderer.one(call.request, served, entry)

    async def _get_shared(self, call: Call) -> Answer:
        wanted = resource_version(call.request.param("resourceVersion"))
        if wanted != 0:
            await self._fresh(wanted)
        answer = self._found(call)
        return await answer if isinstance(answer, Awaitable) else answer

    @property
    def shared(self) -> bool:
        """Whether others write to the store, so that the cache may be behind."""
        return self._cacher.shared

    async def newest(self) -> None:
        """Wait until the cache knows all that is in the store now. Raises ApiStatus."""
        await self._fresh(None)

    async def _fresh(self, wanted: int | None) -> None:
        """Wait until the cache knows what was asked for; what is newer than the store itself is refused."""
        try:
            current = await self._cacher.current() if wanted is None or wanted > self._cacher.revision else 0
        except StoreError as error:
            raise store_status(error) from error
        if wanted is not None and wanted > max(current, self._cacher.revision):
            raise too_large_resource_version(wanted, self._cacher.revision)

    def entry(self, call: Call) -> Entry:
        """Return the object of a call's path. Raises NotFound."""
        served, info = call.served, call.info
        entry = served.cache.get(key_of(info.namespace if served.resource.namespaced else "", info.name))
        if entry is None:
            raise not_found(served.resource.group, served.resource.resource, info.name)
        return entry

    # Many

    async def list_all(self, call: Call) -> Answer:
        """Answer a list. Raises ApiStatus."""
        served, request = call.served, call.request
        options = list_options(request, watch=False)
        page = await self.page(call, options)
        form = negotiated(request)
        if form is None and all(map(self._direct_test(served), page.entries)):
            return _plain(served, page)
        return await self._converted(call, page, form)

    def _direct_test(self, served: Served) -> Any:
        renderer = self._renderer
        return lambda entry: renderer.is_direct(served, entry)

    async def page(self, call: Call, options: ListOptions) -> Page:
        """Return the objects that a list asks for. Raises ApiStatus."""
        served, namespace = call.served, call.info.namespace
        chosen = selection(served, options)
        if options.token:
            return await self._continued(served, namespace, chosen, options, decode_token(options.token))
        if options.version != 0 and (self._cacher.shared or options.version is not None):
            await self._fresh(options.version)
        version = self._cacher.revision
        exact = options.match == "Exact" or (bool(options.limit) and not options.match)
        if exact and options.version and options.version != version:
            return await self._continued(served, namespace, chosen, options, Token(options.version, ""))
        entries = await _selected(self._snapshot(served, namespace, chosen), chosen)
        limit = options.limit
        if not limit or len(entries) <= limit:
            return Page(entries, version)
        left = len(entries) - limit if chosen.matches is None else None
        token = encode_token(_after(namespace, version, entries[limit - 1].key))
        return Page(entries[:limit], version, token, left)

    def _snapshot(self, served: Served, namespace: str, chosen: Selection) -> list[Entry]:
        if chosen.name and (namespace or not served.resource.namespaced):
            entry = served.cache.get(key_of(namespace, chosen.name))
            return [] if entry is None else [entry]
        return served.cache.entries(namespace)

    async def _continued(
        self, served: Served, namespace: str, chosen: Selection, options: ListOptions, token: Token
    ) -> Page:
        """Return a page as of a past version, from the store."""
        version = self._cacher.revision if token.version == NOW else token.version
        prefix = served.cache.prefix
        # What a token says is below the namespace that was authorized, whatever it says.
        start = (f"{namespace}/" if namespace else "") + token.start
        end = prefix_end(prefix + f"{namespace}/".encode()) if namespace else prefix_end(prefix)
        found: list[Entry] = []
        limit = options.limit
        while True:
            size = min(limit - len(found), _PAGE) if limit and chosen.matches is None else _PAGE
            try:
                entries, left = await self._past(served, version, start, end, size)
            except Compacted:
                if not token.start:
                    raise Expired("The resourceVersion for the provided list is too old.") from None
                raise ExpiredToken(encode_token(_at(namespace, NOW, start))) from None
            for place, entry in enumerate(entries):
                if chosen.matches is not None and not chosen.matches(entry):
                    continue
                found.append(entry)
                if limit and len(found) == limit:
                    left += len(entries) - place - 1
                    following = encode_token(_after(namespace, version, entry.key)) if left else ""
                    return Page(found, version, following, left if chosen.matches is None else None)
            if not left or not entries:
                return Page(found, version)
            start = entries[-1].key + "\0"

    async def _past(self, served: Served, version: int, start: str, end: bytes, size: int) -> tuple[list[Entry], int]:
        try:
            return await self._storage.at(served.cache, version, start, end, size)
        except Compacted:
            raise
        except FutureRevision:
            raise too_large_resource_version(version, self._cacher.revision) from None
        except StoreError as error:
            raise store_status(error) from error

    async def _converted(self, call: Call, page: Page, form: Negotiated | None) -> Answer:
        served = call.served
        objects: list[Object] = []
        for start in range(0, len(page.entries), _AT_ONCE):
            objects += await served.load_many(page.entries[start : start + _AT_ONCE])
            await asyncio.sleep(0)
        return self._renderer.many(call.request, served, objects, page.metadata(), form)


def _at(namespace: str, version: int, key: str) -> Token:
    return Token(version, key[len(namespace) + 1 :] if namespace else key)


def _after(namespace: str, version: int, key: str) -> Token:
    """Return the token that goes on behind a key; as in Kubernetes it tells the key below its namespace only."""
    return _at(namespace, version, key + "\0")


async def _selected(entries: list[Entry], chosen: Selection) -> list[Entry]:
    matches = chosen.matches
    if matches is None:
        return entries
    if len(entries) <= _AT_ONCE:
        return [entry for entry in entries if matches(entry)]
    found: list[Entry] = []
    for start in range(0, len(entries), _AT_ONCE):
        found += [entry for entry in entries[start : start + _AT_ONCE] if matches(entry)]
        await asyncio.sleep(0)
    return found


def _plain(served: Served, page: Page) -> Answer:
    resource = served.resource
    head = f'{{"kind":"{resource.list_kind}","apiVersion":"{resource.api_version}","metadata":'
    start = head.encode() + json_text(page.metadata(custom=served.custom is not None)).encode() + b',"items":['
    if len(page.entries) <= _STREAMED:
        form = served.form
        return Response(200, b"%b%b]}" % (start, b",".join([entry.item(form) for entry in page.entries])))

    async def run(sink: Sink) -> None:
        sink.write(start)
        for number, piece in enumerate(_pieces(page.entries, served)):
            sink.write(b"," + piece if number else piece)
            await sink.drain()
            await asyncio.sleep(0)
        sink.write(b"]}")

    return StreamingResponse(run)


def _pieces(entries: Sequence[Entry], served: Served) -> Iterator[bytes]:
    """Join the items of a list to pieces of about the same size."""
    form = served.form
    found: list[bytes] = []
    size = 0
    for entry in entries:
        item = entry.item(form)
        found.append(item)
        size += len(item)
        if size >= _PIECE:
            yield b",".join(found)
            found, size = [], 0
    if found:
        yield b",".join(found)
