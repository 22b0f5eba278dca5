"""The scheduler: objects of the cluster go in, decisions come out. No IO, no clock of its own, no thread.

`upsert` and `remove` tell it of objects, `schedule` takes one pod from the queue and decides. What was decided is taken
as done until `bind_failed` says otherwise, so the next decision need not wait for the first to be written.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

import numpy as np

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import Pod

from .configuration import Configuration
from .decisions import Bind, Decision, Failed, Skipped
from .errors import ConfigurationError
from .evaluation import Evaluation, Found
from .events import Action, ClusterEvent, Kind
from .framework import Cycle, Reject, Volumes, Wait
from .intake import Assumed, Intake, placed_on
from .messages import diagnose
from .plugins import REGISTRY, Factory
from .profile import Profile
from .queue import Queue, Queued
from .shapes import LocalShape, PodShape

__all__ = ["Scheduler"]

_log = get_logger("pilothouse.scheduling.scheduler")
_EVALUATIONS: Final = 64
"""Shapes of pods whose answers are kept; for 5,000 nodes, each takes about half a megabyte."""
_NO_NODES: Final = "no nodes available to schedule pods"


class Scheduler(Intake):
    """Decides where pods run.

    configuration: what to do as `configuration.load` read it. clock: for back-off and the age of pods in the queue.
    seed: of the choice among nodes that are equally good; with the same seed and the same calls the same decisions
    come out. registry: the plugins by name; add your own to `REGISTRY`.
    """

    def __init__(
        self,
        configuration: Configuration | None = None,
        *,
        clock: Clock | None = None,
        seed: int | None = None,
        registry: Mapping[str, Factory] = REGISTRY,
    ) -> None:
        found = Configuration() if configuration is None else configuration
        self._clock = SystemClock() if clock is None else clock
        self._random = random.Random(seed)  # noqa: S311  nothing secret is chosen
        profiles = {one.scheduler_name: Profile(one, registry) for one in found.profiles}
        if not profiles:
            raise ConfigurationError("profiles", "there are none; leave the field out to have the default one")
        queue = Queue(
            self._clock.monotonic,
            next(iter(profiles.values())).queue_sort.sort_key,
            hints={name: profile.hints() for name, profile in profiles.items()},
            gates={name: profile.pre_enqueue for name, profile in profiles.items()},
            initial_backoff=found.pod_initial_backoff_seconds,
            max_backoff=found.pod_max_backoff_seconds,
        )
        super().__init__(profiles, queue)
        self._evaluations: OrderedDict[tuple[str, PodShape | LocalShape], Evaluation] = OrderedDict()

    def schedule(self) -> Decision | None:
        """Take the pod whose turn it is and decide; None if there is none to try now."""
        if self._ready:
            return self._ready.pop(0)
        while (queued := self.queue.pop()) is not None:
            try:
                decision = self._try(queued)
            except Exception as error:  # noqa: BLE001  a plugin that fails for one pod must not stop all others
                decision = self._broken(queued, error)
            if decision is not None:
                return decision
            if self._ready:
                return self._ready.pop(0)
        return None

    def tick(self) -> None:
        """Do what is due: ends of back-offs, pods that waited for too long, permits that did not come."""
        self.queue.flush()
        now = self._clock.monotonic()
        for uid, assumed in [*self._assumed.items()]:
            if assumed.deadline is not None and assumed.deadline <= now:
                self.refuse(uid, "rejected due to timeout after waiting at plugin " + assumed.waits_for)

    def next_tick(self) -> float | None:
        """Give the seconds until `tick` may have something to do; None if never."""
        now = self._clock.monotonic()
        times = [one.deadline - now for one in self._assumed.values() if one.deadline is not None]
        if (flush := self.queue.next_flush()) is not None:
            times.append(flush)
        return max(min(times), 0.0) if times else None

    def bound(self, uid: str) -> None:
        """Note that a pod was bound."""
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            for plugin in assumed.profile.post_binds:
                plugin.post_bind(assumed.queued.pod, assumed.node)

    def bind_failed(self, uid: str, message: str) -> Failed | None:
        """Note that a pod could not be bound: give back what it took and try it again later."""
        assumed = self._assumed.pop(uid, None)
        if assumed is None:
            return None
        self._give_back(assumed)
        if uid not in self._pods:
            return None
        self.queue.requeue(assumed.queued, pod=self._pods[uid])
        return Failed(self._pods[uid], message, reason="SchedulerError", nominated="")

    def allow(self, uid: str) -> bool:
        """Let a pod be bound that a plugin has had wait; say whether there was one."""
        assumed = self._assumed.get(uid)
        if assumed is None or assumed.deadline is None:
            return False
        assumed.deadline = None
        self._ready.append(self._binding(assumed))
        return True

    def refuse(self, uid: str, message: str) -> bool:
        """Do not let a pod be bound that a plugin has had wait; say whether there was one."""
        assumed = self._assumed.get(uid)
        if assumed is None or assumed.deadline is None:
            return False
        del self._assumed[uid]
        self._ready.append(self._permit_refused(assumed, message))
        return True

    def waiting(self) -> Mapping[str, str]:
        """Give the nodes of the pods that wait for a permit, by uid."""
        return {uid: one.node for uid, one in self._assumed.items() if one.deadline is not None}

    def _try(self, queued: Queued) -> Decision | None:
        pod = queued.pod
        meta = pod.metadata
        profile = self.profiles[pod.spec.scheduler_name or "default-scheduler"]
        if meta.deletion_timestamp is not None:
            self.queue.done(queued.uid)
            return Skipped(pod, f"skip schedule deleting pod: {meta.namespace}/{meta.name}")
        if not len(self.cluster.table):
            self.queue.requeue(queued)
            return Failed(pod, _NO_NODES)
        shape = self._shapes[queued.uid]
        evaluation = self._evaluation(profile, shape)
        cycle = Cycle(pod, shape, self.cluster, self._random, evaluation.state_of(shape), evaluation.local)
        row = self._own_node(cycle, evaluation)
        if row is None:
            found = evaluation.run(cycle)
            row = self._pick(found)
            if row is None:
                return self._no_node(cycle, queued, profile, evaluation, found)
        return self._take(cycle, queued, profile, self.cluster.table.name(row))

    def _broken(self, queued: Queued, error: Exception) -> Failed:
        """Take back a pod for which a plugin failed, and everything that may be half done."""
        meta = queued.pod.metadata
        _log.error("plugin failed", pod=f"{meta.namespace}/{meta.name}", exc_info=error)
        placed = self.cluster.table.placed.get(queued.uid)
        if placed is not None and placed.assumed:
            self.cluster.table.displace(queued.uid)
        self._evaluations.clear()
        if queued.place == "in flight":
            self.queue.requeue(queued)
        return Failed(queued.pod, f"{type(error).__name__}: {error}", reason="SchedulerError")

    def _evaluation(self, profile: Profile, shape: PodShape) -> Evaluation:
        key = (profile.name, shape.local if profile.nameless else shape)
        found = self._evaluations.get(key)
        if found is None:
            found = self._evaluations[key] = profile.evaluation()
            if len(self._evaluations) > _EVALUATIONS:
                self._evaluations.popitem(last=False)
        else:
            self._evaluations.move_to_end(key)
        return found

    def _own_node(self, cycle: Cycle, evaluation: Evaluation) -> int | None:
        """Give the row on which room was made for the pod, if it fits there."""
        nominated = cycle.pod.status.nominated_node_name or self._nominations.get(cycle.pod.metadata.uid)
        row = self.cluster.table.row_of.get(nominated, -1) if nominated else -1
        if row < 0 or evaluation.run(cycle).reject is not None:
            return None
        return row if evaluation.check_row(cycle, row) is None else None

    def _pick(self, found: Found) -> int | None:
        """Choose at random among the best nodes."""
        if found.ties is not None:
            ties = found.ties
            return ties[self._random.randrange(len(ties)) if len(ties) > 1 else 0] if ties else None
        best = int(found.total.max(initial=-1))
        if best < 0:
            return None
        rows = np.flatnonzero(found.total == best)
        return int(rows[self._random.randrange(len(rows)) if len(rows) > 1 else 0])

    def _no_node(self, cycle: Cycle, queued: Queued, profile: Profile, evaluation: Evaluation, found: Found) -> Failed:
        diagnosis = diagnose(cycle, evaluation, found)
        message, nominated = diagnosis.message, None
        victims: tuple[Pod, ...] = ()
        cleared: tuple[Pod, ...] = ()
        for plugin in profile.post_filters:
            result = plugin.post_filter(cycle, diagnosis.open_rows, evaluation)
            if result.message:
                message = f"{message} {result.message}"
            if not result.keep_nomination:
                nominated = result.nominated
            if result.nominated:
                victims = result.victims
                cleared = self._clear_lower(cycle.shape, result.nominated)
                break
        uid = queued.uid
        if nominated is not None:
            self._withdraw(uid)
            if nominated:
                self._nominations[uid] = nominated
                self.cluster.table.nominate(uid, cycle.shape, nominated)
        self.queue.requeue(queued, diagnosis.plugins)
        return Failed(cycle.pod, message, "Unschedulable", nominated, victims, cleared, frozenset(diagnosis.plugins))

    def _clear_lower(self, shape: PodShape, node: str) -> tuple[Pod, ...]:
        """Void the nominations of less important pods for a node: their room is gone."""
        row = self.cluster.table.row_of[node]
        waiting = self.cluster.table.nominated.get(row, {})
        uids = [uid for uid, other in waiting.items() if other.priority < shape.priority]
        for uid in uids:
            self._withdraw(uid)
        return tuple(self._pods[uid] for uid in uids if uid in self._pods)

    def _take(self, cycle: Cycle, queued: Queued, profile: Profile, node: str) -> Decision | None:
        """Reserve what the pod needs on its node, and bind it unless someone objects."""
        uid = queued.uid
        self._withdraw(uid)
        self.cluster.table.place(cycle.pod, cycle.shape, node, assumed=True)
        assumed = Assumed(queued, cycle, profile, node)
        for reserve in profile.reserves:
            refused = reserve.reserve(cycle, node)
            if refused is not None:
                return self._permit_refused(assumed, refused.reason, reserve.name)
        for permit in profile.permits:
            answer = permit.permit(cycle, node)
            if isinstance(answer, Reject):
                return self._permit_refused(assumed, answer.reason, permit.name)
            if isinstance(answer, Wait):
                deadline = self._clock.monotonic() + answer.seconds
                assumed.deadline = deadline if assumed.deadline is None else min(assumed.deadline, deadline)
                assumed.waits_for = permit.name
        self._assumed[uid] = assumed
        return self._binding(assumed) if assumed.deadline is None else None

    def _binding(self, assumed: Assumed) -> Bind:
        bindings: list[tuple[str, str]] = []
        provisions: list[str] = []
        for plugin in assumed.profile.pre_binds:
            volumes = plugin.pre_bind(assumed.cycle, assumed.node)
            if volumes is not None:
                bindings += volumes.bindings
                provisions += volumes.provisions
        self.queue.done(assumed.queued.uid)
        found = Volumes(tuple(bindings), tuple(provisions)) if bindings or provisions else None
        return Bind(assumed.queued.pod, assumed.node, found)

    def _permit_refused(self, assumed: Assumed, message: str, plugin: str = "") -> Failed:
        self._give_back(assumed)
        name = plugin or assumed.waits_for
        self.queue.requeue(assumed.queued, {name})
        told = f"0/1 nodes are available: 1 {message}."
        return Failed(assumed.queued.pod, told, nominated="", plugins=frozenset({name}))

    def _give_back(self, assumed: Assumed) -> None:
        for plugin in reversed(assumed.profile.reserves):
            plugin.unreserve(assumed.cycle, assumed.node)
        uid = assumed.queued.uid
        placed = self.cluster.table.placed.get(uid)
        if placed is not None and placed.assumed:
            self.cluster.table.displace(uid)
        self.queue.event(ClusterEvent(Kind.ASSIGNED_POD, Action.DELETE), placed_on(assumed.queued.pod, assumed.node))
