"""The node agent: follows the pods of its node, gives each a worker, and keeps the node known."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Coroutine, Iterable
from typing import Any

from pilothouse.client import Client
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.recorder import ClientEventSink, EventBroadcaster
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.errors import NodeError
from pilothouse.node.runtime import Runtime, RuntimeStatus

from .admission import refusal
from .adoption import Leftover, leftovers
from .configs import log_directory
from .host import Host
from .housekeeping import Housekeeping
from .machine import addresses, facts
from .model import KillPod, PodGone, PodSeen, SandboxGone, Tick
from .nodeobject import NodeView
from .options import AgentOptions
from .ports import Ports
from .presence import Presence
from .statuses import NodeFacts
from .worker import PodWorker

__all__ = ["Agent"]

_TERMINAL = {"Succeeded", "Failed"}
_SYNC_SECONDS = 60.0
_RUNTIME_PAUSE = 1.0
_FLUSH_SECONDS = 2.0
_log = get_logger("pilothouse.node.agent")


class Agent:
    """Runs the pods of one node. `await run()` until `stop()`; pods run on when it ends.

    The runtime is the caller's: started before, closed afterwards. ports: volumes, environment and the like of other
    parts. Raises nothing while it runs: what fails is logged, tried again and listed by `problems`.
    """

    def __init__(
        self,
        client: Client,
        runtime: Runtime,
        options: AgentOptions,
        *,
        clock: Clock | None = None,
        ports: Ports | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = client
        self._runtime = runtime
        self._options = options
        self._clock = clock or SystemClock()
        self._metrics = metrics or PROGRAM
        self._ports = ports or Ports(options.root)
        self._workers: dict[str, PodWorker] = {}
        self._done: dict[str, Pod] = {}
        self._forgetting: set[str] = set()
        self._gone: set[str] = set()
        self._leftovers: dict[str, Leftover] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        self._failure: BaseException | None = None
        self._factory = SharedInformerFactory(client, clock=self._clock, metrics=self._metrics)
        self._runtime_status = RuntimeStatus(name="", version="", runtime_ready=False, network_ready=False)
        self._broadcaster = EventBroadcaster(ClientEventSink(client), clock=self._clock, metrics=self._metrics)
        self._pods_gauge = self._metrics.gauge("pilothouse_node_agent_pods", "Pods that run on this node")
        self.presence = Presence(client, self._clock, options.name, self._view)

    async def run(self) -> None:
        """Start, work until `stop` is called, and let go of the pods."""
        try:
            await self._start()
            await self._stopping.wait()
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._started.set()
            await self._end()

    def stop(self) -> None:
        """Make `run` end."""
        self._stopping.set()

    async def wait_started(self) -> None:
        """Wait until the node is registered and all its pods are looked after. Raises RuntimeError if that fails."""
        await self._started.wait()
        if self._failure is not None:
            raise RuntimeError(f"node {self._options.name}: the agent has ended") from self._failure

    @property
    def host(self) -> Host:
        """What pods of this node share: for parts that serve their logs and streams. Known once it is started."""
        return self._host

    @property
    def workers(self) -> dict[str, PodWorker]:
        """The pods of this node by uid."""
        return self._workers

    @property
    def ended(self) -> dict[str, Pod]:
        """Pods of this node that were over before this agent saw them, by uid."""
        return self._done

    def problems(self) -> list[str]:
        """Return what is not well, in words; empty is healthy."""
        found = [str(problem) for problem in self._factory.problems()]
        if self._started.is_set() and self._options.register and not self.presence.is_known:
            found.append(f"node {self._options.name}: its lease is not renewed")
        if self._started.is_set() and not self._runtime_status.runtime_ready:
            found.append(f"node {self._options.name}: the runtime is not ready")
        found += [f"task {task.get_name()} ended: {task.exception()!r}" for task in self._tasks if _has_failed(task)]
        return found

    async def _start(self) -> None:
        options = self._options
        os.makedirs(options.root, mode=0o711, exist_ok=True)
        os.makedirs(options.log_root, mode=0o755, exist_ok=True)
        self._facts = await asyncio.to_thread(facts, options.root)
        self._addresses = options.addresses or await asyncio.to_thread(addresses)
        self._runtime_status = await self._runtime.status()
        node = NodeFacts(name=options.name, host_ips=self._addresses, runtime=self._runtime_status.name)
        self._host = Host(
            self._client,
            self._runtime,
            options,
            self._clock,
            self._ports,
            self._broadcaster.recorder("kubelet", options.name),
            node,
            self._metrics,
            self._facts.memory,
        )
        self._host.on_finish = self._finished
        self.housekeeping = Housekeeping(self._host, self._workers.values, self._metrics)
        self._broadcaster.start()
        self._host.statuses.start()
        if options.register:
            await self.presence.register()
            self._spawn(self.presence.keep_lease(options.lease_seconds, options.renew_seconds), "lease")
            self._spawn(self.presence.keep_status(options.status_seconds), "status")
        self._spawn(self._follow_runtime(), "runtime events")
        self._leftovers = await leftovers(self._runtime)
        await self._follow_pods()
        await self._relist_once()  # what happened before the first events were taken
        self._spawn(self._relist(), "relist")
        self._spawn(self.housekeeping.rotate_logs(), "log rotation")
        self._spawn(self.housekeeping.watch_resources(), "eviction")
        self._spawn(self.housekeeping.sweep_images(), "image collection")
        self._started.set()

    async def _follow_pods(self) -> None:
        informer = self._factory.informer(
            Pod, namespace="*", fields=f"spec.nodeName={self._options.name}", managed_fields=False
        )
        handler = informer.add_handler(on_add=self._added, on_update=self._updated, on_delete=self._deleted)
        self._factory.start()
        await self._factory.wait_for_sync(_SYNC_SECONDS)
        await handler.wait_synced()
        for uid, leftover in self._leftovers.items():
            _log.info("a pod that the server does not have is removed", pod=leftover.name, uid=uid)
            self._spawn(self._remove(leftover.ids), f"orphan {leftover.name}")
        self._leftovers = {}
        await self._ports.mounts.prune({*self._workers, *self._done})

    async def _end(self) -> None:
        await self._factory.stop()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))
        if hasattr(self, "_host"):
            await self._host.statuses.stop()
        await self._broadcaster.stop(flush_seconds=_FLUSH_SECONDS)

    # Pods

    def _added(self, pod: Pod, initial: bool) -> None:
        del initial
        self._seen(pod)

    def _updated(self, old: Pod, new: Pod) -> None:
        if old.metadata.uid != new.metadata.uid:
            self._deleted(old)
        self._seen(new)

    def _seen(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        self._ports.mounts.seen(pod)
        worker = self._workers.get(uid)
        if worker is not None:
            if worker.pod is not pod:
                worker.take(PodSeen(pod))
            return
        if uid in self._forgetting:
            return
        if pod.status.phase in _TERMINAL:
            self._seen_terminal(pod)
            return
        worker = self._workers[uid] = PodWorker(pod, self._host)
        leftover = self._leftovers.pop(uid, None)
        if leftover is not None:
            worker.hold()
            self._spawn(self._adopt(worker, leftover), f"adopt {pod.metadata.name}")
        elif not self._refuse(worker):
            worker.take(PodSeen(pod))
        self._count()

    async def _adopt(self, worker: PodWorker, leftover: Leftover) -> None:
        worker.sandboxes = leftover.ids
        for sandbox_id in worker.sandboxes:
            self._host.owners[sandbox_id] = worker
        worker.release(await leftover.event(worker.pod, self._options.root))

    def _seen_terminal(self, pod: Pod) -> None:
        """Remove what is left of a pod that is over, and the pod itself once it is deleted; it needs no worker."""
        uid = pod.metadata.uid
        leftover = self._leftovers.pop(uid, None)
        if leftover is not None:
            self._spawn(self._remove(leftover.ids), f"rest of {pod.metadata.name}")
        before, self._done[uid] = self._done.get(uid), pod
        was_deleted = before is not None and before.metadata.deletion_timestamp is not None
        if pod.metadata.deletion_timestamp is not None and not was_deleted:
            self._spawn(self._host.delete(pod), f"delete {pod.metadata.name}")

    def _refuse(self, worker: PodWorker) -> bool:
        pod = worker.pod
        if pod.metadata.deletion_timestamp is not None:
            return False
        others = [each.pod for each in self._workers.values() if each is not worker and not each.life.finished]
        refused = refusal(pod, others, self.presence.node) if self._options.register else None
        if refused is None:
            return False
        reason, message = refused
        self._host.recorder.warning(pod, reason, message)
        worker.take(KillPod(reason=reason, message=message))
        return True

    def _deleted(self, gone: Pod | DeletedFinalStateUnknown[Pod]) -> None:
        pod = gone.object if isinstance(gone, DeletedFinalStateUnknown) else gone
        if pod is None:
            return  # never seen, so nothing of it runs
        uid = pod.metadata.uid
        self._done.pop(uid, None)
        worker = self._workers.get(uid)
        if worker is None:
            self._spawn(asyncio.to_thread(self._remove_files, pod), f"files of {pod.metadata.name}")
            return
        self._gone.add(uid)
        worker.take(PodGone())
        self._forget_if_over(worker)

    def _finished(self, worker: PodWorker) -> None:
        self._forget_if_over(worker)

    def _forget_if_over(self, worker: PodWorker) -> None:
        uid = worker.pod.metadata.uid
        if uid in self._gone and worker.life.finished and uid not in self._forgetting:
            self._forgetting.add(uid)
            self._spawn(self._forget(worker), f"forget {worker.pod.metadata.name}")

    async def _forget(self, worker: PodWorker) -> None:
        pod, uid = worker.pod, worker.pod.metadata.uid
        await worker.close()
        try:
            await self._remove(worker.sandboxes)
            await self._ports.mounts.release(uid)
            await asyncio.to_thread(self._remove_files, pod)
        except OSError as error:
            _log.warning("something of a pod stays", pod=pod.metadata.name, error=str(error))
        finally:
            self._workers.pop(uid, None)
            self._forgetting.discard(uid)
            self._gone.discard(uid)
            self._count()

    def _remove_files(self, pod: Pod) -> None:
        shutil.rmtree(log_directory(self._options.log_root, pod), ignore_errors=True)
        shutil.rmtree(f"{self._options.root}/pods/{pod.metadata.uid}", ignore_errors=True)

    async def _remove(self, sandboxes: Iterable[str]) -> None:
        """Remove sandboxes; one that stays is tried again with the next look at everything."""
        for sandbox_id in sandboxes:
            self._host.owners.pop(sandbox_id, None)
            try:
                await self._runtime.remove_sandbox(sandbox_id)
            except NodeError as error:
                _log.warning("sandbox not removed", sandbox=sandbox_id, error=str(error))

    # The runtime

    async def _follow_runtime(self) -> None:
        """Take the runtime's events; what was missed between two tries is found by looking at everything."""
        while True:
            try:
                await self._take_events()
                await self._relist_once()
            except NodeError as error:
                _log.warning("the runtime's events cannot be followed", error=str(error))
            await self._clock.sleep(_RUNTIME_PAUSE)

    async def _take_events(self) -> None:
        async for event in self._runtime.events():
            worker = self._host.owners.get(event.sandbox_id)
            if event.type == "Overflow":
                await self._relist_once()
            elif worker is None:
                continue
            elif event.type == "SandboxStopped":
                worker.take(SandboxGone(event.sandbox_id))
            elif event.type in {"Started", "Stopped"}:
                await worker.observe(event.container_id)

    async def _relist(self) -> None:
        while True:
            await self._clock.sleep(self._options.relist_seconds)
            try:
                await self._relist_once()
            except NodeError as error:
                _log.warning("the runtime cannot be looked at", error=str(error))

    async def _relist_once(self) -> None:
        self._runtime_status = await self._runtime.status()
        for sandbox in await self._runtime.list_sandboxes():
            worker = self._host.owners.get(sandbox.id)
            if worker is not None and sandbox.state == "NotReady":
                worker.take(SandboxGone(sandbox.id))
            elif worker is None and sandbox.metadata.uid not in self._workers:
                await self._remove([sandbox.id])
        for container in await self._runtime.list_containers():
            worker = self._host.owners.get(container.sandbox_id)
            slot = worker.life.slots.get(container.metadata.name) if worker is not None else None
            if worker is None or slot is None or container.state == "Created":
                continue
            if slot.current is None or (slot.current.id, slot.current.state) != (container.id, container.state):
                await worker.observe(container.id)
        for worker in list(self._workers.values()):
            worker.take(Tick())

    def _view(self) -> NodeView:
        active = self.housekeeping.pressure.active(self._host.now())
        return NodeView(
            options=self._options,
            facts=self._facts,
            runtime=self._runtime_status,
            addresses=self._addresses,
            pressures=frozenset(active),
            images=self.housekeeping.images,
        )

    def _count(self) -> None:
        self._pods_gauge.set(len(self._workers))

    def _spawn(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if _has_failed(task):
            _log.error("a task of the node agent failed", task=task.get_name(), error=repr(task.exception()))
            return  # `problems` lists it
        self._tasks.discard(task)


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None
