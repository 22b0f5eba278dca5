"""Daemon sets: on which nodes to make pods, which pods to delete, and what the status says. Pure.

`plan` first brings one pod to each node that is to have one; once nothing is left to do for that, it rolls out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from pilothouse.kinds import intstr
from pilothouse.kinds.structs import DaemonSet, Pod, replace
from pilothouse.kinds.structs.apps import DaemonSetStatus

from .daemonsets_nodes import Fit, bound_to, target_node, with_tolerations
from .pods import available_in, is_available, is_finished, is_ready
from .revisions import POD_LABEL
from .templates import pod_of

__all__ = ["BURST", "Event", "Plan", "backoff_key", "by_node", "new_pods", "next_check", "plan", "status_of"]

BURST: Final = 250
"""Pods that one reconcile makes, and deletes, at most."""

_GENERATION: Final = "deprecated.daemonset.template.generation"
_GENERATION_LABEL: Final = "pod-template-generation"
_ALIVE: Final = frozenset({"Pending", "Running"})
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Event:
    """Tell something about the set."""

    reason: str
    message: str
    warning: bool


@dataclass(slots=True)
class Plan:
    """Nodes that get a pod, pods that go, what to tell, failures that count; again: seconds until a look."""

    create: list[str] = field(default_factory=list)
    delete: list[Pod] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    again: float | None = None

    def __bool__(self) -> bool:
        return bool(self.create or self.delete)


def by_node(pods: Iterable[Pod], digest: str) -> dict[str, list[Pod]]:
    """Group pods by the nodes that they are on or meant for, the oldest first; those that are over are left out.

    digest: the hash of the present revision. Its pods are the younger ones of a second, which is all that times tell.
    """

    def by_age(pod: Pod) -> tuple[bool, str, bool, str]:
        metadata = pod.metadata
        new = metadata.labels.get(POD_LABEL) == digest
        return not pod.spec.node_name, metadata.creation_timestamp or "", new, metadata.name

    found: dict[str, list[Pod]] = {}
    for pod in pods:
        node = target_node(pod)
        if node and not (is_finished(pod) and pod.metadata.deletion_timestamp is not None):
            found.setdefault(node, []).append(pod)
    for each in found.values():
        if len(each) > 1:
            each.sort(key=by_age)
    return found


def new_pods(obj: DaemonSet, nodes: Iterable[str], digest: str) -> list[Pod]:
    """Return the pods for nodes. digest: the hash of the present revision."""
    labels = {POD_LABEL: digest}
    if (generation := _template_generation(obj)) is not None:
        labels[_GENERATION_LABEL] = generation
    template = obj.spec.template
    made = pod_of(replace(template, spec=with_tolerations(template.spec)), obj, labels=labels)
    return [replace(made, spec__affinity=bound_to(made.spec.affinity, node)) for node in nodes]


def plan(
    obj: DaemonSet,
    fits: Mapping[str, Fit],
    pods: Mapping[str, list[Pod]],
    digest: str,
    wait: Callable[[str], float],
    now: datetime,
) -> Plan:
    """Return the next step of a set.

    fits: of all nodes by name. pods: by node, see `by_node`. digest: the hash of the present revision. wait: seconds
    before another failed pod may be deleted, by `backoff_key`.
    """
    planner = _Planner(obj, fits, pods, digest, wait, now)
    planner.manage()
    if not planner.made and obj.spec.update_strategy.type == "RollingUpdate":
        planner.roll()
    return planner.made


def status_of(
    obj: DaemonSet, fits: Mapping[str, Fit], pods: Mapping[str, Sequence[Pod]], digest: str, now: datetime
) -> DaemonSetStatus:
    """Return the status as it should be."""
    wanted = [name for name, fit in fits.items() if fit.should_run]
    oldest = [pods[name][0] for name in wanted if pods.get(name)]
    generation = _template_generation(obj)
    available = sum(is_available(pod, obj.spec.min_ready_seconds, now) for pod in oldest)
    return replace(
        obj.status,
        desired_number_scheduled=len(wanted),
        current_number_scheduled=len(oldest),
        number_misscheduled=sum(bool(pods.get(name)) for name, fit in fits.items() if not fit.should_run),
        number_ready=sum(map(is_ready, oldest)),
        updated_number_scheduled=sum(_is_updated(pod, digest, generation) for pod in oldest),
        number_available=available,
        number_unavailable=len(wanted) - available,
        observed_generation=obj.metadata.generation,
    )


def next_check(obj: DaemonSet, pods: Iterable[Pod], now: datetime) -> float | None:
    """Return in how many seconds the next ready pod becomes available, None where none is waiting."""
    if not obj.spec.min_ready_seconds:
        return None
    waits = [available_in(pod, obj.spec.min_ready_seconds, now) for pod in pods]
    return min((wait for wait in waits if wait), default=None)


def backoff_key(obj: DaemonSet, node: str) -> str:
    """Return by what failures of a node's pods are counted: a set that was changed begins anew."""
    return f"{obj.metadata.uid}/{obj.status.observed_generation}/{node}"


def _template_generation(obj: DaemonSet) -> str | None:
    text = obj.metadata.annotations.get(_GENERATION, "")
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20 or int(text) not in _INT64:
        return None
    return str(int(text))


def _is_updated(pod: Pod, digest: str, generation: str | None) -> bool:
    labels = pod.metadata.labels
    if generation is not None and labels.get(_GENERATION_LABEL) == generation:
        return True
    return bool(digest) and labels.get(POD_LABEL) == digest


class _Planner:
    """One plan in the making."""

    def __init__(
        self,
        obj: DaemonSet,
        fits: Mapping[str, Fit],
        pods: Mapping[str, list[Pod]],
        digest: str,
        wait: Callable[[str], float],
        now: datetime,
    ) -> None:
        self.obj, self.fits, self.pods, self.digest, self.wait, self.now = obj, fits, pods, digest, wait, now
        self.generation = _template_generation(obj)
        self.surges = self._surge(1) > 0
        self.made = Plan()

    # One pod a node

    def manage(self) -> None:
        for node, fit in self.fits.items():
            present = self.pods.get(node)
            if not present:
                if fit.should_run:
                    self.made.create.append(node)
            elif fit.should_continue and len(present) == 1 and present[0].status.phase in _ALIVE:
                if self.surges and fit.should_run and present[0].metadata.deletion_timestamp is not None:
                    self.made.create.append(node)
            elif fit.should_continue:
                self._prune(node, fit, present)
            else:
                self.made.delete += _staying(present)
        for node, present in self.pods.items():
            if node not in self.fits:  # pods that were never bound are nobody else's to collect
                self.made.delete += [pod for pod in present if not pod.spec.node_name]

    def _prune(self, node: str, fit: Fit, present: Sequence[Pod]) -> None:
        running = [pod for pod in _staying(present) if not self._is_over(node, pod)]
        if not self.surges:
            self.made.delete += running[1:]
        elif not running:
            if fit.should_run:
                self.made.create.append(node)
        elif len(running) > 1:
            self._prune_surge(running)

    def _is_over(self, node: str, pod: Pod) -> bool:
        """Whether a pod has ended; it is deleted then, one that failed not before its time."""
        where = f"daemon pod {pod.metadata.namespace}/{pod.metadata.name} on node {node}, will try to"
        if pod.status.phase == "Failed":
            key = backoff_key(self.obj, node)
            if seconds := self.wait(key):
                self.made.again = min(self.made.again or seconds, seconds)
                return True
            self.made.failed.append(key)
            self.made.events.append(Event("FailedDaemonPod", f"Found failed {where} kill it", True))
        elif pod.status.phase == "Succeeded":
            self.made.events.append(Event("SucceededDaemonPod", f"Found succeeded {where} delete it", False))
        else:
            return False
        self.made.delete.append(pod)
        return True

    def _prune_surge(self, running: Sequence[Pod]) -> None:
        """Leave one old and one new pod, the new one alone once it is available or the old one is not ready."""
        new = [pod for pod in running if pod.metadata.labels.get(POD_LABEL) == self.digest]
        old = [pod for pod in running if pod.metadata.labels.get(POD_LABEL) != self.digest]
        self.made.delete += [*new[1:], *old[1:]]
        if new and old and (not is_ready(old[0]) or self._is_available(new[0])):
            self.made.delete.append(old[0])

    # Rolling out

    def roll(self) -> None:
        if all(_is_updated(pod, self.digest, self.generation) for each in self.pods.values() for pod in each):
            return
        wanted = [node for node, fit in self.fits.items() if fit.should_run]
        surge, unavailable = self._surge(len(wanted)), self._unavailable(len(wanted))
        if wanted and not surge and not unavailable:
            unavailable = 1  # without any room nothing could ever be replaced
        nodes = [*self.pods, *(node for node in wanted if node not in self.pods)]
        states = [(node, self._state(self.pods.get(node, ()))) for node in nodes]
        if surge:
            self._roll_by_surge(states, surge, len(wanted))
        else:
            self._roll_by_deletion([state for _, state in states], unavailable)

    def _state(self, pods: Sequence[Pod]) -> tuple[Pod | None, Pod | None] | None:
        """Return a node's new and old pod, None where it has several of one sort, which is left to be pruned."""
        new, old = list[Pod](), list[Pod]()
        for pod in _staying(pods):
            (new if _is_updated(pod, self.digest, self.generation) else old).append(pod)
        if len(new) > 1 or len(old) > 1:
            return None
        return (new[0] if new else None), (old[0] if old else None)

    def _roll_by_deletion(self, states: Sequence[tuple[Pod | None, Pod | None] | None], most: int) -> None:
        """Delete old pods that are not available, and of the others as many as may be missing besides."""
        missing, free, candidates = 0, list[Pod](), list[Pod]()
        for state in states:
            new, old = state or (None, None)
            if (new is None) == (old is None):
                missing += 1
            elif new is not None:
                missing += not self._is_available(new)
            elif old is not None and not self._is_available(old):
                free.append(old)
                missing += 1
            elif old is not None:
                candidates.append(old)
        self.made.delete += [*free, *candidates[: max(0, most - missing)]]

    def _roll_by_surge(
        self, states: Sequence[tuple[str, tuple[Pod | None, Pod | None] | None]], most: int, wanted: int
    ) -> None:
        """Make new pods beside old ones, where those are not available at once, elsewhere a few at a time."""
        surging, available = 0, 0
        free, candidates, leaving = list[str](), list[str](), list[Pod]()
        for node, state in states:
            if state is None:
                surging += 1
                continue
            new, old = state
            first = old or new
            available += first is not None and self._is_available(first)
            if old is None:
                continue
            if new is not None:
                if self._is_available(new):
                    self.made.delete.append(old)
                else:
                    surging += 1
            elif not self._should_run(node):
                (leaving if self._is_available(old) else self.made.delete).append(old)
            else:
                (candidates if self._is_available(old) else free).append(node)
        # Where pods move to other nodes, the old ones go as those on the new nodes become available.
        self.made.delete += leaving[: max(0, available - wanted)]
        self.made.create += [*free, *candidates[: max(0, most - surging)]]

    def _should_run(self, node: str) -> bool:
        fit = self.fits.get(node)
        return fit is not None and fit.should_run

    def _is_available(self, pod: Pod) -> bool:
        return is_available(pod, self.obj.spec.min_ready_seconds, self.now)

    def _surge(self, total: int) -> int:
        rolling = self._rolling()
        return 0 if rolling is None else intstr.scaled(rolling[0] or 0, total, round_up=True)

    def _unavailable(self, total: int) -> int:
        rolling = self._rolling()
        return 0 if rolling is None else intstr.scaled(rolling[1] or 0, total, round_up=True)

    def _rolling(self) -> tuple[intstr.IntOrString | None, intstr.IntOrString | None] | None:
        strategy = self.obj.spec.update_strategy
        if strategy.type != "RollingUpdate" or strategy.rolling_update is None:
            return None
        return strategy.rolling_update.max_surge, strategy.rolling_update.max_unavailable


def _staying(pods: Sequence[Pod]) -> Sequence[Pod]:
    return [pod for pod in pods if pod.metadata.deletion_timestamp is None]
