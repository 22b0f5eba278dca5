"""Masks, scores, chosen nodes, messages and victims are those of a slow, obvious scheduler, whatever the cluster."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Namespace, Node, Pod, Service, from_dict
from pilothouse.scheduling import Bind, Failed, Scheduler, parse
from pilothouse.scheduling.framework import Cycle

from .reference import World
from .worlds import Maker

CONFIGURATION = parse(
    {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "profiles": [
            {"pluginConfig": [{"name": "DefaultPreemption", "args": {"minCandidateNodesAbsolute": 1000}}]},
        ],
    }
)
NAMESPACES = {"green": {"tier": "front"}, "blue": {"tier": "back"}}
SERVICE = {"metadata": {"name": "web", "namespace": "green"}, "spec": {"selector": {"app": "web"}}}


class Pair:
    """Our scheduler and the reference, told the same."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.make = Maker(seed)
        self.clock = FakeClock()
        self.ours = Scheduler(CONFIGURATION, clock=self.clock, seed=seed)
        self.theirs = World(namespaces=NAMESPACES, services=[SERVICE])
        for name, labels in NAMESPACES.items():
            self.ours.upsert(from_dict({"metadata": {"name": name, "labels": labels}}, Namespace))
        self.ours.upsert(from_dict(SERVICE, Service))
        for number in range(nodes):
            self.set_node(self.make.node(number))

    def set_node(self, node: dict[str, Any]) -> None:
        self.theirs.nodes[node["metadata"]["name"]] = node
        self.ours.upsert(from_dict(copy.deepcopy(node), Node))

    def place(self, pod: dict[str, Any], node: str) -> None:
        self.theirs.placed.append((pod, node))
        bound = copy.deepcopy(pod)
        bound["spec"]["nodeName"] = node
        self.ours.upsert(from_dict(bound, Pod))

    def take_away(self, pod: dict[str, Any]) -> None:
        self.theirs.placed = [one for one in self.theirs.placed if one[0] is not pod]
        self.ours.remove(from_dict(copy.deepcopy(pod), Pod))

    def totals(self, pod: dict[str, Any]) -> dict[str, int]:
        """Give our score of each node that a pod may run on."""
        found = from_dict(copy.deepcopy(pod), Pod)
        cluster, profile = self.ours.cluster, self.ours.profiles["default-scheduler"]
        shape = cluster.shapes.of(found)
        evaluation = self.ours._evaluation(profile, shape)
        state, local = evaluation.state_of(shape), evaluation.local
        result = evaluation.run(Cycle(found, shape, cluster, random.Random(0), state, local))
        return {cluster.table.name(row): int(total) for row, total in enumerate(result.total) if total >= 0}

    def disturb(self) -> None:
        """Change something: a node's labels, a pod that goes or is about to, a node that goes or comes."""
        pick = self.make.random
        match pick.randrange(5):
            case 4 if self.theirs.placed:
                pod, node = pick.choice(self.theirs.placed)
                self.take_away(pod)
                pod["metadata"]["deletionTimestamp"] = "2025-01-01T00:00:00Z"
                self.place(pod, node)
            case 0:
                name = pick.choice([*self.theirs.nodes])
                self.set_node(self.make.node(int(name[1:])))
            case 1 if self.theirs.placed:
                self.take_away(pick.choice(self.theirs.placed)[0])
            case 2 if len(self.theirs.nodes) > 2:
                name = pick.choice([*self.theirs.nodes])
                self.ours.remove(from_dict(self.theirs.nodes.pop(name), Node))
            case _:
                self.set_node(self.make.node(pick.randrange(8)))


@pytest.mark.parametrize("seed", range(60))
def test_pods_go_where_the_reference_has_them_go(seed: int) -> None:
    pair = Pair(seed, 2 + seed % 6)
    for _ in range(18):
        pod = pair.make.pod()
        wanted = pair.theirs.totals(pod)
        assert pair.totals(pod) == wanted
        pair.ours.upsert(from_dict(copy.deepcopy(pod), Pod))
        decision = pair.ours.schedule()
        if not wanted:
            assert isinstance(decision, Failed)
            best, text = pair.theirs.preempt(pod)
            assert decision.message == " ".join(filter(None, [pair.theirs.message(pod), text]))
            assert decision.nominated in ([*best] or [""])
            if decision.nominated:
                names = [one["metadata"]["name"] for one in best[decision.nominated]]
                assert [one.metadata.name for one in decision.victims] == names
            pair.ours.remove(decision.pod)
        else:
            assert isinstance(decision, Bind)
            assert wanted[decision.node] == max(wanted.values())
            pair.ours.bound(pod["metadata"]["uid"])
            pair.place(pod, decision.node)
        if pair.make.some(0.4):
            pair.disturb()


@pytest.mark.parametrize("seed", range(100, 130))
def test_many_pods_of_one_shape_are_scored_row_by_row_as_all_at_once(seed: int) -> None:
    pair = Pair(seed, 7)
    first = pair.make.pod(priority=0)
    for number in range(12):
        pod = copy.deepcopy(first)
        pod["metadata"] |= {"name": f"like-{number}", "uid": f"like-{number}"}
        if seed % 2:
            # As pods of a stateful set have it: another shape each, and yet answers are shared.
            pod["metadata"]["labels"]["pod-name"] = f"like-{number}"
        wanted = pair.theirs.totals(pod)
        assert pair.totals(pod) == wanted
        pair.ours.upsert(from_dict(copy.deepcopy(pod), Pod))
        decision = pair.ours.schedule()
        if not wanted:
            assert isinstance(decision, Failed)
            break
        assert isinstance(decision, Bind)
        pair.ours.bound(pod["metadata"]["uid"])
        pair.place(pod, decision.node)
        if pair.make.some(0.2):
            pair.disturb()
