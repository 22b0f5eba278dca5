"""The work queue: each key once, never to two workers at a time, again later, by priority, fair if asked, drained."""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar, cast

from pilothouse.client.metrics import Distribution, Sample, register
from pilothouse.client.ratelimit import RateLimiter, default_limiter
from pilothouse.foundation.clock import Clock, SystemClock, Timer

if TYPE_CHECKING:
    from pilothouse.foundation.metrics import Metrics

__all__ = ["LOW_PRIORITY", "QueueFullError", "QueueShutDownError", "WorkQueue"]

K = TypeVar("K", bound=Hashable)

LOW_PRIORITY: Final = -100
"""For keys of initial lists and resyncs, as in controller-runtime: what really changes goes first."""

MAX_KEYS: Final = 1_000_000


class QueueShutDownError(Exception):
    """The queue was shut down and is empty: the worker can end."""


class QueueFullError(Exception):
    """The queue holds as many keys as it may."""


class _Line(Generic[K]):
    """The keys of one priority, oldest first."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: OrderedDict[K, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def push(self, key: K) -> None:
        self._keys[key] = None

    def pop(self) -> K:
        return self._keys.popitem(last=False)[0]

    def discard(self, key: K) -> None:
        self._keys.pop(key, None)


class _FairLine(Generic[K]):
    """The keys of one priority: a key of each group in turn, oldest first within a group."""

    __slots__ = ("_count", "_group", "_groups")

    def __init__(self, group: Callable[[K], Hashable]) -> None:
        self._group = group
        self._groups: OrderedDict[Hashable, OrderedDict[K, None]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, key: K) -> None:
        keys = self._groups.setdefault(self._group(key), OrderedDict())
        if key not in keys:
            keys[key] = None
            self._count += 1

    def pop(self) -> K:
        group, keys = self._groups.popitem(last=False)
        key = keys.popitem(last=False)[0]
        self._count -= 1
        if keys:
            self._groups[group] = keys
        return key

    def discard(self, key: K) -> None:
        group = self._group(key)
        keys = self._groups.get(group)
        if keys is not None and key in keys:
            del keys[key]
            self._count -= 1
            if not keys:
                del self._groups[group]


class WorkQueue(Generic[K]):
    """Keys to be worked on, each once however often it is added.

    A key that is added while it is worked on comes again when that is done: queued keys are dirty, and no queued key is
    being worked on. Higher priorities first; a key that waits takes the highest priority it was added with. All of it
    belongs to the event loop's thread.

    name: of metrics; without one there are none. limiter: of `add_rate_limited`, client-go's by default. group: of a
    key, such as its namespace; of each group one key in turn. max_keys: beyond, `add` raises QueueFullError.
    """

    def __init__(
        self,
        name: str = "",
        *,
        limiter: RateLimiter[K] | None = None,
        group: Callable[[K], Hashable] | None = None,
        clock: Clock | None = None,
        max_keys: int = MAX_KEYS,
        metrics: Metrics | None = None,
    ) -> None:
        self.name: Final = name
        self._clock = clock or SystemClock()
        self._now = self._clock.monotonic
        self._limiter = limiter if limiter is not None else cast("RateLimiter[K]", default_limiter(self._clock))
        self._group = group
        self._max_keys = max_keys
        self._dirty: dict[K, int] = {}
        self._processing: dict[K, float] = {}
        self._taken: dict[K, int] = {}
        """With which priority a key was taken, where it was not 0."""
        self._lines: dict[int, _Line[K] | _FairLine[K]] = {}
        self._priorities: list[int] = []
        self._usual = self._line(0)
        self._queued = 0
        self._getters: deque[asyncio.Future[None]] = deque()
        self._drained: list[asyncio.Future[None]] = []
        self._shutting_down = False
        self._draining = False
        self._waiting: dict[K, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._order = 0
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._since: dict[K, float] | None = {} if name else None
        self._adds = self._retries = self._refused = 0
        self._queue_time, self._work_time = Distribution(), Distribution()
        if name:
            register(self, metrics)

    def __len__(self) -> int:
        """Return the keys that wait for a worker; not those worked on or to come later."""
        return self._queued

    def __repr__(self) -> str:
        return f"<WorkQueue {self.name!r}: {self._queued} queued, {len(self._processing)} processing>"

    @property
    def processing(self) -> int:
        """The keys that are being worked on."""
        return len(self._processing)

    @property
    def waiting(self) -> int:
        """The keys that are to come later."""
        return len(self._waiting)

    @property
    def shutting_down(self) -> bool:
        """Whether it was shut down: what is added is ignored."""
        return self._shutting_down

    def add(self, key: K, *, priority: int = 0) -> None:
        """Have a key worked on. Ignored after a shutdown. Raises QueueFullError."""
        if self._shutting_down:
            return
        dirty = self._dirty
        wanted = dirty.get(key)
        if wanted is not None:
            if priority > wanted:
                self._raise_priority(key, wanted, priority)
            return
        if len(dirty) >= self._max_keys:
            self._refused += 1
            raise QueueFullError(
                f"work queue {self.name or 'without a name'}: it holds {self._max_keys} keys; workers do not keep up, "
                "or something adds keys of objects that there are not"
            )
        dirty[key] = priority
        self._adds += 1
        if self._since is not None:
            self._since[key] = self._now()
        if key not in self._processing:
            self._push(key, priority)

    def add_after(self, key: K, seconds: float, *, priority: int = 0) -> None:
        """Have a key worked on after a while; of several times the earliest counts. Raises QueueFullError."""
        if self._shutting_down:
            return
        self._retries += 1
        if seconds <= 0:
            self.add(key, priority=priority)
            return
        ready = self._now() + seconds
        known = self._waiting.get(key)
        if known is None:
            if len(self._waiting) >= self._max_keys:
                self._refused += 1
                raise QueueFullError(f"work queue {self.name}: {self._max_keys} keys are to come later already")
        else:
            priority = max(priority, known[1])
            if known[0] <= ready:
                self._waiting[key] = known[0], priority
                return
        self._waiting[key] = ready, priority
        self._order += 1
        heapq.heappush(self._heap, (ready, self._order, key))
        if len(self._heap) > 2 * len(self._waiting) + 64:
            self._tidy()
        self._arm()

    def add_rate_limited(self, key: K, *, priority: int = 0) -> None:
        """Have a key worked on when the limiter says. Raises QueueFullError."""
        self.add_after(key, self._limiter.when(key), priority=priority)

    def forget(self, key: K) -> None:
        """Have the limiter forget a key's failures; it stays in the queue."""
        self._limiter.forget(key)

    def priority_of(self, key: K) -> int:
        """Return the priority with which a key that is being worked on was taken, to add it again with the same one."""
        return self._taken.get(key, 0)

    def num_requeues(self, key: K) -> int:
        """Return how often a key was added rate-limited since it was forgotten."""
        return self._limiter.num_requeues(key)

    async def get(self) -> K:
        """Wait for a key and take it; call `done` with it afterwards. Raises QueueShutDownError."""
        while not self._queued:
            if self._shutting_down:
                raise QueueShutDownError(f"work queue {self.name}: shut down")
            await self._turn()
        return self._pop()

    def get_nowait(self) -> K | None:
        """Take a key, or None where none is queued; call `done` with it afterwards."""
        return self._pop() if self._queued else None

    def done(self, key: K) -> None:
        """Say that a key was worked on; if it was added meanwhile, it is queued again."""
        began = self._processing.pop(key, None)
        if began is None:
            return
        if self._taken:
            self._taken.pop(key, None)
        if self._since is not None:
            self._work_time.observe(self._now() - began)
        wanted = self._dirty.get(key)
        if wanted is not None:
            self._push(key, wanted)
        elif self._draining and not self._queued and not self._processing:
            self._tell_drained()

    def shut_down(self) -> None:
        """Take no more keys; workers get what is queued and then QueueShutDownError. Ends a drain that waits."""
        self._end()
        self._draining = False
        self._tell_drained()

    async def shut_down_with_drain(self) -> None:
        """Take no more keys and wait until all that are queued or worked on are done. Needs workers that go on."""
        self._end()
        self._draining = True
        if not self._queued and not self._processing:
            return
        drained = asyncio.get_running_loop().create_future()
        self._drained.append(drained)
        await drained

    def samples(self) -> Iterable[Sample]:
        """Return the queue's figures, named as client-go's are."""
        labels, now = {"name": self.name}, self._now()
        running = [now - began for began in self._processing.values()]
        for kind, name, text, value in (
            ("gauge", "depth", "Keys that wait for a worker", self._queued),
            ("counter", "adds_total", "Keys added, those that were there already not counted", self._adds),
            ("counter", "retries_total", "Keys added for later", self._retries),
            ("counter", "refused_total", "Keys refused because the queue was full", self._refused),
            ("gauge", "unfinished_seconds", "Time that keys being worked on have taken so far, together", sum(running)),
            ("gauge", "longest_running_seconds", "The longest of these times", max(running, default=0.0)),
        ):
            yield Sample(kind, f"pilothouse_client_workqueue_{name}", text, labels, value)  # type: ignore[arg-type]
        for name, text, times in (
            ("queue_seconds", "From the first add to a worker", self._queue_time),
            ("work_seconds", "From a worker's get to its done", self._work_time),
        ):
            yield Sample("histogram", f"pilothouse_client_workqueue_{name}", text, labels, times)

    def _line(self, priority: int) -> _Line[K] | _FairLine[K]:
        line: _Line[K] | _FairLine[K] = _Line() if self._group is None else _FairLine(self._group)
        self._lines[priority] = line
        self._priorities = sorted(self._lines, reverse=True)
        return line

    def _push(self, key: K, priority: int) -> None:
        if priority:
            (self._lines.get(priority) or self._line(priority)).push(key)
        else:
            self._usual.push(key)
        self._queued += 1
        if self._getters:
            self._wake()

    def _pop(self) -> K:
        line = self._usual
        if len(self._priorities) > 1:
            for priority in self._priorities:
                line = self._lines[priority]
                if line:
                    if len(line) == 1 and priority:
                        self._drop(priority)
                    break
        key = line.pop()
        self._queued -= 1
        priority = self._dirty.pop(key)
        if priority:
            self._taken[key] = priority
        if self._since is None:
            self._processing[key] = 0.0
        else:
            self._processing[key] = now = self._now()
            self._queue_time.observe(now - self._since.pop(key))
        return key

    def _drop(self, priority: int) -> None:
        """Forget the line of a priority that nothing is left of."""
        del self._lines[priority]
        self._priorities.remove(priority)

    def _raise_priority(self, key: K, before: int, priority: int) -> None:
        self._dirty[key] = priority
        if key in self._processing:
            return
        line = self._lines[before]
        line.discard(key)
        if before and not line:
            self._drop(before)
        self._queued -= 1
        self._push(key, priority)

    async def _turn(self) -> None:
        """Wait until there may be something to get."""
        turn = asyncio.get_running_loop().create_future()
        self._getters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                if self._queued:
                    self._wake()
            elif turn in self._getters:
                self._getters.remove(turn)
            raise

    def _wake(self) -> None:
        while self._getters:
            turn = self._getters.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _end(self) -> None:
        self._shutting_down = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self._heap.clear()
        while self._getters:
            self._wake()

    def _tell_drained(self) -> None:
        drained, self._drained = self._drained, []
        for future in drained:
            if not future.done():
                future.set_result(None)

    def _arm(self) -> None:
        """Set the one timer to the earliest time."""
        if not self._heap:
            return
        ready = self._heap[0][0]
        if self._timer is not None:
            if self._timer_at <= ready:
                return
            self._timer.cancel()
        self._timer_at = ready
        self._timer = self._clock.call_later(max(ready - self._now(), 0.0), self._due)

    def _due(self) -> None:
        self._timer = None
        now = self._now()
        while self._heap and self._heap[0][0] <= now + 1e-6:
            ready, _, key = heapq.heappop(self._heap)
            known = self._waiting.get(key)
            if known is None or known[0] != ready:
                continue  # it came earlier
            del self._waiting[key]
            try:
                self.add(key, priority=known[1])
            except QueueFullError:
                self.add_after(key, 1.0, priority=known[1])
        self._arm()

    def _tidy(self) -> None:
        """Leave the times out that earlier ones have replaced."""
        self._heap = [entry for entry in self._heap if self._waiting.get(entry[2], (None,))[0] == entry[0]]
        heapq.heapify(self._heap)
