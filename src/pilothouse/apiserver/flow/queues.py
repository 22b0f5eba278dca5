"""Fair queues: the flows of one priority level wait in a few queues each, and each queue gets the same time."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FairQueues", "Queue", "QueueConfig", "Waiting", "deal", "hash_flow"]


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """How many queues there are, how many of them one flow may use, and how many requests wait in one at most."""

    queues: int
    hand_size: int
    length_limit: int


def hash_flow(schema: str, flow: str) -> int:
    """Return 64 bits that stand for a flow; the same in every run."""
    digest = hashlib.sha256(f"{schema},{flow}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def deal(value: int, deck: int, hand: int) -> tuple[int, ...]:
    """Deal `hand` different numbers below `deck`, each such hand as likely as any other (shuffle sharding)."""
    rests = []
    for size in range(deck, deck - hand, -1):
        value, rest = divmod(value, size)
        rests.append(rest)
    dealt: list[int] = []
    for rest in rests:
        card = rest
        for taken in sorted(dealt):
            if taken <= card:
                card += 1
        dealt.append(card)
    return tuple(dealt)


class Queue:
    """One queue. `start`: the time, in seats times seconds, that it had until now."""

    __slots__ = ("executing", "index", "start", "waiting")

    def __init__(self, index: int) -> None:
        self.index = index
        self.waiting: OrderedDict[int, Waiting] = OrderedDict()
        self.executing = 0
        self.start = 0.0


class Waiting:
    """A request in a queue. `grant` is called once, when it gets its seat, and says whether it still wants it."""

    __slots__ = ("grant", "queue")

    def __init__(self, queue: Queue, grant: Callable[[], bool]) -> None:
        self.queue = queue
        self.grant = grant


class FairQueues:
    """The queues of one priority level: start-time fair queuing over them.

    Each request is charged `estimate` seconds when it is taken and what it really used when it is done, so that a
    queue with slow requests does not get more time than one with quick ones.
    """

    estimate = 0.003

    def __init__(self, config: QueueConfig) -> None:
        self.config = config
        self.length = 0
        """Requests waiting in all queues."""
        self._queues: dict[int, Queue] = {}
        self._active: dict[int, Queue] = {}
        self._virtual = 0.0

    def configure(self, config: QueueConfig) -> None:
        """Go by another configuration; who waits already stays in the queue."""
        self.config = config

    def enter(self, hand: tuple[int, ...], grant: Callable[[], bool]) -> Waiting | None:
        """Let a request wait in the shortest queue of its hand; None where that one is full."""
        index = min(hand, key=self._load)
        queue = self._queues.get(index)
        if queue is None:
            queue = self._queues[index] = Queue(index)
        if len(queue.waiting) >= self.config.length_limit:
            return None
        if not queue.waiting:
            # Time that a queue did not ask for is not owed to it.
            queue.start = max(queue.start, self._virtual)
            self._active[index] = queue
        waiting = Waiting(queue, grant)
        queue.waiting[id(waiting)] = waiting
        self.length += 1
        return waiting

    def _load(self, index: int) -> int:
        queue = self._queues.get(index)
        return 0 if queue is None else len(queue.waiting) + queue.executing

    def leave(self, waiting: Waiting) -> None:
        """Forget a request that no longer wants to wait."""
        if waiting.queue.waiting.pop(id(waiting), None) is not None:
            self.length -= 1
            self._tidy(waiting.queue)

    def take(self) -> Waiting:
        """Take the next request: the oldest of the queue that had the least time. There must be one."""
        queue = min(self._active.values(), key=lambda each: each.start)
        _, waiting = queue.waiting.popitem(last=False)
        self.length -= 1
        self._virtual = max(self._virtual, queue.start)
        queue.start += self.estimate
        queue.executing += 1
        self._tidy(queue)
        return waiting

    def done(self, queue: Queue, seconds: float) -> None:
        """Charge a queue for a request that is done."""
        queue.executing -= 1
        queue.start += max(seconds, 0.0) - self.estimate
        self._tidy(queue)

    def _tidy(self, queue: Queue) -> None:
        """Drop a queue that nobody uses and that owes nothing, so that few remain when the configuration shrinks."""
        if queue.waiting:
            return
        self._active.pop(queue.index, None)
        if not queue.executing and queue.start <= self._virtual:
            self._queues.pop(queue.index, None)
