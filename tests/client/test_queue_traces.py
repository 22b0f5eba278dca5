"""The delta queue and the work queue, replayed from traces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client.deltaqueue import Delta, DeltaQueue, KeyedDeltaQueue
from pilothouse.client.indexer import Indexer
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.ratelimit import ExponentialLimiter
from pilothouse.client.workqueue import WorkQueue
from pilothouse.foundation.clock import FakeClock
from support.informerkit import obj
from support.traces import replay, traces_in


class Deltas:
    """A delta queue with a cache behind it, as an informer has them."""

    def __init__(self) -> None:
        self.cache: Indexer[Any] = Indexer()
        self.queue: DeltaQueue[Any] | KeyedDeltaQueue[Any] = DeltaQueue(self.cache)

    def command(self, name: str, words: list[str]) -> list[str]:
        if name == "new":
            self.cache = Indexer()
            self.queue = KeyedDeltaQueue(self.cache) if words == ["by-key"] else DeltaQueue(self.cache)
        elif name == "process":
            return self.process(int(words[0]) if words else 1_000)
        elif name == "replace":
            self.queue.replace([self.read(word) for word in words])
        elif name == "resync":
            self.queue.resync()
        elif name == "state":
            cached = " ".join(f"{key.removeprefix('ns/')}@{version(self.cache.get(key))}" for key in self.cache.keys())  # noqa: SIM118
            return [f"cache [{cached}] queued {len(self.queue)} synced {self.queue.has_synced}"]
        else:
            getattr(self.queue, name)(self.read(words[0]))
        return []

    @staticmethod
    def read(word: str) -> Any:
        name, _, number = word.partition("@")
        return obj(name, number)

    def process(self, limit: int) -> list[str]:
        lines = []

        def take(deltas: Sequence[Delta], initial: bool) -> None:
            for kind, key, found in deltas:
                tombstone = isinstance(found, DeletedFinalStateUnknown)
                last = found.object if tombstone else found
                shown = f"{key.removeprefix('ns/')}@{version(last)}"
                lines.append(f"{kind} {shown}{' tombstone' if tombstone else ''}{' initial' if initial else ''}")
                if kind == "Deleted":
                    self.cache.remove(key)
                else:
                    self.cache.put(key, found)

        self.queue.process(take, limit)
        return lines


def version(found: Any) -> str:
    return str(found["metadata"]["resourceVersion"])


class Work:
    """A work queue and a clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.make([])

    def make(self, words: list[str]) -> None:
        group = (lambda key: key.partition("/")[0]) if "fair" in words else None
        self.queue: WorkQueue[str] = WorkQueue(clock=self.clock, limiter=ExponentialLimiter(), group=group)

    def command(self, name: str, words: list[str]) -> list[str]:
        priority = next((int(word.removeprefix("priority=")) for word in words if word.startswith("priority=")), 0)
        match name:
            case "new":
                self.make(words)
            case "time":
                self.clock.advance(float(words[0]))
            case "add":
                self.queue.add(words[0], priority=priority)
            case "add-after":
                self.queue.add_after(words[0], float(words[1]), priority=priority)
            case "add-rate-limited":
                self.queue.add_rate_limited(words[0], priority=priority)
                return [f"failures {self.queue.num_requeues(words[0])}"]
            case "forget":
                self.queue.forget(words[0])
            case "done":
                self.queue.done(words[0])
            case "shut-down":
                self.queue.shut_down()
            case _:
                return self.asked(name, words)
        return []

    def asked(self, name: str, words: list[str]) -> list[str]:
        queue = self.queue
        match name:
            case "get":
                return [queue.get_nowait() or "nothing"]
            case "priority":
                return [str(queue.priority_of(words[0]))]
        return [f"queued {len(queue)} processing {queue.processing} later {queue.waiting}"]


@pytest.mark.parametrize("path", traces_in("client", "deltas"), ids=lambda path: path.stem)
def test_deltas(path: Path) -> None:
    replay(path, Deltas().command)


@pytest.mark.parametrize("path", traces_in("client", "workqueue"), ids=lambda path: path.stem)
def test_work(path: Path) -> None:
    replay(path, Work().command)
