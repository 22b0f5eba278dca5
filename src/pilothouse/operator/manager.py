"""The manager: runs controllers on shared caches, leads or waits, says how it is, and stops in time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.factory import SYNC_SECONDS, SharedInformerFactory
from pilothouse.client.indexer import IndexFunction
from pilothouse.client.informer import Informer, InformerOptions
from pilothouse.client.leaderelection import LeaderElector, LeaseLock
from pilothouse.client.metrics import Sample, register
from pilothouse.client.packed import of_head
from pilothouse.client.recorder import ClientEventSink, EventBroadcaster, EventRecorder
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import Resource

from .companions import Companion, Companions
from .errors import BuildError
from .health import Check, HealthServer, Page, run_checks
from .loop import LoopOptions
from .owners import controller_of
from .ownwrites import OwnWrites
from .scheme import Scheme

if TYPE_CHECKING:
    from pilothouse.client.resourceclient import ResourceClient
    from pilothouse.foundation.metrics import Metrics

    from .controllers import Controller
    from .webhook_options import WebhookOptions
    from .webhook_server import Webhooks

__all__ = ["LeaderElection", "Manager"]

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

GRACE_SECONDS: Final = 30.0
_FLUSH_SECONDS: Final = 2.0
_CONTROLLER: Final = "controller"
_ORPHANS: Final = "none in "

_log = get_logger("pilothouse.operator.manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderElection:
    """How one of several copies of an operator leads: by a lease of this name.

    namespace: of the lease, the client's by default. identity: that no other copy has, made by default.
    """

    name: str
    namespace: str = ""
    identity: str = ""
    options: ElectionOptions | None = None


class Manager:
    """Runs the controllers that builders give it, until it is stopped.

    `await manager.run(signals=True)` is a whole operator; `async with manager:` runs it beside other code.

    scheme: which types are known. namespace: of all caches, "*" for all. leader_election: controllers work only while
    this copy leads; caches are filled before. health_address: HOST:PORT of /healthz, /readyz and /metrics, none by
    default; health_tls where that is not loopback. webhooks: where servers reach those that builders give it; each
    copy serves them, leading or not. grace_seconds: for reconciles that go on when it is stopped, and all else of the
    stop. sync_seconds: for the first fill of the caches. loop: of controllers that say nothing else.
    """

    def __init__(  # noqa: PLR0913  all but one have a default
        self,
        client: Client,
        *,
        scheme: Scheme | None = None,
        namespace: str = "*",
        leader_election: LeaderElection | None = None,
        health_address: str = "",
        health_tls: ssl.SSLContext | None = None,
        webhooks: WebhookOptions | None = None,
        grace_seconds: float = GRACE_SECONDS,
        sync_seconds: float = SYNC_SECONDS,
        loop: LoopOptions | None = None,
        informers: InformerOptions | None = None,
        clock: Clock | None = None,
        ids: Ids | None = None,
        source: random.Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.client: Final = client
        self.scheme: Final = scheme or Scheme()
        self.namespace: Final = namespace
        self.clock: Final[Clock] = clock or SystemClock()
        self.metrics: Final = metrics
        self.grace_seconds: Final = grace_seconds
        self.factory: Final = SharedInformerFactory(
            client, namespace=namespace, options=informers, clock=self.clock, source=source, metrics=metrics
        )
        ids = ids or SystemIds()
        self.elector: Final = self._elector(leader_election, ids, source)
        self._events = EventBroadcaster(ClientEventSink(client), clock=self.clock, source=source, metrics=metrics)
        self.loop: Final = loop
        self._sync_seconds = sync_seconds
        self._controllers: dict[str, Controller[Any]] = {}
        self.companions: Final = Companions(self.clock)
        self._caches: dict[type[Resource], Informer[Any]] = {}
        self._followed: dict[Informer[Any], tuple[ResourceClient[Any], str]] = {}
        self._writes: dict[type[Resource], OwnWrites[Any]] = {}
        self._checks: dict[str, Check] = {}
        self._used = False
        self._synced = False
        self._leading = False
        self._failure: BaseException | None = None
        self._started = asyncio.Event()
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self.webhooks: Final = self._webhook_server(webhooks, ids, source)
        self.health: Final = self._health_server(health_address, health_tls)
        register(self, metrics)

    def __repr__(self) -> str:
        state = "leading" if self._leading else "running" if self._used else "not started"
        return f"<Manager of {', '.join(self._controllers) or 'no controllers'}: {state}>"

    # What builders and reconcilers use

    @property
    def controllers(self) -> list[Controller[Any]]:
        """The controllers, in the order in which they were built."""
        return [*self._controllers.values()]

    def add(self, controller: Controller[Any]) -> None:
        """Take a controller, as `build` does. Raises BuildError where the name is taken or the manager runs."""
        if self._used:
            raise BuildError(f"controller {controller.name}: the manager runs already; build controllers before")
        if controller.name in self._controllers:
            raise BuildError(
                f"controller {controller.name}: there is one of this name; name the other: controller(manager, 'name')"
            )
        self._controllers[controller.name] = controller

    def add_companion(self, companion: Companion) -> None:
        """Have something run beside the controllers. Raises BuildError where the name is taken or the manager runs."""
        if self._used:
            raise BuildError(f"companion {companion.name}: the manager runs already; add companions before")
        self.companions.add(companion)

    def informer(self, kind: type[R]) -> Informer[R]:
        """Return the shared cache of a kind, made where there is none. Raises NotRegistered."""
        found = self.known(kind)
        if found is None:
            self.scheme.check(kind)
            found = self._caches[kind] = self.factory.informer(kind)
        return found

    def caches(self) -> Mapping[type[Resource], Informer[Any]]:
        """Return all shared caches by kind."""
        return self._caches

    def known(self, kind: type[R]) -> Informer[R] | None:
        """Return the shared cache of a kind, None where there is none."""
        return self._caches.get(kind)

    def cached(self, kind: type[R]) -> Informer[R]:
        """Return the shared cache of a kind. Raises NotRegistered, and BuildError where there is none."""
        found = self.known(kind)
        if found is None:
            self.scheme.check(kind)
            name = kind.__name__
            raise BuildError(
                f"there is no cache of {name}: say owns({name}) or watches({name}, ...) when the controller is built, "
                f"call manager.informer({name}) before it runs, or ask the server by context.client"
            )
        return found

    def index(self, kind: type[R], name: str, function: IndexFunction[R]) -> None:
        """Have the shared cache of a kind, made where there is none, find objects by what a function says of each.

        Read it by `Context.indexed`. A second time with the same name is fine. Raises NotRegistered.
        """
        indexer = self.informer(kind).indexer
        if name not in indexer.indexes:
            indexer.add_indexers({name: function})

    async def follow(
        self,
        resource: ResourceClient[T],
        *,
        labels: str = "",
        indexers: Mapping[str, IndexFunction[T]] | None = None,
    ) -> Informer[T]:
        """Return the shared cache of what a client's `dynamic` or `metadata_of` gave, made where there is none.

        For kinds that are known only while it runs; it is filled as the server answers, see `Informer.wait_synced`.
        Raises UnknownKind.
        """
        found = await self.factory.informer_for(resource, labels=labels, indexers=indexers)
        self._followed[found] = resource, labels
        return found

    def followed(self) -> Mapping[Informer[Any], tuple[ResourceClient[Any], str]]:
        """Return the caches that `follow` made, and the calls and selectors that they were made of."""
        return self._followed

    def controlled(self, kind: type[R], uid: str, namespace: str = "") -> list[R]:
        """Return the objects of a cache that the owner of this UID controls; without a UID those that nobody does.

        Our own writes are seen. namespace: of orphans, which are looked for in one. Raises as `cached`.
        """
        indexer = self.cached(kind).indexer
        if _CONTROLLER not in indexer.indexes:
            indexer.add_indexers({_CONTROLLER: _controller_uid})
        value = uid or _ORPHANS + namespace
        return self.writes(kind).merged(
            indexer.by_index(_CONTROLLER, value), lambda obj: value in _controller_uid(obj), indexer.get
        )

    def writes(self, kind: type[R]) -> OwnWrites[R]:
        """Return what was written of a kind that its cache may not have yet. Raises as `cached`."""
        found = self._writes.get(kind)
        if found is None:
            informer = self.cached(kind)
            found = self._writes[kind] = OwnWrites(lambda: informer.resource_version)
        return found

    def recorder(self, component: str) -> EventRecorder:
        """Return what a component records events with."""
        return self._events.recorder(component)

    def add_check(self, name: str, check: Check) -> None:
        """Add a check to /healthz: it returns what is wrong, and an empty text otherwise."""
        self._checks[name] = check

    # Life

    async def run(self, *, signals: bool = False) -> None:
        """Run until `stop` is called; signals: SIGINT and SIGTERM stop it, a second one at once.

        Raises CacheSyncError where caches cannot be filled in time, LeadershipLostError where the lease was lost (end
        the process then), OperatorError where an address is taken. Cancelled, it ends without the grace.
        """
        if self._used:
            raise RuntimeError("this manager ran already; make a new one")
        self._used = True
        with self._signals() if signals else contextlib.nullcontext():
            main: asyncio.Task[None] | None = None
            try:
                if self.health is not None:
                    await self.health.start()
                if self.webhooks is not None:
                    # Before the caches: servers may have to convert what these list.
                    await self.webhooks.start()
                self._events.start()
                self.factory.start()
                main = asyncio.get_running_loop().create_task(self._main(), name="manager")
                await self._until_stopped(main)
            except BaseException as error:
                self._failure = error
                raise
            finally:
                self._started.set()
                await _finish(self._end(main))

    def stop(self) -> None:
        """Have `run` end: no new reconciles, those that go on get the grace, then the lease is given back."""
        self._stop.set()

    async def wait_started(self) -> None:
        """Wait until the controllers work, which without leadership is never. Raises what `run` does if it ends."""
        await self._started.wait()
        if self._failure is not None:
            raise self._failure

    async def __aenter__(self) -> Self:
        self._running = asyncio.get_running_loop().create_task(self._run_quietly(), name="run manager")
        try:
            if self.elector is None:
                await self.wait_started()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()
        task, self._running = self._running, None
        if task is None:
            return
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise

    async def _run_quietly(self) -> None:
        with contextlib.suppress(Exception):  # `wait_started` and `failure` have it
            await self.run()

    @property
    def failure(self) -> BaseException | None:
        """What `run` ended with, None if nothing."""
        return self._failure

    # How it is

    @property
    def is_leading(self) -> bool:
        """Whether its controllers work now."""
        return self._leading

    @property
    def may_work(self) -> bool:
        """Whether a reconcile may begin: not where the lease ran out unnoticed, while the process stood still."""
        return self.elector is None or self.elector.is_leader

    def problems(self) -> list[str]:
        """Return what is not well: watchers, the lease, objects that do not converge. Begins anew what has died."""
        found = [str(problem) for problem in self.factory.problems()]
        if self.elector is not None and (problem := self.elector.problem()):
            found.append(problem)
        for controller in self.controllers:
            found += [f"controller {controller.name}: {one}" for one in controller.unconverged()]
        found += self.companions.problems()
        if self.webhooks is not None:
            found += self.webhooks.problems()
        return found

    def samples(self) -> Iterable[Sample]:
        """Return the manager's figures."""
        name, text = "leader_election_master_status", "Whether this copy leads, 1, or waits, 0"
        if self.elector is not None:
            yield Sample("gauge", name, text, {"name": self.elector.core.identity}, int(self.elector.is_leader))

    # Inside

    async def _main(self) -> None:
        await self.factory.wait_for_sync(self._sync_seconds)
        self._synced = True
        if self.elector is None:
            await self._lead()
        else:
            await self.elector.run(self._lead)

    async def _lead(self) -> None:
        self._leading = True
        if self.webhooks is not None:
            self.webhooks.wake()
        try:
            self.companions.start()
            for controller in self.controllers:
                controller.start()
            self._started.set()
            await _first(self._stop.wait(), self.companions.wait_failed())
            # The lease is renewed meanwhile: no other copy begins before the last reconcile has ended.
            await self._stop_work(self.grace_seconds * 0.8)
        finally:
            await _finish(self._stop_work(0.0))
            self._leading = False

    async def _stop_work(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        await asyncio.gather(*(controller.stop(seconds) for controller in self.controllers))
        await self.companions.stop(end - self.clock.monotonic())

    async def _until_stopped(self, main: asyncio.Task[None]) -> None:
        stopping = asyncio.get_running_loop().create_task(self._stop.wait())
        try:
            await asyncio.wait([main, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not main.done() and not self._leading:
                main.cancel()
            await asyncio.wait([main])
            if not main.cancelled():
                main.result()
        finally:
            stopping.cancel()

    async def _end(self, main: asyncio.Task[None] | None) -> None:
        if main is not None and not main.done():
            main.cancel()
            await asyncio.wait([main])
        if self.webhooks is not None:
            # After the controllers, whose last writes may be reviewed here.
            await self.webhooks.stop(self.grace_seconds * 0.1)
        await self._events.stop(flush_seconds=min(_FLUSH_SECONDS, self.grace_seconds * 0.1))
        await self.factory.stop()
        if self.health is not None:
            await self.health.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def caught(name: str) -> None:
            if self._stop.is_set() and task is not None:
                _log.warning("stopping at once", signal=name)
                task.cancel()
                return
            _log.info("stopping", signal=name, grace_seconds=self.grace_seconds)
            self.stop()

        caught_signals = (signal.SIGINT, signal.SIGTERM)
        for number in caught_signals:
            loop.add_signal_handler(number, caught, number.name)
        try:
            yield
        finally:
            for number in caught_signals:
                loop.remove_signal_handler(number)

    def _elector(self, election: LeaderElection | None, ids: Ids, source: random.Random | None) -> LeaderElector | None:
        if election is None:
            return None
        lock = LeaseLock(self.client, election.namespace or self.client.namespace, election.name)
        identity = election.identity or f"{socket.gethostname()}_{ids.uuid()}"
        return LeaderElector(lock, identity, election.options, clock=self.clock, source=source)

    def _webhook_server(
        self, options: WebhookOptions | None, ids: Ids, source: random.Random | None
    ) -> Webhooks | None:
        if options is None:
            return None
        from .webhook_server import Webhooks  # noqa: PLC0415  loads what only webhooks need

        return Webhooks(self, options, ids=ids, source=source)

    def _health_server(self, address: str, tls: ssl.SSLContext | None) -> HealthServer | None:
        if not address:
            return None
        pages: dict[str, Callable[[bool], Page]] = {
            "/healthz": lambda verbose: run_checks("healthz", self._health_checks(), verbose=verbose),
            "/readyz": lambda verbose: run_checks("readyz", self._ready_checks(), verbose=verbose),
            "/metrics": self._metrics_page,
        }
        return HealthServer(address, pages, tls)

    def _health_checks(self) -> dict[str, Check]:
        # Where the server cannot be reached a restart does not help, so watchers count for readiness alone.
        elector = self.elector
        own: dict[str, Check] = {} if elector is None else {"leader-election": elector.problem}
        return {"ping": str, **own, **self._checks}

    def _ready_checks(self) -> dict[str, Check]:
        webhooks: dict[str, Check] = {} if self.webhooks is None else {"webhooks": self.webhooks.problem}
        companions: dict[str, Check] = {f"companion-{each.name}": each.problem for each in self.companions}
        return {
            "caches": lambda: "" if self._synced else "caches are not filled yet",
            "watchers": lambda: "; ".join(map(str, self.factory.problems())),
            "stopping": lambda: "it is being stopped" if self._stop.is_set() else "",
            **webhooks,
            **companions,
        }

    def _metrics_page(self, _: bool) -> Page:
        from pilothouse.foundation.metrics import CONTENT_TYPE, PROGRAM  # noqa: PLC0415  loads the library

        return Page(200, (self.metrics or PROGRAM).exposition(), CONTENT_TYPE)


@of_head
def _controller_uid(obj: Resource) -> Iterable[str]:
    found = controller_of(obj)
    return (_ORPHANS + obj.metadata.namespace,) if found is None else (found.uid,)


async def _first(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is over, and leave the others."""
    tasks = [asyncio.get_running_loop().create_task(each) for each in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in tasks:
            each.cancel()


async def _finish(work: Any) -> None:
    """Do work to its end, even if whoever waits for it is cancelled: that comes after."""
    task = asyncio.ensure_future(work)
    late: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            late = error
    task.result()
    if late is not None:
        raise late
