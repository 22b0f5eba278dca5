"""Informers shared by all who need them in a program: one for each resource, of one cluster or of several."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar, cast

from pilothouse.client.deadline import within
from pilothouse.client.deltaqueue import Transform
from pilothouse.client.indexer import IndexFunction
from pilothouse.client.informer import Informer, InformerOptions, Problem
from pilothouse.client.listwatch import ListerWatcher, PackingSource
from pilothouse.client.metrics import Sample, register
from pilothouse.foundation.clock import Clock, SystemClock, Timer
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import Resource

if TYPE_CHECKING:
    from pilothouse.client.resourceclient import ResourceClient
    from pilothouse.foundation.metrics import Metrics

__all__ = ["CacheSyncError", "Clusters", "ListWatchClient", "SharedInformerFactory"]

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

ALL_NAMESPACES: Final = "*"
CHECK_SECONDS: Final = 10.0
SYNC_SECONDS: Final = 120.0
_LATE_SECONDS: Final = 5.0
_TELL_SECONDS: Final = 300.0
"""Between two records of what stays unwell."""

_log = get_logger("pilothouse.client.factory")


class CacheSyncError(Exception):
    """Caches were not filled in time; the message says which, and why."""


class ListWatchClient(Protocol):
    """What a factory needs of a client."""

    def list_watch(
        self, kind: type[R], namespace: str = ..., *, labels: str = ..., fields: str = ...
    ) -> ListerWatcher[R]:
        """Return what a reflector lists and watches a kind by."""


class SharedInformerFactory:
    """Makes informers, each resource's once, starts them together and watches over them.

    `async with factory:` starts and in the end stops all. client: gives lister-watchers for typed kinds; others are
    passed to `informer_of`. namespace: of all informers, "*" for all. cluster: a name for logs and metrics, where there
    are several. options: of all informers. check_seconds: how often the watchdog looks whether all of them are well.
    """

    def __init__(  # noqa: PLR0913  what all its informers get, each with a default
        self,
        client: ListWatchClient | None = None,
        *,
        namespace: str = ALL_NAMESPACES,
        cluster: str = "",
        options: InformerOptions | None = None,
        clock: Clock | None = None,
        source: random.Random | None = None,
        metrics: Metrics | None = None,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.cluster: Final = cluster
        self._client = client
        self._namespace = namespace
        self._options = options or InformerOptions()
        self._clock = clock or SystemClock()
        self._source = source
        self._metrics = metrics
        self._check_seconds = check_seconds
        self._informers: dict[Hashable, Informer[Any]] = {}
        self._started = False
        self._timer: Timer | None = None
        self._expected = 0.0
        self._problems: list[Problem] = []
        self._told: dict[str, float] = {}
        self.late_seconds = 0.0
        """How late the watchdog last was: for so long something blocked the event loop."""
        register(self, metrics)

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def informer(
        self,
        kind: type[R],
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        managed_fields: bool = True,
        transform: Transform[R] | None = None,
        indexers: Mapping[str, IndexFunction[R]] | None = None,
    ) -> Informer[R]:
        """Return the informer of a typed kind, the same for the same kind, namespace, selectors and managed fields.

        managed_fields: without them an object is read in a third of the time.
        A later caller may bring further indexers. Raises ValueError for another transform than the first caller's, and
        RuntimeError for a factory without a client.
        """
        where = self._namespace if namespace is None else namespace
        if not kind.namespaced:
            where = ALL_NAMESPACES
        key = (kind, where, labels, fields, managed_fields)
        if key in self._informers:
            return self._shared(key, None, transform, indexers, None)
        made = self._list_watch(kind, where, labels, fields, managed_fields=managed_fields)
        # What does not come from a Client may be anything.
        known: object = made
        accepts = None if isinstance(known, PackingSource) else lambda obj: type(obj) is kind
        return self._shared(key, made, transform, indexers, accepts)

    def informer_of(
        self,
        key: Hashable,
        lister_watcher: ListerWatcher[T] | Callable[[], ListerWatcher[T]],
        *,
        transform: Transform[T] | None = None,
        indexers: Mapping[str, IndexFunction[T]] | None = None,
        accepts: Callable[[T], bool] | None = None,
    ) -> Informer[T]:
        """Return the informer of anything else, such as dictionaries or metadata, the same for the same key."""
        made = None
        if key not in self._informers:
            made = lister_watcher() if callable(lister_watcher) else lister_watcher
        return self._shared(key, made, transform, indexers, accepts)

    async def informer_for(
        self,
        resource: ResourceClient[T],
        *,
        namespace: str | None = None,
        labels: str = "",
        fields: str = "",
        transform: Transform[T] | None = None,
        indexers: Mapping[str, IndexFunction[T]] | None = None,
    ) -> Informer[T]:
        """Return the informer of what a client's `dynamic` or `metadata_of` gave: of dictionaries, or of metadata.

        It asks the server once where objects of a kind are. Raises UnknownKind, and what the client raises.
        """
        where = self._namespace if namespace is None else namespace
        made = await resource.list_watch(where, labels=labels, fields=fields)
        return self.informer_of(made.identity, made, transform=transform, indexers=indexers)

    @property
    def informers(self) -> list[Informer[Any]]:
        """All informers, in the order in which they were made."""
        return [*self._informers.values()]

    def start(self) -> None:
        """Start all informers that are not started, and each later one as it is made."""
        if not self._started:
            self._started = True
            self._arm()
        for informer in self.informers:
            informer.start()

    async def stop(self) -> None:
        """Stop all informers at once; their caches stay readable."""
        self._started = False
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.gather(*(informer.stop() for informer in self.informers))

    async def wait_for_sync(self, seconds: float = SYNC_SECONDS) -> None:
        """Wait until all caches are filled. Raises CacheSyncError, which says which are not and why."""
        waiting = [informer for informer in self.informers if not informer.has_synced]
        try:
            async with within(self._clock, seconds, "caches"):
                for informer in waiting:
                    await informer.wait_synced()
        except TimeoutError:
            late = [informer for informer in waiting if not informer.has_synced]
            shown = "; ".join(f"{informer.name} ({_reason(informer)})" for informer in late)
            raise CacheSyncError(f"caches not filled within {seconds:g} s: {shown}") from None

    def problems(self) -> list[Problem]:
        """Look now, begin anew what has died, and return what is not well; empty is healthy."""
        self._problems = [problem for informer in self.informers for problem in informer.problems()]
        return self._problems

    def samples(self) -> Iterable[Sample]:
        """Return the watchdog's figures."""
        labels = {"cluster": self.cluster}
        unwell = {problem.informer for problem in self._problems}
        for name, text, value in (
            ("unhealthy_informers", "Informers that the watchdog found unwell", float(len(unwell))),
            ("loop_late_seconds", "How late the event loop last called the watchdog", self.late_seconds),
        ):
            yield Sample("gauge", f"pilothouse_client_{name}", text, labels, value)

    def _list_watch(
        self, kind: type[R], namespace: str, labels: str, fields: str, *, managed_fields: bool
    ) -> ListerWatcher[R]:
        if self._client is None:
            raise RuntimeError(f"informer of {kind.__name__}: the factory has no client; pass one, or a lister-watcher")
        found = self._client.list_watch(kind, namespace, labels=labels, fields=fields)
        return found if managed_fields else _lean(found)

    def _shared(
        self,
        key: Hashable,
        lister_watcher: ListerWatcher[T] | None,
        transform: Transform[T] | None,
        indexers: Mapping[str, IndexFunction[T]] | None,
        accepts: Callable[[T], bool] | None,
    ) -> Informer[T]:
        known = self._informers.get(key)
        if known is None and lister_watcher is not None:
            made = Informer(
                lister_watcher,
                options=self._options,
                cluster=self.cluster,
                transform=transform,
                indexers=indexers,
                accepts=accepts,
                clock=self._clock,
                source=self._source,
                metrics=self._metrics,
            )
            self._informers[key] = made
            if self._started:
                made.start()
            return made
        shared = cast("Informer[T]", known)
        if transform is not None and transform is not shared.transform:
            raise ValueError(f"informer {shared.name}: it is shared, with another transform; all must use the same one")
        if indexers:
            shared.indexer.add_indexers(
                {name: made for name, made in indexers.items() if name not in shared.indexer.indexes}
            )
        return shared

    def _arm(self) -> None:
        self._expected = self._clock.monotonic() + self._check_seconds
        self._timer = self._clock.call_later(self._check_seconds, self._check)

    def _check(self) -> None:
        if not self._started:
            return
        self.late_seconds = max(self._clock.monotonic() - self._expected, 0.0)
        if self.late_seconds > _LATE_SECONDS:
            _log.error("the event loop was blocked", cluster=self.cluster, seconds=round(self.late_seconds, 1))
        self._tell(self.problems())
        self._arm()

    def _tell(self, problems: Sequence[Problem]) -> None:
        """Log what is unwell when it begins and now and then while it lasts, and when it is over."""
        now, unwell = self._clock.monotonic(), {problem.informer for problem in problems}
        due = {name for name in unwell if now - self._told.get(name, -_TELL_SECONDS) >= _TELL_SECONDS}
        for problem in problems:
            if problem.informer in due:
                self._told[problem.informer] = now
                _log.error("informer unwell", cluster=self.cluster, problem=str(problem))
        for name in sorted(self._told.keys() - unwell):
            del self._told[name]
            _log.info("informer well again", cluster=self.cluster, informer=name)


class Clusters:
    """Factories of several clusters side by side: started, synced, checked and stopped together; none holds up any."""

    def __init__(self, factories: Mapping[str, SharedInformerFactory]) -> None:
        self._factories = dict(factories)

    def __getitem__(self, cluster: str) -> SharedInformerFactory:
        try:
            return self._factories[cluster]
        except KeyError:
            raise KeyError(f"cluster {cluster}: there is none; known are {', '.join(self._factories)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._factories)

    def __len__(self) -> int:
        return len(self._factories)

    async def __aenter__(self) -> Self:
        for factory in self._factories.values():
            factory.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(factory.stop() for factory in self._factories.values()))

    async def wait_for_sync(self, seconds: float = SYNC_SECONDS) -> dict[str, CacheSyncError]:
        """Wait until the caches of each are filled; return the clusters whose are not, and why."""
        names = [*self._factories]
        results = await asyncio.gather(
            *(factory.wait_for_sync(seconds) for factory in self._factories.values()), return_exceptions=True
        )
        failed: dict[str, CacheSyncError] = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, CacheSyncError):
                failed[name] = result
            elif isinstance(result, BaseException):
                raise result
        return failed

    def problems(self) -> dict[str, list[Problem]]:
        """Return what is not well, by cluster; empty is healthy."""
        found = {name: factory.problems() for name, factory in self._factories.items()}
        return {name: problems for name, problems in found.items() if problems}


def _lean(lister_watcher: ListerWatcher[R]) -> ListerWatcher[R]:
    from pilothouse.client.lister import ListWatch  # noqa: PLC0415  # wants the client's own

    if not isinstance(lister_watcher, ListWatch):
        raise TypeError("managed_fields: only what a Client lists and watches by can leave them out; use a transform")
    return lister_watcher.without_managed_fields()


def _reason(informer: Informer[Any]) -> str:
    if not informer.is_started:
        return "not started"
    error = informer.core.last_error
    return f"{type(error).__name__}: {error}" if error is not None else f"still {informer.core.phase}"
