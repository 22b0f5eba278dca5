"""Thousands of nodes in one process: one watch of pods, one writer of leases, and a queue of what happens when."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.client.errors import ClientError
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.objects import DeletedFinalStateUnknown
from pilothouse.client.packed import Packed
from pilothouse.client.patches import StrategicPatch
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.kinds.status import AlreadyExists, ApiStatus, NotFound
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.kinds.times import format_micros, format_seconds
from pilothouse.node.agent.backoff import Backoff

from .nodes import FleetOptions, heartbeat_of, lease_of, node_of, node_status_of
from .podstates import SimPod, status_of
from .rules import rules_of
from .writing import Writes

__all__ = ["Fleet", "FleetOptions"]

_LEASES: Final = "kube-node-lease"
_FAULTS = (ApiStatus, OSError, ClientError)
_log = get_logger("pilothouse.node.simulated")


class Fleet:
    """Simulated nodes of one cluster: `await run()` until `stop()`; nodes stay unless `remove()` is awaited.

    A pod costs one write when it runs, one for each change after that, and nothing while it runs on. Heartbeats of all
    nodes are spread evenly over time.
    """

    def __init__(
        self,
        client: Client,
        options: FleetOptions,
        *,
        clock: Clock | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._client = client
        self._options = options
        self._clock = clock or SystemClock()
        self._metrics = metrics or PROGRAM
        self._writes = Writes(self._clock, options.writers)
        self._names = [f"{options.prefix}-{number}" for number in range(options.count)]
        self._ours = {name: options.address(number) for number, name in enumerate(self._names)}
        self._pods: dict[str, SimPod] = {}
        self._backoffs: dict[str, Backoff] = {}
        self._addresses = 0
        self._due: list[tuple[float, int, str, int, str]] = []
        self._order = 0
        self._planned = asyncio.Event()
        self._stopping = asyncio.Event()
        self._started = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._factory = SharedInformerFactory(client, clock=self._clock, metrics=self._metrics)
        self._leases = client.dynamic("coordination.k8s.io/v1", "Lease")
        self._nodes = client.dynamic("v1", "Node")
        self._gauge = self._metrics.gauge("pilothouse_node_simulated_pods", "Pods on simulated nodes")
        self.late_leases = 0
        """Heartbeats that the server did not take."""

    async def run(self) -> None:
        """Make the nodes, look after them and their pods until `stop`."""
        try:
            await self._start()
            await self._stopping.wait()
        finally:
            await self._end()

    def stop(self) -> None:
        """Make `run` end."""
        self._stopping.set()

    async def wait_started(self) -> None:
        """Wait until all nodes are there and all pods known."""
        await self._started.wait()

    async def remove(self) -> None:
        """Remove the nodes from the cluster."""
        await self._all(self._remove)

    @property
    def pods(self) -> int:
        """How many pods there are on the nodes."""
        return len(self._pods)

    @property
    def running(self) -> int:
        """How many of them run."""
        return sum(pod.state == "running" for pod in self._pods.values())

    @property
    def waiting(self) -> int:
        """How many writes about pods wait."""
        return self._writes.waiting

    def problems(self) -> list[str]:
        """Return what is not well, in words; empty is healthy."""
        return [str(problem) for problem in self._factory.problems()]

    async def _start(self) -> None:
        self._writes.start()
        await self._all(self._register)
        self._spawn(self._beat(), "fleet heartbeats")
        self._spawn(self._refresh(), "fleet node statuses")
        self._spawn(self._play(), "fleet pods")
        informer = self._factory.informer(Pod, namespace="*", fields="spec.nodeName!=", managed_fields=False)
        handler = informer.add_packed_handler(_Handler(self), name="fleet pods")
        self._factory.start()
        await self._factory.wait_for_sync()
        await handler.wait_synced()
        self._started.set()

    async def _end(self) -> None:
        await self._factory.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._writes.stop()

    async def _all(self, call: Any) -> None:
        """Do something for all nodes, some at once."""
        numbers = iter(range(self._options.count))

        async def work() -> None:
            for number in numbers:
                await call(number)

        await asyncio.gather(*(work() for _ in range(self._options.writers)))

    # Nodes

    async def _register(self, number: int) -> None:
        node = node_of(self._options, number)
        for _ in range(self._options.tries):
            try:
                try:
                    made = await self._nodes.create(node)
                except AlreadyExists:
                    made = await self._nodes.patch(
                        self._names[number], {"metadata": {"labels": node["metadata"]["labels"]}}
                    )
                await self._write_node(number)
                lease = lease_of(self._options, number, made["metadata"]["uid"], format_micros(self._clock.now()))
                try:
                    await self._leases.create(lease, _LEASES)
                except AlreadyExists:
                    await self._renew(number)
            except _FAULTS as error:
                _log.warning("node not made; trying again", node=self._names[number], error=repr(error))
                await self._clock.sleep(1.0)
            else:
                return

    async def _remove(self, number: int) -> None:
        with contextlib.suppress(NotFound):
            await self._nodes.delete(self._names[number])

    async def _write_node(self, number: int) -> None:
        status = node_status_of(self._options, number, format_seconds(self._clock.now()))
        await self._nodes.patch(self._names[number], StrategicPatch({"status": status}), subresource="status")

    async def _renew(self, number: int) -> None:
        spec = {"renewTime": format_micros(self._clock.now())}
        await self._leases.patch(self._names[number], {"spec": spec}, _LEASES)

    async def _beat(self) -> None:
        """Renew one lease after the other, all of them within a round."""
        await self._spread(self._options.renew_seconds, self._renew_or_count)

    async def _refresh(self) -> None:
        await self._spread(self._options.status_seconds, self._write_or_count)

    async def _spread(self, seconds: float, call: Any) -> None:
        begin, done = self._clock.monotonic(), 0
        pause = max(seconds / self._options.count, self._options.tick)
        while True:
            await self._clock.sleep(pause)
            due = int((self._clock.monotonic() - begin) / seconds * self._options.count)
            batch = [number % self._options.count for number in range(done, min(due, done + self._options.count))]
            done = due
            await asyncio.gather(*(call(number) for number in batch))

    async def _renew_or_count(self, number: int) -> None:
        try:
            await self._renew(number)
        except _FAULTS as error:
            self.late_leases += 1
            _log.warning("lease not renewed", node=self._names[number], error=repr(error))

    async def _write_or_count(self, number: int) -> None:
        beat = StrategicPatch({"status": heartbeat_of(format_seconds(self._clock.now()))})
        try:
            await self._nodes.patch(self._names[number], beat, subresource="status")
        except _FAULTS as error:
            _log.warning("node status not written", node=self._names[number], error=repr(error))

    # Pods

    def seen(self, obj: Pod | Packed[Pod]) -> None:
        """Take note of a pod that was added or changed. Those that are known are not even read."""
        meta = obj.metadata
        known = self._pods.get(meta.uid)
        if known is None:
            known = self._new(obj.peek() if isinstance(obj, Packed) else obj)
            if known is None:
                return
        if meta.deletion_timestamp is not None and known.state != "ending":
            self._plan(known, known.rules.stop_seconds if known.state in {"running", "crashed"} else 0.0, "gone")
            known.state = "ending"

    def gone(self, obj: Any) -> None:
        """Forget a pod."""
        found = obj.object if isinstance(obj, DeletedFinalStateUnknown) else obj
        if found is not None:
            self._pods.pop(found.metadata.uid, None)
            self._backoffs.pop(found.metadata.uid, None)
            self._gauge.set(len(self._pods))

    def _new(self, pod: Pod) -> SimPod | None:
        if pod.spec.node_name not in self._ours:
            return None
        try:
            rules = rules_of(pod.metadata.annotations, self._options.rules)
        except ValueError as error:
            _log.warning("a pod's annotation is not understood", pod=pod.metadata.name, error=str(error))
            rules = self._options.rules
        self._addresses += 1
        number = self._addresses
        ip = f"100.{64 + (number >> 16) % 64}.{number >> 8 & 255}.{number & 255}"
        made = self._pods[pod.metadata.uid] = SimPod(pod, rules, ip, self._now())
        made.adopt(pod)
        self._gauge.set(len(self._pods))
        if made.state == "waiting":
            self._plan(made, rules.lasting(rules.start_seconds, made.source), "run")
        elif made.state == "running":
            self._plan_end(made)
        return made

    def _plan(self, pod: SimPod, seconds: float, what: str) -> None:
        pod.step += 1
        self._order += 1
        heapq.heappush(self._due, (self._clock.monotonic() + seconds, self._order, pod.uid, pod.step, what))
        self._planned.set()

    async def _play(self) -> None:
        """Let what is due happen."""
        while True:
            self._planned.clear()
            now = self._clock.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, uid, step, what = heapq.heappop(self._due)
                pod = self._pods.get(uid)
                if pod is not None and pod.step == step:
                    self._happen(pod, what)
            wait = min(self._due[0][0] - now, 1.0) if self._due else 1.0
            # Many pods have nearly the same times; looking every few milliseconds is enough for all of them.
            timer = self._clock.call_later(max(wait, self._options.tick), self._planned.set)
            await self._clock.sleep(self._options.tick)
            await self._planned.wait()
            timer.cancel()

    def _happen(self, pod: SimPod, what: str) -> None:
        match what:
            case "run":
                self._run(pod)
            case "ready":
                pod.ready = True
                self._write(pod)
                self._plan_end(pod)
            case "gone":
                self._delete(pod)
            case _:
                self._exit(pod, int(what))

    def _run(self, pod: SimPod) -> None:
        if pod.state == "crashed":
            pod.restarts += 1
        pod.state, pod.started_at = "running", self._now()
        delay = pod.rules.ready_seconds
        pod.ready = not delay
        self._write(pod)
        if delay:
            self._plan(pod, delay, "ready")
        else:
            self._plan_end(pod)

    def _plan_end(self, pod: SimPod) -> None:
        run = pod.rules.run(pod.source)
        if run.seconds is not None:
            self._plan(pod, run.seconds, str(run.exit_code))

    def _exit(self, pod: SimPod, code: int) -> None:
        pod.exit_code = code
        restarts = pod.policy == "Always" or (pod.policy == "OnFailure" and code != 0)
        if not restarts:
            pod.state = "over"
            self._write(pod)
            return
        now = self._now()
        backoff = self._backoffs.setdefault(pod.uid, Backoff())
        pause = backoff.remaining(now, now)
        backoff.next(now, now)
        pod.state = "crashed"
        if pause > 0:
            self._write(pod)
        self._plan(pod, max(pause, 0.0), "run")

    def _write(self, pod: SimPod) -> None:
        status = status_of(pod, self._ours[pod.node], self._now())
        body = StrategicPatch({"metadata": {"uid": pod.uid}, "status": status})
        self._writes.put(pod.uid, lambda: self._client.patch(Pod, pod.name, body, pod.namespace, subresource="status"))

    def _delete(self, pod: SimPod) -> None:
        self._writes.put(
            pod.uid, lambda: self._client.delete(Pod, pod.name, pod.namespace, grace_seconds=0, uid=pod.uid)
        )

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _spawn(self, work: Any, name: str) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work, name=name))


class _Handler:
    """Tells a fleet of pods."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def on_add(self, obj: Any, initial: bool) -> None:
        del initial
        self._fleet.seen(obj)

    def on_update(self, old: Any, new: Any) -> None:
        del old
        self._fleet.seen(new)

    def on_delete(self, obj: Any) -> None:
        self._fleet.gone(obj)
