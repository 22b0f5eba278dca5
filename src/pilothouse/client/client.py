"""The client: typed calls to one Kubernetes API, each told the type of the object that it is about."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, cast, overload

import msgspec

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.retry import Backoff
from pilothouse.kinds.structs import Resource

from .calls import DEFAULT_BACKOFF, Caller
from .codecs import Codec, DictCodec, PartialCodec, PartialObject, TypedCodec
from .config import ClientConfig, Impersonation
from .patches import Patch, patch_body
from .resourceclient import PAGE_SIZE, Propagation, ResourceClient
from .resources import Discovery, mapping_of
from .selecting import Selector
from .transport import Transport
from .watching import IDLE_SECONDS, ObjectEvent

if TYPE_CHECKING:
    from pilothouse.kinds.structs import Scale, TokenRequest

    from .lister import ListWatch
    from .pods import Pods

__all__ = ["Client"]

R = TypeVar("R", bound=Resource)

FIELD_MANAGER: Final = "pilothouse"
_MAX_HANDLES: Final = 4096


class Client:
    """Calls to one Kubernetes API as one user. Use it as `async with Client.from_kubeconfig() as client:`.

    namespace: for calls that name none. field_manager: whose the fields are that are written. seconds: the time limit
    of a call; None is the transport's. backoff: between tries of what may be tried again; None never tries again.
    managed_fields: whether typed objects that are read have theirs; without them lists are read three times as fast,
    and the server keeps them in an update.

    Refusals are raised as `ApiStatus` by their reason (`pilothouse.kinds.status`), a server that cannot be reached as
    TransportError, a type that is none as UnknownKind, an object that does not fit its type as BadAnswer.
    """

    def __init__(  # all but one have a default
        self,
        transport: Transport,
        *,
        namespace: str = "default",
        field_manager: str = FIELD_MANAGER,
        seconds: float | None = None,
        backoff: Backoff | None = DEFAULT_BACKOFF,
        managed_fields: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self._managed_fields = managed_fields
        self._clock = clock or SystemClock()
        caller = Caller(transport, backoff=backoff, clock=self._clock, seconds=seconds)
        self._start(caller, namespace, field_manager, owns=True)

    def _start(self, caller: Caller, namespace: str, field_manager: str, *, owns: bool) -> None:
        self._caller = caller
        self.namespace = namespace
        self.field_manager = field_manager
        self._owns = owns
        self._handles: dict[type, ResourceClient[Any]] = {}
        self.discovery = Discovery(caller)
        self._pods: Pods | None = None

    @classmethod
    def from_kubeconfig(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        context: str | None = None,
        namespace: str | None = None,
        **options: Any,
    ) -> Self:
        """Make a client of a kubeconfig: the file given, those of KUBECONFIG, or ~/.kube/config.

        context: instead of current-context. options: as for `Client`. Raises ConfigError.
        """
        from .kubeconfig import load_kubeconfig  # noqa: PLC0415  # only where there is one

        return cls.from_config(load_kubeconfig(path, context=context, namespace=namespace), **options)

    @classmethod
    def in_cluster(cls, *, namespace: str | None = None, **options: Any) -> Self:
        """Make a client of the service account of the pod that this runs in. Raises ConfigError outside of one."""
        from .incluster import in_cluster  # noqa: PLC0415

        return cls.from_config(in_cluster(namespace=namespace), **options)

    @classmethod
    def from_environment(cls, **options: Any) -> Self:
        """Make a client of the pod's service account inside of a cluster, else of a kubeconfig. Raises ConfigError."""
        from .incluster import is_in_cluster  # noqa: PLC0415

        inside = not os.environ.get("KUBECONFIG") and is_in_cluster()
        return cls.in_cluster(**options) if inside else cls.from_kubeconfig(**options)

    @classmethod
    def from_config(cls, config: ClientConfig, **options: Any) -> Self:
        """Make a client of a configuration, over HTTP."""
        from .http import HttpTransport  # noqa: PLC0415  # clients in process do without

        return cls(HttpTransport(config), namespace=config.namespace, **options)

    @classmethod
    def for_transport(cls, transport: Any, user: Any = None, **options: Any) -> Self:
        """Make a client of a transport, or of the handler of a server within this process, whose `user` asks."""
        from .inprocess import InProcess  # noqa: PLC0415

        made = transport if hasattr(transport, "aclose") else InProcess(transport, user)
        return cls(made, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections, watches and streams included. What `as_user` returned does not end them."""
        if self._owns:
            await self._caller.transport.aclose()

    @property
    def transport(self) -> Transport:
        """What carries the requests."""
        return self._caller.transport

    @property
    def pods(self) -> Pods:
        """What only pods have: logs, exec, port-forward, eviction and binding."""
        if self._pods is None:
            from .pods import Pods  # noqa: PLC0415

            self._pods = Pods(self._caller, self.namespace)
        return self._pods

    def as_user(
        self,
        user: str,
        groups: Sequence[str] = (),
        *,
        uid: str = "",
        extra: Mapping[str, Sequence[str]] | None = None,
    ) -> Client:
        """Return a client by the same connections that acts as another user; ours must be allowed to impersonate."""
        from .http import impersonation_headers  # noqa: PLC0415

        made = object.__new__(Client)
        made._clock, made._managed_fields = self._clock, self._managed_fields
        headers = impersonation_headers(Impersonation(user, groups, uid, extra or {}))
        made._start(self._caller.as_headers(headers), self.namespace, self.field_manager, owns=False)
        return made

    def of(self, kind: type[R]) -> ResourceClient[R]:
        """Return the calls about objects of one type. Raises UnknownKind for a type that is none of a resource."""
        found = self._handles.get(kind)
        if found is None:
            mapping = mapping_of(kind)
            if len(self._handles) >= _MAX_HANDLES:
                self._handles.clear()
            found = self._handles[kind] = self._handle(lambda _: self._codec(kind), mapping)
        return cast("ResourceClient[R]", found)

    def _codec(self, kind: type[R]) -> Codec[R]:
        if self._managed_fields:
            return TypedCodec(kind)
        from .lean import LeanCodec  # noqa: PLC0415  # seldom needed

        return LeanCodec(TypedCodec(kind))

    def dynamic(self, api_version: str, kind: str) -> ResourceClient[dict[str, Any]]:
        """Return the calls about objects of a kind without a type, as dictionaries; discovery says where they are."""
        return self._handle(DictCodec, lambda: self.discovery.find(api_version, kind))

    def metadata_of(self, kind: type[Resource]) -> ResourceClient[PartialObject]:
        """Return the calls about objects' metadata alone, of which the server sends no more."""
        return self._handle(PartialCodec, mapping_of(kind))

    def _handle(self, codec: Any, mapping: Any) -> ResourceClient[Any]:
        return ResourceClient(
            self._caller,
            codec,
            mapping,
            namespace=self.namespace,
            field_manager=self.field_manager,
            clock=self._clock,
        )

    def list_watch(
        self, kind: type[R], namespace: str = "*", *, labels: Selector = "", fields: Selector = ""
    ) -> ListWatch[R]:
        """Return what a reflector lists and watches by, of all namespaces unless one is given."""
        from .lister import ListWatch  # noqa: PLC0415  # only for informers

        return ListWatch(self._caller, mapping_of(kind), TypedCodec(kind), namespace, labels=labels, fields=fields)

    async def request(self, method: str, target: str, body: bytes = b"", *, content_type: str = "") -> bytes:
        """Send any request and return the answer as bytes. target: path, percent-encoded, and query."""
        return await self._caller.call(method, target, body, content_type=content_type)

    async def scale(self, kind: type[Resource], name: str, replicas: int, namespace: str | None = None) -> Scale:
        """Set how many replicas there shall be, and return the scale; works for custom resources that have one too."""
        from pilothouse.kinds.structs import Scale, decode  # noqa: PLC0415  # seldom needed

        target = mapping_of(kind).item(name, namespace or self.namespace, "scale")
        body, content_type = patch_body({"spec": {"replicas": replicas}})
        return decode(await self._caller.call("PATCH", target, body, content_type=content_type), Scale)

    async def create_token(
        self, account: str, namespace: str | None = None, *, audiences: Sequence[str] = (), seconds: int | None = None
    ) -> TokenRequest:
        """Have a token made for a service account; it is in `status.token`. seconds: how long it shall hold."""
        from pilothouse.kinds.structs import ServiceAccount, TokenRequest, decode  # noqa: PLC0415  # seldom needed

        target = mapping_of(ServiceAccount).item(account, namespace or self.namespace, "token")
        spec: dict[str, Any] = {"audiences": [*audiences]} | ({} if seconds is None else {"expirationSeconds": seconds})
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return decode(await self._caller.call("POST", target, msgspec.json.encode(body)), TokenRequest)

    async def version(self) -> dict[str, str]:
        """Return the server's version, as `/version` has it."""
        return msgspec.json.decode(await self._caller.call("GET", "/version"), type=dict[str, str])

    # The same by type: `client.get(Pod, "web")`.

    @overload
    async def get(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        raw: Literal[False] = False,
    ) -> R: ...

    @overload
    async def get(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        raw: Literal[True],
    ) -> bytes: ...

    async def get(
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        raw: bool = False,
    ) -> R | bytes:
        """Return one object; raw: as bytes. Raises NotFound."""
        if raw:
            return await self.of(kind).get(name, namespace, resource_version=resource_version, raw=True)
        return await self.of(kind).get(name, namespace, resource_version=resource_version)

    def list(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        limit: int = PAGE_SIZE,
    ) -> AsyncGenerator[R, None]:
        """Give all objects, page by page; "*" is all namespaces. See `ResourceClient.list`."""
        return self.of(kind).list(namespace, labels=labels, fields=fields, limit=limit)

    async def list_all(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        limit: int = PAGE_SIZE,
    ) -> Sequence[R]:
        """Return all objects; "*" is all namespaces."""
        return await self.of(kind).list_all(namespace, labels=labels, fields=fields, limit=limit)

    async def create(self, value: R, namespace: str | None = None, *, dry_run: bool = False) -> R:
        """Create an object and return it as the server keeps it. Raises AlreadyExists."""
        return await self.of(type(value)).create(value, namespace, dry_run=dry_run)

    async def update(self, value: R, namespace: str | None = None, *, dry_run: bool = False) -> R:
        """Replace an object and return it as the server keeps it. Raises Conflict where it has changed meanwhile."""
        return await self.of(type(value)).update(value, namespace, dry_run=dry_run)

    async def update_status(self, value: R, namespace: str | None = None, *, dry_run: bool = False) -> R:
        """Replace an object's status. Raises Conflict where the object has changed meanwhile."""
        return await self.of(type(value)).update_status(value, namespace, dry_run=dry_run)

    async def apply(
        self,
        value: R,
        namespace: str | None = None,
        *,
        force: bool = False,
        field_manager: str = "",
        dry_run: bool = False,
    ) -> R:
        """Apply an object by server-side apply. Raises Conflict where others own its fields, unless `force`."""
        handle = self.of(type(value))
        return await handle.apply(value, namespace, force=force, field_manager=field_manager, dry_run=dry_run)

    async def patch(
        self,
        kind: type[R],
        name: str,
        patch: Patch,
        namespace: str | None = None,
        *,
        subresource: str = "",
        dry_run: bool = False,
    ) -> R:
        """Change parts of an object: a dictionary is a merge patch, a list a JSON patch; see `patches`."""
        return await self.of(kind).patch(name, patch, namespace, subresource=subresource, dry_run=dry_run)

    async def delete(  # noqa: PLR0913
        self,
        kind: type[R],
        name: str,
        namespace: str | None = None,
        *,
        propagation: Propagation | None = None,
        grace_seconds: int | None = None,
        uid: str = "",
        resource_version: str = "",
        dry_run: bool = False,
    ) -> R | None:
        """Delete an object; see `ResourceClient.delete`."""
        return await self.of(kind).delete(
            name,
            namespace,
            propagation=propagation,
            grace_seconds=grace_seconds,
            uid=uid,
            resource_version=resource_version,
            dry_run=dry_run,
        )

    async def delete_collection(
        self,
        kind: type[Resource],
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        propagation: Propagation | None = None,
    ) -> None:
        """Delete all objects that are selected."""
        await self.of(kind).delete_collection(namespace, labels=labels, fields=fields, propagation=propagation)

    def watch(  # noqa: PLR0913
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        labels: Selector = "",
        fields: Selector = "",
        since: str = "",
        resume: bool = False,
        bookmarks: bool = False,
        timeout_seconds: int = 0,
        idle_seconds: float = IDLE_SECONDS,
    ) -> AsyncGenerator[ObjectEvent[R], None]:
        """Give the changes of objects as they happen; see `ResourceClient.watch`."""
        return self.of(kind).watch(
            namespace,
            labels=labels,
            fields=fields,
            since=since,
            resume=resume,
            bookmarks=bookmarks,
            timeout_seconds=timeout_seconds,
            idle_seconds=idle_seconds,
        )
