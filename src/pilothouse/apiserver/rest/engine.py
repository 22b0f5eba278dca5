"""What all verbs share: the parts of the server they work with, one write as it goes its way, and admission."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from pilothouse.apiserver.access.forbidden import forbidden_for
from pilothouse.apiserver.model import ANONYMOUS, Request, RequestInfo, User
from pilothouse.apiserver.ports import AdmissionRequest, Attributes, Authorizer, Object, Operation
from pilothouse.apiserver.rest.bodies import read_body
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.storing import Storage
from pilothouse.apiserver.strategies.base import Context
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.status import ApiStatus, BadRequest, invalid
from pilothouse.kinds.times import format_seconds

__all__ = ["Admits", "Call", "Engine", "Hooks", "NoHooks"]


_WITH_OBJECT = frozenset({"POST", "PUT"})


class Admits(Protocol):
    """The chain of admission. Refusals are raised as `ApiStatus`; None means it is done."""

    def admit(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let plugins change the object."""

    def validate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Let plugins refuse it."""


class Hooks(Protocol):
    """What happens around the write of some kinds: addresses are allocated and given back."""

    async def before_create(self, served: Served, new: Object, call: Call) -> Callable[[], None] | None:
        """Do what comes last before a new object is stored; return how to undo it should that fail."""

    async def before_update(self, served: Served, new: Object, old: Object, call: Call) -> Callable[[], None] | None:
        """Do what comes last before an object is replaced; return how to undo it should that fail."""

    def after_update(self, served: Served, new: Object, old: Object, call: Call) -> None:
        """Do what is to be done once an object has been replaced."""

    def after_delete(self, served: Served, old: Object) -> None:
        """Do what is to be done once an object is gone."""


class NoHooks:
    """Nothing happens around writes."""

    async def before_create(self, served: Served, new: Object, call: Call) -> Callable[[], None] | None:
        return None

    async def before_update(self, served: Served, new: Object, old: Object, call: Call) -> Callable[[], None] | None:
        return None

    def after_update(self, served: Served, new: Object, old: Object, call: Call) -> None:
        return None

    def after_delete(self, served: Served, old: Object) -> None:
        return None


@dataclass(slots=True)
class Call:
    """One request for a resource on its way."""

    request: Request
    info: RequestInfo
    served: Served
    options: Object = field(default_factory=dict)
    dry_run: bool = False
    manager: str = ""

    def refuse(self, name: str, errors: ErrorList) -> ApiStatus:
        """Return the refusal of an object with these faults."""
        if self.request.method in _WITH_OBJECT and any(error.value is None for error in errors):
            errors = as_sent(errors, read_body(self.request, self.served.resource.kind).obj)
        return invalid(self.served.resource.group, self.served.resource.kind, name, errors)


class Engine:
    """The parts of the server that verbs work with."""

    def __init__(
        self, storage: Storage, admission: Admits, hooks: Hooks, authorizer: Authorizer, clock: Clock, ids: Ids
    ) -> None:
        self.storage = storage
        self.admission = admission
        self.hooks = hooks
        self._authorizer = authorizer
        self.clock = clock
        self.ids = ids
        self._second, self._text = -1.0, ""

    def context(self, user: User | None = None) -> Context:
        """Return what strategies may need. user: who makes an object."""
        now = self.clock.now()
        second = now.timestamp() // 1
        if second != self._second:
            self._second, self._text = second, format_seconds(now)
        return Context(self._text, now, self.ids, user)

    def check_may_create(self, call: Call) -> None:
        """Refuse what an update or apply would create to who may do these but not create. Raises Forbidden."""
        info = call.info
        if info.verb == "create":
            return
        user = call.request.user or ANONYMOUS
        wanted = Attributes(
            user,
            "create",
            group=info.group,
            version=info.version,
            resource=info.resource,
            subresource=info.subresource,
            namespace=info.namespace,
            name=info.name,
            path=info.path,
        )
        decision = self._authorizer.authorize(wanted)
        if not decision.allowed:
            raise forbidden_for(wanted, decision)

    def admission_request(
        self, call: Call, operation: Operation, name: str, new: Object | None, old: Object | None
    ) -> AdmissionRequest:
        """Return a write as admission sees it."""
        served, info, request = call.served, call.info, call.request
        resource = served.resource
        many = not served.conversions.is_single(resource)
        return AdmissionRequest(
            operation=operation,
            kind=resource.gvk,
            resource=resource.key,
            subresource=info.subresource,
            namespace=info.namespace if resource.namespaced else (name if resource.full_name == "namespaces" else ""),
            name=name,
            object=new,
            old=old,
            options=call.options,
            dry_run=call.dry_run,
            user=request.user or ANONYMOUS,
            namespaced=resource.namespaced,
            warn=request.warnings.append,
            annotate=request.annotations.__setitem__,
            convert=served.conversions.converter(resource) if many else None,
            equivalents=served.conversions.equivalents(resource) if many else (),
        )

    async def mutate(self, admitted: AdmissionRequest) -> Object:
        """Let admission change the object; return what it is then."""
        pending = self.admission.admit(admitted)
        if pending is not None:
            await pending
        obj = admitted.object
        if obj is None:
            raise BadRequest("admission took the object away")
        return obj

    async def validate(self, admitted: AdmissionRequest) -> None:
        """Let admission refuse the write."""
        pending = self.admission.validate(admitted)
        if pending is not None:
            await pending


def check_names(obj: Object, info: RequestInfo, *, named: bool) -> None:
    """Refuse an object whose name or namespace is not that of the path; fill in the namespace.

    named: the path has the name. Raises BadRequest.
    """
    metadata = obj["metadata"]
    if named:
        name = metadata.get("name")
        if not name:
            metadata["name"] = info.name
        elif name != info.name:
            raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({info.name})")


def check_name(obj: Object, info: RequestInfo) -> None:
    """Refuse an object without the name that the path gives, or with another. Raises BadRequest."""
    name = obj["metadata"].get("name")
    if not name:
        why = "was undeterminable: name must be provided"
        raise BadRequest(f"the name of the object ({info.name} based on URL) {why}")
    if name != info.name:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({info.name})")


def check_namespace(obj: Object, info: RequestInfo, *, namespaced: bool) -> None:
    """As `check_names` for the namespace."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace") or ""
    if not namespaced:
        if namespace:
            raise BadRequest("namespace is not allowed on this type")
        return
    if not namespace:
        metadata["namespace"] = info.namespace
    elif namespace != info.namespace:
        raise BadRequest("the namespace of the provided object does not match the namespace sent on the request")


def as_sent(errors: ErrorList, sent: Object) -> ErrorList:
    """Return the faults with the empty map or list that came for a value where they show null.

    A fault of the whole `spec` shows one of its fields, and stays as it is.
    """
    shown = ErrorList()
    for error in errors:
        if error.value is not None or "." not in error.field:
            shown.append(error)
            continue
        value: Any = sent
        for name in error.field.split("."):
            value = value.get(name) if isinstance(value, dict) else None
        shown.append(replace(error, value=value) if value in ({}, []) else error)
    return shown


def require_version(version: str) -> ErrorList:
    """Return the fault of an update without a resource version, for kinds that need one."""
    errors = ErrorList()
    if not version:
        errors.invalid(Path("metadata.resourceVersion"), 0, "must be specified for an update")
    return errors
