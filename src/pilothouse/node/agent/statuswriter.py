"""Writes pods' statuses: of each pod the newest only, one after the other, and so many pods at once."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from pilothouse.client import Client
from pilothouse.client.errors import ClientError
from pilothouse.client.patches import StrategicPatch
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, Conflict, NotFound
from pilothouse.kinds.structs import to_dict
from pilothouse.kinds.structs.core_pod_status import PodStatus
from pilothouse.kinds.structs.core_pods import Pod

__all__ = ["StatusWriter", "status_patch"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_log = get_logger("pilothouse.node.agent")


class StatusWriter:
    """Takes statuses with `put` and writes them in tasks of the running loop; `start` and `stop`.

    A status that is not written yet is replaced by a newer one of the same pod, so at most one of each pod waits. What
    the server does not take is tried again, unless the pod is gone or another one.
    """

    def __init__(self, client: Client, clock: Clock, *, writers: int = 16) -> None:
        self._pods = client.of(Pod)
        self._clock = clock
        self._writers = writers
        self._waiting: dict[str, tuple[Pod, PodStatus]] = {}
        self._queue: deque[str] = deque()
        self._busy: set[str] = set()
        self._wake = asyncio.Event()
        self._idle: dict[str, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.written = 0
        self.failed = 0

    def start(self) -> None:
        """Begin to write."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._run(), name="pod statuses") for _ in range(self._writers)]

    async def stop(self) -> None:
        """End at once; what waits is not written."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for future in self._idle.values():
            future.cancel()
        self._idle.clear()

    @property
    def waiting(self) -> int:
        """How many pods' statuses wait to be written."""
        return len(self._waiting)

    def put(self, pod: Pod, status: PodStatus) -> None:
        """Write a status, later; an older one that waits is forgotten."""
        uid = pod.metadata.uid
        if uid not in self._waiting and uid not in self._busy:
            self._queue.append(uid)
            self._wake.set()
        self._waiting[uid] = (pod, status)

    async def flushed(self, uid: str) -> None:
        """Wait until nothing of a pod waits to be written."""
        if uid in self._waiting or uid in self._busy:
            future = self._idle.get(uid)
            if future is None:
                future = self._idle[uid] = asyncio.get_running_loop().create_future()
            await asyncio.shield(future)

    async def _run(self) -> None:
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            uid = self._queue.popleft()
            found = self._waiting.pop(uid, None)
            if found is None:
                continue
            self._busy.add(uid)
            try:
                await self._write(*found)
            finally:
                self._busy.discard(uid)
            self._after(uid)

    def _after(self, uid: str) -> None:
        if uid in self._waiting:
            self._queue.append(uid)
            self._wake.set()
            return
        future = self._idle.pop(uid, None)
        if future is not None and not future.done():
            future.set_result(None)

    async def _write(self, pod: Pod, status: PodStatus) -> None:
        """Write one status, as long as none newer has come."""
        meta = pod.metadata
        pause = _FIRST_PAUSE
        while True:
            try:
                patch = StrategicPatch(status_patch(pod, status))
                await self._pods.patch(meta.name, patch, meta.namespace, subresource="status")
            except (NotFound, Conflict):
                return  # it is gone, or another pod has its name
            except (ApiStatus, OSError, ClientError) as error:
                self.failed += 1
                _log.warning(
                    "pod status not written; trying again", pod=f"{meta.namespace}/{meta.name}", error=repr(error)
                )
            else:
                self.written += 1
                return
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            pod, status = self._waiting.pop(meta.uid, (pod, status))


def status_patch(pod: Pod, status: PodStatus) -> dict[str, Any]:
    """Return the patch that makes the API's status this one, and leaves conditions of others alone.

    What is empty is null, so that it goes where it was; lists of addresses are replaced, for they are merged otherwise.
    """
    tree = to_dict(status)
    tree["conditions"] = [_emptied(each) for each in tree.get("conditions", ())]
    for name in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        found = [_lean(each) for each in tree.get(name, ())]
        tree[name] = found or None
    for name in ("podIPs", "hostIPs"):
        tree[name] = [{"$patch": "replace"}, *tree[name]] if tree.get(name) and name == "podIPs" else tree.get(name)
    body = {name: (value if value not in ("", [], None) else None) for name, value in tree.items()}
    return {"metadata": {"uid": pod.metadata.uid}, "status": body}


def _emptied(condition: dict[str, Any]) -> dict[str, Any]:
    return {name: (None if value == "" else value) for name, value in condition.items()}


def _lean(container: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is empty, but for what a container's status always says."""
    found = {name: value for name, value in container.items() if value not in ("", None)}
    for name in ("state", "lastState"):
        found[name] = {
            kind: {key: value for key, value in inner.items() if value != "" and not (key == "signal" and value == 0)}
            for kind, inner in found.get(name, {}).items()
        }
    return found
