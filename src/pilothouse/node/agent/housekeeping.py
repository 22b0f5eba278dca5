"""What a node does beside running pods: rotates logs, removes images, and ends pods when it is short of something."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pilothouse.client.errors import ClientError
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import ApiStatus
from pilothouse.node.errors import NodeError, NotFound
from pilothouse.node.runtime import ImageStatus

from .imagegc import ImageUse
from .logrotation import rotate
from .machine import read_resources
from .model import KillPod
from .pressure import Pressure, Reading, Shortage, eviction_message, shortages, victim

if TYPE_CHECKING:
    from .host import Host
    from .worker import PodWorker

__all__ = ["Housekeeping"]

_log = get_logger("pilothouse.node.agent")


class Housekeeping:
    """The loops of one node; each runs until it is cancelled. `read` looks what the machine has left."""

    def __init__(
        self,
        host: Host,
        workers: Callable[[], Iterable[PodWorker]],
        metrics: Metrics,
        read: Callable[[str], Reading] = read_resources,
    ) -> None:
        self._host = host
        self._workers = workers
        self.read = read
        self._use = ImageUse()
        self.pressure = Pressure(host.options.thresholds.calm_seconds)
        self.images: list[ImageStatus] = []
        """What is on the disk, as it was seen last."""
        self._evictions = metrics.counter("pilothouse_node_evictions_total", "Pods ended by shortage", ("resource",))
        self._rotations = metrics.counter("pilothouse_node_rotations_total", "Logs of containers rotated")

    async def rotate_logs(self) -> None:
        """Look at all logs every few seconds."""
        options = self._host.options
        while True:
            await self._host.clock.sleep(options.log_look_seconds)
            try:
                await self.rotate_once()
            except (NodeError, OSError) as error:
                _log.warning("logs not rotated", error=str(error))

    async def rotate_once(self) -> None:
        """Rotate what is too large. Raises `NodeError`, `OSError`."""
        options, now = self._host.options, self._host.clock.now()
        for container in await self._host.runtime.list_containers():
            if container.state != "Running":
                continue
            done = await rotate(
                self._host.runtime, container, now, max_bytes=options.log_bytes, max_files=options.log_files
            )
            if done:
                self._rotations.inc()

    async def watch_resources(self) -> None:
        """Look for shortages every few seconds, and end pods while there is one."""
        while True:
            await self._host.clock.sleep(self._host.options.thresholds.look_seconds)
            try:
                await self.relieve()
            except (NodeError, OSError, ApiStatus, ClientError) as error:
                _log.warning("shortages not looked for", error=str(error))

    async def relieve(self) -> None:
        """Look once, and end at most one pod. Raises `NodeError`, `OSError`."""
        limits = self._host.options.thresholds
        found = shortages(await asyncio.to_thread(self.read, self._host.root), limits)
        now = self._host.now()
        self.pressure.saw(found, now)
        if not found:
            return
        shortage = found[0]
        if shortage.resource == "ephemeral-storage" and await self.remove_images(everything=True):
            return
        usage = await self._usage(shortage)
        running = {
            worker.pod.metadata.uid: worker
            for worker in self._workers()
            if not worker.life.finished and not worker.life.is_ending
        }
        chosen = victim([worker.pod for worker in running.values()], usage, shortage.resource)
        if chosen is None:
            return
        uid = chosen.metadata.uid
        message = eviction_message(shortage, chosen, usage.get(uid, 0))
        self._evictions.labels(shortage.resource).inc()
        self._host.recorder.warning(chosen, "Evicted", message)
        running[uid].take(KillPod(reason="Evicted", message=message, grace=0.0, condition="TerminationByKubelet"))

    async def _usage(self, shortage: Shortage) -> dict[str, int]:
        usage: dict[str, int] = {}
        owners = self._host.owners
        for container in await self._host.runtime.list_containers():
            owner = owners.get(container.sandbox_id)
            if owner is None:
                continue
            try:
                stats = await self._host.runtime.container_stats(container.id)
            except NotFound:
                continue
            files = stats.filesystem.used_bytes if stats.filesystem is not None else 0
            used = stats.memory_working_set_bytes if shortage.resource == "memory" else files
            uid = owner.pod.metadata.uid
            usage[uid] = usage.get(uid, 0) + used
        return usage

    async def sweep_images(self) -> None:
        """Look at the images now and then."""
        while True:
            try:
                await self.remove_images()
            except (NodeError, OSError) as error:
                _log.warning("images not looked at", error=str(error))
            await self._host.clock.sleep(self._host.options.sweep_seconds)

    async def look_at_images(self) -> set[str]:
        """Take note of the images and return those that containers have. Raises `NodeError`."""
        self.images = list(await self._host.runtime.images.list())
        containers = await self._host.runtime.list_containers()
        in_use = {each.image_id for each in containers} | {each.image for each in containers}
        self._use.saw(self.images, in_use, self._host.now())
        return in_use

    async def remove_images(self, *, everything: bool = False) -> bool:
        """Remove unused images where the disk is full; return whether any was removed. Raises `NodeError`."""
        in_use = await self.look_at_images()
        usage = await self._host.runtime.images.filesystem()
        limits = self._host.options.thresholds
        total, free = usage.capacity_bytes, usage.available_bytes
        if everything:
            free = 0
        chosen = self._use.to_remove(self.images, in_use, limits, total=total, free=free, now=self._host.now())
        for image in chosen:
            await self._host.runtime.images.remove(image.id)
            _log.info("image removed: the disk is full", image=(image.tags or (image.id,))[0], bytes=image.size)
        return bool(chosen)
