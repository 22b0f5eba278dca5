"""Objects that are questions: reviews of access and tokens, and requests for tokens. Answered, never stored."""

from __future__ import annotations

from collections.abc import Awaitable

from pilothouse.apiserver.access.reviews import KINDS, Reviews
from pilothouse.apiserver.access.tokenrequest import TokenRequests
from pilothouse.apiserver.model import ANONYMOUS
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import check_fields, read_body
from pilothouse.apiserver.rest.creating import check_type, unnamed
from pilothouse.apiserver.rest.engine import Call, Engine, check_namespace
from pilothouse.apiserver.rest.options import WriteOptions, write_options
from pilothouse.kinds.apply import FieldManager
from pilothouse.kinds.defaults import default
from pilothouse.kinds.emptyobjects import empty_object
from pilothouse.kinds.schema import ANY
from pilothouse.kinds.table import schema_for

__all__ = ["Questions"]

_TOKEN = ("authentication.k8s.io", "v1", "TokenRequest")


class Questions:
    """Implements `routing.Reviews`."""

    def __init__(self, engine: Engine, reviews: Reviews, tokens: TokenRequests) -> None:
        self._engine = engine
        self._reviews = reviews
        self._tokens = tokens
        self._managers: dict[str, FieldManager] = {}

    async def answer(self, call: Call) -> Object | None:
        """Return the object with its answer; None for resources that are no questions. Raises ApiStatus."""
        if call.info.subresource == "token":
            return await self._token(call)
        kind = call.served.resource.kind
        if kind not in KINDS:
            return None
        options = self._options(call)
        body = read_body(call.request, kind)
        check_type(body.obj, call)
        obj = call.served.decode(body, options.validation, call.request.warnings.append)
        unnamed(obj)
        obj = await self._admitted(call, self._owned(call.served.default(obj), kind, call, ""), options)
        user = call.request.user or ANONYMOUS
        answered = self._reviews.answer(kind, obj, user, call.info.namespace)
        made = await answered if isinstance(answered, Awaitable) else answered
        if kind == "SelfSubjectReview":
            made["metadata"] = {**made["metadata"], "creationTimestamp": self._engine.context().now}
        return made

    def _options(self, call: Call) -> WriteOptions:
        options = write_options(call.request, "CreateOptions")
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        return options

    def _owned(self, obj: Object, kind: str, call: Call, subresource: str) -> Object:
        manager = self._managers.get(kind)
        if manager is None:
            api_version = obj["apiVersion"]
            group, _, version = api_version.rpartition("/")
            manager = self._managers[kind] = FieldManager(
                schema_for(group, version, kind) or ANY,
                api_version,
                subresource=subresource,
                empty={"spec": {}, **empty_object(api_version, kind)},
            )
        return manager.update(None, obj, call.manager, self._engine.clock.now())

    async def _admitted(self, call: Call, obj: Object, options: WriteOptions) -> Object:
        admitted = self._engine.admission_request(call, "CREATE", obj["metadata"].get("name") or "", obj, None)
        obj = await self._engine.mutate(admitted)
        await self._engine.validate(admitted)
        return obj

    async def _token(self, call: Call) -> Object:
        options = self._options(call)
        body = read_body(call.request, "TokenRequest")
        group, version, kind = _TOKEN
        body.obj.setdefault("kind", kind)
        body.obj.setdefault("apiVersion", f"{group}/{version}")
        schema = schema_for(*_TOKEN) or ANY
        obj = check_fields(body, schema, kind, version, options.validation, call.request.warnings.append)
        metadata = unnamed(obj)
        check_namespace(obj, call.info, namespaced=True)
        metadata.setdefault("name", call.info.name)
        obj = default(obj, *_TOKEN)
        obj = self._owned(obj, kind, call, "token")
        admitted = self._engine.admission_request(call, "CREATE", call.info.name, obj, None)
        admitted.kind = _TOKEN
        obj = await self._engine.mutate(admitted)
        await self._engine.validate(admitted)
        obj["metadata"]["uid"] = self._engine.ids.uuid()
        return self._tokens.create(call.info.namespace, call.info.name, obj, call.request.annotations.__setitem__)
