"""From what a request asks for to the verb that answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeAlias

from pilothouse.apiserver.model import Answer, Request, RequestInfo, Response
from pilothouse.apiserver.ports import Object, View
from pilothouse.apiserver.rest.catalogue import Catalogue
from pilothouse.apiserver.rest.changing import Changing
from pilothouse.apiserver.rest.creating import Creating
from pilothouse.apiserver.rest.deleting import Deleting
from pilothouse.apiserver.rest.engine import Call, Engine
from pilothouse.apiserver.rest.options import delete_options, list_options
from pilothouse.apiserver.rest.reading import Reading
from pilothouse.apiserver.rest.rendering import Renderer, check_acceptable, negotiated
from pilothouse.apiserver.rest.scaling import Scaling
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.rest.special import Special
from pilothouse.apiserver.rest.watching import Watching
from pilothouse.kinds.status import NotFound, generic

__all__ = ["Answers", "Reviews", "Router", "Streams", "page_not_found"]

Answers: TypeAlias = Answer | Awaitable[Answer]
_CREATED = 201
_NOT_FOUND = 404
_NOT_ALLOWED = 405
_CHANGING = frozenset({"update", "patch", "delete", "deletecollection"})
_HAS_SUBRESOURCE = frozenset({"log", "exec", "attach", "portforward", "proxy"})


def page_not_found() -> Response:
    """Return what a path gets that nothing serves; each time anew, for each answer has headers of its own."""
    return Response(_NOT_FOUND, b"404 page not found\n", content_type="text/plain; charset=utf-8")


class Reviews(Protocol):
    """Answers objects that are questions: access reviews, token reviews, token requests."""

    async def answer(self, call: Call) -> Object | None:
        """Return the object with its answer; None for resources that are no questions."""


class Streams(Protocol):
    """Answers exec, attach, port-forward, logs and proxies."""

    async def answer(self, call: Call) -> Answer:
        """Answer a request for one of these subresources. Raises ApiStatus."""


class Router:
    """Calls the verb. What it raises are `ApiStatus`."""

    def __init__(  # noqa: PLR0913 - made in one place
        self,
        catalogue: Catalogue,
        engine: Engine,
        renderer: Renderer,
        reading: Reading,
        watching: Watching,
        view: View,
        reviews: Reviews,
        streams: Streams,
    ) -> None:
        self._catalogue = catalogue
        self._engine = engine
        self._renderer = renderer
        self._reading = reading
        self._watching = watching
        self._reviews = reviews
        self._streams = streams
        self._creating = Creating(engine)
        self._changing = Changing(engine, self._creating)
        self._deleting = Deleting(engine, self._creating, self._changing)
        self._scaling = Scaling(engine, self._creating, self._changing)
        self._special = Special(engine, self._creating, self._changing, self._deleting, view)
        self._plain: dict[str, Callable[[Call], Answers]] = {
            "get": reading.get,
            "list": reading.list_all,
            "watch": watching.watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    def served(self, info: RequestInfo) -> Served | None:
        """Return what serves the resource of a request."""
        return self._catalogue.served(info.group, info.version, info.resource)

    def route(self, request: Request, info: RequestInfo) -> Answers:
        """Answer a request for a resource, at once where that can be. Raises ApiStatus."""
        served = self._catalogue.served(info.group, info.version, info.resource)
        if served is None:
            if self._catalogue.registry.resources(info.group, info.version):
                raise generic(_NOT_FOUND)
            return page_not_found()
        resource = served.resource
        if info.namespace and not resource.namespaced and info.resource != "namespaces":
            raise generic(_NOT_FOUND)
        if served.warnings:
            request.warnings.extend(served.warnings)
        call = Call(request, info, served)
        verb = info.verb
        if info.subresource:
            handler: Callable[[Call], Answers] = self._subresource
        elif verb not in resource.verbs or not self._fits(info, resource.namespaced) or request.method == "HEAD":
            raise generic(_NOT_ALLOWED)
        else:
            if verb != "watch":
                check_acceptable(request, served, many=verb == "list")
            handler = self._plain[verb]
        if self._reading.shared and (verb in _CHANGING or (verb == "create" and info.subresource)):
            return self._up_to_date(handler, call)
        return handler(call)

    async def _up_to_date(self, handler: Callable[[Call], Answers], call: Call) -> Answer:
        """Answer once the cache knows what others wrote to the store: what is changed has to be there."""
        await self._reading.newest()
        answer = handler(call)
        return await answer if isinstance(answer, Awaitable) else answer

    def _fits(self, info: RequestInfo, namespaced: bool) -> bool:
        """Whether the verb may have the name, or lack of one, and the namespace that it has."""
        named = info.path.rstrip("/").endswith(f"/{info.name}") if info.name else False
        if info.verb in {"update", "patch", "delete", "get"}:
            return bool(info.name) and (bool(info.namespace) or not namespaced)
        if info.verb == "create":
            return not named and (bool(info.namespace) or not namespaced)
        return info.verb == "watch" or not named

    # Plain verbs

    async def _create(self, call: Call) -> Answer:
        if "list" not in call.served.resource.verbs:
            return await self._question(call)
        entry = await self._creating.create(call)
        return await self._renderer.one(call.request, call.served, entry, _CREATED)

    async def _question(self, call: Call) -> Answer:
        if call.served.resource.full_name == "bindings":
            pods = self._catalogue.served("", "v1", "pods")
            if pods is None:
                raise generic(_NOT_FOUND)
            status = await self._special.bind(Call(call.request, call.info, pods))
            return self._renderer.answer(call.request, call.served, status, status=_CREATED)
        answered = await self._reviews.answer(call)
        if answered is None:
            raise generic(_NOT_ALLOWED)
        return self._renderer.answer(call.request, call.served, answered, status=_CREATED)

    async def _update(self, call: Call) -> Answer:
        made = await self._changing.update(call)
        return await self._renderer.one(call.request, call.served, made.entry, _CREATED if made.created else 200)

    async def _patch(self, call: Call) -> Answer:
        made = await self._changing.patch(call)
        return await self._renderer.one(call.request, call.served, made.entry, _CREATED if made.created else 200)

    async def _delete(self, call: Call) -> Answer:
        left = await self._deleting.delete(call)
        if isinstance(left, dict):
            return self._renderer.encoded(call.request, left, negotiated(call.request), 200)
        return await self._renderer.one(call.request, call.served, left)

    async def _delete_collection(self, call: Call) -> Answer:
        deletion = delete_options(call.request)
        options = list_options(call.request, watch=False)
        page = await self._reading.page(call, options)
        calls = []
        for entry in page.entries:
            namespace, _, name = entry.key.rpartition("/")
            info = call.info
            one = RequestInfo(True, "delete", info.path, info.group, info.version, namespace, info.resource, "", name)
            calls.append(Call(call.request, one, call.served, options=deletion.raw, dry_run=deletion.dry_run))
        await self._deleting.delete_all(calls, deletion)
        objects = [await call.served.load(entry) for entry in page.entries]
        return self._renderer.many(call.request, call.served, objects, page.metadata(), negotiated(call.request))

    # Subresources

    def _subresource(self, call: Call) -> Answers:
        info, resource = call.info, call.served.resource
        found = resource.subresource(info.subresource)
        if found is None or not info.name:
            raise generic(_NOT_FOUND)
        if resource.namespaced and not info.namespace:
            raise generic(_NOT_FOUND)
        if info.subresource in _HAS_SUBRESOURCE:
            return self._streams.answer(call)
        if info.verb not in found.verbs:
            raise generic(_NOT_ALLOWED)
        return self._special_subresource(call)

    async def _special_subresource(self, call: Call) -> Answer:
        info, request, renderer = call.info, call.request, self._renderer
        name, verb = info.subresource, info.verb
        if name == "scale":
            if verb == "get":
                scale: Object = await self._scaling.get(call)
            else:
                scale, _ = await self._scaling.write(call, patch=verb == "patch")
            return renderer.answer(request, call.served, scale)
        if name == "token":
            answered = await self._reviews.answer(call)
            if answered is None:
                raise NotFound("tokens are not issued here")
            return renderer.answer(request, call.served, answered, status=_CREATED)
        if name in {"binding", "eviction"}:
            status = await (self._special.bind(call) if name == "binding" else self._special.evict(call))
            return renderer.answer(request, call.served, status, status=_CREATED)
        if name == "finalize":
            return await renderer.one(request, call.served, await self._special.finalize_namespace(call))
        if verb == "get":
            answer = self._reading.get(call)
            return await answer if isinstance(answer, Awaitable) else answer
        return await (self._update(call) if verb == "update" else self._patch(call))
