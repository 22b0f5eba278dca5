"""The control plane for tests: a whole API server in this process, fresh and gone again within milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from collections.abc import Awaitable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from pilothouse.apiserver.access.pki import Pki
from pilothouse.apiserver.http import InProcessTransport
from pilothouse.apiserver.model import Answer, Request, User
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.server import ApiServer
from pilothouse.foundation.clock import Clock, FakeClock
from pilothouse.foundation.files import FileSystem, OsFileSystem
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.memoryfiles import MemoryFileSystem
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import ApiStatus
from pilothouse.store import EmbeddedStore, StoreOptions
from pilothouse.testing.bootstrap import knows_services, remember, remember_services, seed
from pilothouse.testing.caller import Caller, Object, user_of
from pilothouse.testing.serving import Serving

if TYPE_CHECKING:
    from pilothouse.testing.blocking import BlockingPlane, LoopThread

__all__ = ["ControlPlane"]

_ADMIN = User("kubernetes-admin", groups=("system:masters", "system:authenticated"))
_DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
_API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
_MEMORY = "/memory"
_EMPTY = 1
"""The revision of a store that nobody has written to."""


class ControlPlane(Caller):
    """A fresh Kubernetes API with garbage collection, namespace deletion, default accounts and custom resources.

    `async with ControlPlane() as plane` runs it in the running loop, `with ControlPlane() as plane` in a thread of
    its own and gives a `BlockingPlane`. It is ready when the block begins, and nothing of it is left when the block
    ends. Calls on it are the cluster administrator's; `as_user` asks as somebody else.

    data_dir: where to keep everything; in memory without one. A directory that has been used before goes on. clock,
    ids: instead of the machine's; what the server waits for happens when a fake clock is moved. lifecycle: whether
    controllers run; without them it is a bare API server. options: anything else that a server can be told.
    Raises StoreError where the directory cannot be used.
    """

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        lifecycle: bool = True,
        options: ServerOptions | None = None,
    ) -> None:
        self._root = _MEMORY if data_dir is None else os.path.abspath(data_dir)
        self._files: FileSystem = MemoryFileSystem() if data_dir is None else OsFileSystem()
        self.token: str = SystemIds().token()
        """What the administrator shows as bearer token over HTTPS."""
        given = options or ServerOptions(metrics=Metrics())
        self.options: ServerOptions = dataclasses.replace(
            given,
            clock=clock or given.clock,
            ids=ids or given.ids,
            lifecycle=lifecycle,
            tokens={**given.tokens, self.token: _ADMIN},
        )
        self._pki = Pki(os.path.join(self._root, "pki"), files=self._files)
        self._used = False
        self._opening: asyncio.Task[EmbeddedStore] | None = None
        self._server: ApiServer | None = None
        self._serving: Serving | None = None
        self._learning: asyncio.Task[None] | None = None
        self._thread: LoopThread | None = None
        super().__init__(InProcessTransport(self._handle), _ADMIN)

    def __repr__(self) -> str:
        where = "in memory" if self._root == _MEMORY else f"in {self._root}"
        return f"<ControlPlane {where}, {'running' if self._server is not None else 'not running'}>"

    @property
    def server(self) -> ApiServer:
        """The API server itself. Raises RuntimeError outside of the block."""
        if self._server is None:
            raise RuntimeError("this control plane is not running; use it inside of its `with` or `async with` block")
        return self._server

    @property
    def transport(self) -> InProcessTransport:
        """Requests without sockets, for clients that can be given a transport; each says who asks."""
        return self._transport

    @property
    def kubeconfig(self) -> str:
        """The path of a kubeconfig of the administrator; the first use begins to serve HTTPS on loopback.

        In an asyncio program the server answers while the loop turns: a client that blocks wants a thread, or the
        plain `with`.
        """
        return self._served().kubeconfig

    @property
    def url(self) -> str:
        """Where HTTPS is served, begun with the first use."""
        return self._served().url

    @property
    def ca(self) -> bytes:
        """The certificate of the cluster's CA, PEM."""
        return self._pki.read("ca.crt")

    def as_user(self, name: str, groups: Iterable[str] = ()) -> Caller:
        """Return calls as another user, who may do what RBAC grants; `system:serviceaccount:NS:NAME` is an account."""
        return Caller(self._transport, user_of(name, groups))

    async def advance(self, seconds: float) -> None:
        """Move the plane's fake clock and let everything happen that falls due. Raises TypeError for a real clock."""
        clock = self.options.clock
        if not isinstance(clock, FakeClock):
            raise TypeError("clock: this control plane has a real one; pass `clock=FakeClock()` to move it by hand")
        await clock.run(seconds)

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __enter__(self) -> BlockingPlane:
        from pilothouse.testing.blocking import BlockingPlane, LoopThread  # noqa: PLC0415  # they import this module

        self._thread = LoopThread()
        try:
            self._thread.call(self.__aenter__())
        except BaseException:
            self._thread.close()
            raise
        return BlockingPlane(self, self._thread)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            thread.call(self._close())
        finally:
            thread.close()

    def _begin(self) -> None:
        if self._used:
            raise RuntimeError("this control plane was used before; make another `ControlPlane` for each block")
        self._used = True

    async def _start(self) -> None:
        options = self.options
        # Threads cannot be stopped: whoever is cancelled now waits, when it closes, for what they open.
        self._opening = asyncio.get_running_loop().create_task(self._open())
        store = await asyncio.shield(self._opening)
        fresh = (await store.status()).revision == _EMPTY
        seeded = await seed(store, options.clock, options.ids) if fresh else 0
        self._server = server = ApiServer(store, options, pki=self._pki)
        await server.start()
        await server.background.wait_started()
        if fresh and not seeded and not options.platform:
            remember(server)
        if fresh and not knows_services():
            self._learning = asyncio.get_running_loop().create_task(self._learn_services(server))
        if options.lifecycle:
            await self.wait_for(_DEFAULT_ACCOUNT)

    async def _learn_services(self, server: ApiServer) -> None:
        registry = server.catalogue.registry
        names = {f"{version}.{group}" for group in registry.groups() for version in registry.versions(group)}
        with contextlib.suppress(ApiStatus, TimeoutError):
            await self.wait_for(_API_SERVICES, lambda found: names <= set(map(_available, found)))
            remember_services(server, names)

    async def _open(self) -> EmbeddedStore:
        options = self.options
        await asyncio.to_thread(self._pki.ensure)
        return await EmbeddedStore.open(
            StoreOptions(
                data_dir=os.path.join(self._root, "store"),
                filesystem=self._files,
                clock=options.clock,
                ids=options.ids,
                metrics=options.metrics,
            )
        )

    async def _close(self) -> None:
        """End all of it, even if whoever waits for it is cancelled: that comes after."""
        ending = asyncio.get_running_loop().create_task(self._end())
        late: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                late = error
        ending.result()
        if late is not None:
            raise late

    async def _end(self) -> None:
        serving, self._serving = self._serving, None
        server, self._server = self._server, None
        opening, self._opening = self._opening, None
        learning, self._learning = self._learning, None
        if learning is not None:
            learning.cancel()
            await asyncio.wait([learning])
        try:
            if serving is not None:
                await serving.close()
        finally:
            try:
                if server is not None:
                    await server.close()
            finally:
                if opening is not None:
                    await asyncio.wait([opening])
                    if opening.exception() is None:
                        await opening.result().close()

    def _handle(self, request: Request) -> Answer | Awaitable[Answer]:
        return self.server.handle(request)

    def _served(self) -> Serving:
        if self._serving is None:
            self._serving = Serving(self.server.handle, self._pki, self.token)
        return self._serving


def _available(service: Object) -> str:
    """Return the name of an APIService that is found to be available, else nothing."""
    conditions = service.get("status", {}).get("conditions", ())
    good = any(each["type"] == "Available" and each["status"] == "True" for each in conditions)
    return str(service["metadata"]["name"]) if good else ""
