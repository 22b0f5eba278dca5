"""A controller: informers fill its queue, workers take from it and have the reconciler do the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Map
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from pilothouse.client.deadline import is_being_cancelled, within
from pilothouse.client.errors import BadAnswer
from pilothouse.client.indexer import IndexFunction
from pilothouse.client.informer import Informer
from pilothouse.client.listener import Listener
from pilothouse.client.metrics import Sample, register
from pilothouse.client.packed import reads_head
from pilothouse.client.ratelimit import ExponentialLimiter, RateLimiter
from pilothouse.client.workqueue import QueueShutDownError, WorkQueue
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import Conflict
from pilothouse.kinds.structs import Resource

from .applying import Applier
from .context import Context
from .deadlines import Deadlines
from .errors import TerminalError
from .handlers import Enqueue, Mapping, itself
from .loop import Failed, LoopCore, LoopOptions, Outcome, Retry, RetryAfter, Step, Succeeded, Unconverged
from .metrics import ControllerMetrics
from .pacing import Pacing
from .predicates import Predicate
from .reconciler import Reconciler, Request, Result

if TYPE_CHECKING:
    from pilothouse.client.resourceclient import ResourceClient

    from .manager import Manager

__all__ = ["Controller", "ControllerOptions", "Source"]

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

_LEASE_PAUSE_SECONDS: Final = 1.0
"""Until it is looked again whether a lease that ran out while the process stood still is ours after all."""

_log = get_logger("pilothouse.operator.controller")


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerOptions:
    """How a controller works.

    concurrency: reconciles side by side, each of another object. rate_limit: of requests that failed; by default as in
    controller-runtime, 5 ms doubled up to 1,000 s for each object, and no bucket for all of them. timeout_seconds:
    after which a reconcile that does not return is cancelled and counted as failed; 0 is never. fair: namespaces take
    turns. loop: when a request counts as not converging. field_manager: of what is applied, the controller's name by
    default. pacing_seconds: between the beginnings of two reconciles of one object; what changes meanwhile is looked at
    once.
    """

    concurrency: int = 1
    rate_limit: RateLimiter[Request] | None = None
    timeout_seconds: float = 300.0
    fair: bool = False
    loop: LoopOptions | None = None
    field_manager: str = ""
    pacing_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency: {self.concurrency}; want 1 or more")
        if self.timeout_seconds < 0:
            raise ValueError(f"timeout_seconds: {self.timeout_seconds}; want seconds, or 0 for no limit")
        if self.pacing_seconds < 0:
            raise ValueError(f"pacing_seconds: {self.pacing_seconds}; want seconds, or 0 for no pacing")


@dataclass(frozen=True, slots=True)
class Source:
    """What a controller looks at: objects of a kind, which events of them, and whose requests these are."""

    kind: type[Resource]
    mapping: Mapping[Any]
    predicate: Predicate[Any] | None = None


class Controller(Generic[R]):
    """Runs a reconciler for one kind. Made by a builder, started and stopped by its manager."""

    def __init__(
        self,
        manager: Manager,
        name: str,
        kind: type[R],
        reconciler: Reconciler[R],
        sources: Iterable[Source],
        options: ControllerOptions,
    ) -> None:
        self.name: Final = name
        self.kind: Final = kind
        self.options: Final = options
        self.reconciler: Final = reconciler
        clock = manager.clock
        self.queue: Final[WorkQueue[Request]] = WorkQueue(
            name,
            limiter=options.rate_limit or ExponentialLimiter(),
            group=_namespace_of if options.fair else None,
            clock=clock,
            metrics=manager.metrics,
        )
        self.core: Final[LoopCore[Request]] = LoopCore(options.loop or manager.loop)
        self.metrics: Final = ControllerMetrics(name, options.concurrency)
        self.sources: Final = [*sources]
        self._manager = manager
        self._clock = clock
        self._recorder = manager.recorder(name)
        self._applier = Applier(manager.client, options.field_manager or name)
        self._informer = manager.informer(kind)
        self._informers = [manager.informer(source.kind) for source in self.sources]
        self._listeners: list[Listener[Any]] = []
        self._watched: set[Informer[Any]] = set()
        self._workers: set[asyncio.Task[None]] = set()
        self._deadlines = Deadlines(clock, options.timeout_seconds)
        self._pacing: Pacing[Request] = Pacing(options.pacing_seconds)
        self._stopping = False
        register(self, manager.metrics)

    def __repr__(self) -> str:
        return f"<Controller {self.name} of {self.kind.__name__}: {self.queue!r}>"

    def start(self) -> None:
        """Listen and begin to work; the caches are filled. Raises RuntimeError for one that was stopped."""
        if self._stopping:
            raise RuntimeError(f"controller {self.name}: it was stopped; make a new one")
        for source, informer in zip(self.sources, self._informers, strict=True):
            self._listen(informer, source.mapping, source.predicate, source.kind.__name__)
        for number in range(self.options.concurrency):
            self._begin_worker(number)

    async def watch(
        self,
        resource: ResourceClient[T],
        mapping: Callable[[T], Iterable[Request]],
        *,
        labels: str = "",
        indexers: Map[str, IndexFunction[T]] | None = None,
    ) -> Informer[T]:
        """From now on also look at objects that have no type, which `Client.dynamic` gives; return their cache.

        For kinds that are known only while it runs. A second time for the same objects is fine. mapping: whose requests
        they are. labels: a selector. Raises UnknownKind, RuntimeError for one that does not run.
        """
        if self._stopping or not self._workers:
            raise RuntimeError(f"controller {self.name}: it does not run; watch from its reconciles")
        informer = await self._manager.follow(resource, labels=labels, indexers=indexers)
        if informer not in self._watched:
            self._watched.add(informer)
            self._listen(informer, mapping, None, informer.name)
        return informer

    async def stop(self, seconds: float) -> None:
        """Take no more requests and wait for those that are being worked on; after `seconds` they are cancelled."""
        self._stopping = True
        for listener in self._listeners:
            listener.remove()
        self.queue.shut_down()
        try:
            if self._workers and seconds > 0:
                async with within(self._clock, seconds, f"controller {self.name}"):
                    await asyncio.wait(self._workers)
        except TimeoutError:
            _log.error("controller stopped hard", controller=self.name, working=self.queue.processing, seconds=seconds)
        finally:
            for worker in self._workers:
                worker.cancel()
            if self._workers:
                await asyncio.wait(self._workers)
            self._deadlines.close()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued, being worked on, or on its way to the queue."""
        return not (len(self.queue) or self.queue.processing or any(each.pending for each in self._listeners))

    @property
    def has_synced(self) -> bool:
        """Whether it was told of everything that was there at its start."""
        return bool(self._listeners) and all(each.has_synced for each in self._listeners)

    def unconverged(self) -> list[Unconverged]:
        """Return the requests that do not converge now."""
        return self.core.unconverged(self._clock.monotonic())

    def samples(self) -> Iterable[Sample]:
        """Return the controller's figures."""
        return self.metrics.samples(len(self.core.failing()), len(self.unconverged()))

    def _listen(
        self, informer: Informer[Any], mapping: Mapping[Any], predicate: Predicate[Any] | None, what: str
    ) -> None:
        handler = Enqueue(self.queue, mapping, predicate, self._clock, by_key=mapping is itself)
        # Where keys and heads tell all that is wanted, objects are not read before they are reconciled.
        light = reads_head(mapping) and (predicate is None or reads_head(predicate))
        add = informer.add_packed_handler if light else informer.add_handler
        self._listeners.append(add(handler, name=f"{self.name} {what}"))

    def _begin_worker(self, number: int) -> None:
        task = asyncio.get_running_loop().create_task(self._work(), name=f"controller {self.name} worker {number}")
        self._workers.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._workers.discard(task)
            if not self._stopping:
                # Only what cancels tasks that are not its own comes here: a controller must not lose its workers.
                _log.error("a worker had ended; beginning anew", controller=self.name, end=_end_of(task))
                self._begin_worker(number)

        task.add_done_callback(ended)

    async def _work(self) -> None:
        queue = self.queue
        while not self._stopping:
            try:
                request = await queue.get()
            except QueueShutDownError:
                return
            try:
                early = self._pacing.wait(request, self._clock.monotonic())
                if early:
                    queue.add_after(request, early)
                elif not self._manager.may_work:
                    queue.add_after(request, _LEASE_PAUSE_SECONDS, priority=queue.priority_of(request))
                elif not self._stopping:
                    await self._handle(request)
            finally:
                queue.done(request)

    async def _handle(self, request: Request) -> None:
        metrics, clock = self.metrics, self._clock
        began = clock.monotonic()
        metrics.active += 1
        key, obj = str(request), None
        tries = self.queue.num_requeues(request)
        try:
            obj = self._manager.writes(self.kind).get(key, self._informer.indexer.get(key))
            outcome = await self._outcome(request, obj, tries)
        except BadAnswer as error:  # the object does not fit its type
            outcome = self._failure(request, error, late=False)
        finally:
            metrics.active -= 1
            metrics.seconds.observe(clock.monotonic() - began)
        metrics.count(outcome)
        step = self.core.ended(request, outcome, clock.monotonic())
        # What failed among thousands of an initial list does not go before what really changes.
        if isinstance(step.action, Retry):
            self.queue.add_rate_limited(request, priority=self.queue.priority_of(request))
        elif tries:
            self.queue.forget(request)
        if isinstance(step.action, RetryAfter):
            self.queue.add_after(request, step.action.seconds, priority=self.queue.priority_of(request))
        elif obj is None and isinstance(outcome, Succeeded):
            self.core.forget(request)
        if step.report is not None or step.recovered:
            self._tell(request, step)

    async def _outcome(self, request: Request, obj: R | None, tries: int) -> Outcome:
        deadlines, task, late = self._deadlines, cast("asyncio.Task[Any]", asyncio.current_task()), False
        deadlines.begin(task)
        try:
            try:
                result = await self._call(request, obj, tries)
            finally:
                late = deadlines.end(task)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_being_cancelled():
                raise
            return self._failure(request, error, late=late)
        return Succeeded(None if result is None else result.requeue_after)

    async def _call(self, request: Request, obj: R | None, tries: int) -> Result | None:
        context = Context(request, tries, self._manager, self._applier, self._recorder, self._clock)
        if obj is None:
            result = await self.reconciler.removed(request, context)
        else:
            result = await self.reconciler.reconcile(obj, context)
        if result is not None and not isinstance(result, Result):
            raise TypeError(f"reconcile returned {type(result).__name__}; return Result(...) or None")
        return result

    def _failure(self, request: Request, error: BaseException, *, late: bool) -> Failed:
        shown = f"{type(error).__name__}: {error}"
        if isinstance(error, TerminalError):
            _log.error("reconcile failed for good", controller=self.name, request=str(request), error=shown)
            return Failed(shown, "terminal")
        if late:
            shown = f"it did not return within {self.options.timeout_seconds:g} s and was cancelled"
            _log.error("reconcile timed out", controller=self.name, request=str(request), error=shown)
            return Failed(shown, "timeout")
        if isinstance(error, Conflict):  # the cache was behind; the next try sees more
            _log.info("reconcile met a conflict", controller=self.name, request=str(request), error=shown)
        else:
            expected = isinstance(error, OSError) or type(error).__module__.startswith("pilothouse.")
            _log.error(
                "reconcile failed",
                controller=self.name,
                request=str(request),
                error=shown,
                exc_info=None if expected else error,
            )
        return Failed(shown)

    def _tell(self, request: Request, step: Step) -> None:
        report = step.report
        if report is None:
            _log.info("an object converges again", controller=self.name, request=str(request))
            return
        _log.error(
            "an object does not converge",
            controller=self.name,
            request=str(request),
            count=report.reconciles,
            failures=report.failures,
            seconds=round(report.seconds, 1),
            last_error=report.last_error,
        )


def _namespace_of(request: Request) -> str:
    return request.namespace


def _end_of(task: asyncio.Task[None]) -> str:
    return "cancelled from outside" if task.cancelled() else repr(task.exception())
