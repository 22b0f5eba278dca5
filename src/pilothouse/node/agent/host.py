"""What the pods of one node share: runtime, ports, writer, recorder, prober, and who owns which sandbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from pilothouse.client import Client
from pilothouse.client.errors import ClientError
from pilothouse.client.recorder import EventRecorder
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import ApiStatus, Conflict, NotFound
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.runtime import Runtime

from .options import AgentOptions
from .ports import Ports
from .prober import Prober
from .statuses import NodeFacts
from .statuswriter import StatusWriter

if TYPE_CHECKING:
    from .worker import PodWorker

__all__ = ["Host"]

_PAUSE, _LONGEST = 0.5, 30.0
_log = get_logger("pilothouse.node.agent")


class Host:
    """Everything around pods; made by the agent alone."""

    def __init__(  # noqa: PLR0913  what pods share
        self,
        client: Client,
        runtime: Runtime,
        options: AgentOptions,
        clock: Clock,
        ports: Ports,
        recorder: EventRecorder,
        facts: NodeFacts,
        metrics: Metrics,
        memory_capacity: int,
    ) -> None:
        self.client = client
        self.runtime = runtime
        self.options = options
        self.clock = clock
        self.ports = ports
        self.recorder = recorder
        self.facts = facts
        self.memory_capacity = memory_capacity
        self.root = options.root
        self.statuses = StatusWriter(client, clock, writers=options.writers)
        self.prober = Prober(runtime, clock)
        self.pulls = asyncio.Semaphore(options.pulls)
        self.owners: dict[str, PodWorker] = {}
        """Which pod has which sandbox."""
        self.on_finish: Callable[[PodWorker], None] = lambda worker: None
        self._probes = metrics.counter(
            "pilothouse_node_probes_total", "Probes of containers by kind and answer", ("kind", "result")
        )

        self._starts = metrics.histogram(
            "pilothouse_node_pod_start_seconds", "From a pod's being seen to its first running container"
        )

    def started(self, seconds: float) -> None:
        """Note how long a pod took to run."""
        self._starts.observe(seconds)

    def now(self) -> float:
        """Return the wall time in seconds since the epoch."""
        return self.clock.now().timestamp()

    def count_probe(self, kind: str, result: str) -> None:
        """Count a probe."""
        self._probes.labels(kind, result).inc()

    async def delete(self, pod: Pod) -> bool:
        """Remove a pod that has ended from the API; True once it is gone. Tries as long as it takes."""
        meta = pod.metadata
        pause = _PAUSE
        while True:
            try:
                await self.client.delete(Pod, meta.name, meta.namespace, grace_seconds=0, uid=meta.uid)
            except (NotFound, Conflict):
                return True
            except (ApiStatus, OSError, ClientError) as error:
                _log.warning("pod not deleted; trying again", pod=f"{meta.namespace}/{meta.name}", error=repr(error))
            else:
                return True
            await self.clock.sleep(pause)
            pause = min(pause * 2, _LONGEST)
