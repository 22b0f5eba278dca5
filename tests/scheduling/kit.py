"""Short forms of nodes and pods, and a scheduler that is told of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Node, Pod, Resource, from_dict
from pilothouse.scheduling import Bind, Configuration, Decision, Failed, Scheduler, parse
from pilothouse.scheduling.plugins import REGISTRY, Factory

Object = dict[str, Any]


def node(name: str, labels: Mapping[str, str] | None = None, **more: Any) -> Node:
    """A node of 4 cores, 8 GiB and 10 pods. more: `allocatable`, `taints`, `unschedulable`, `images`."""
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", **more.pop("allocatable", {})}
    return from_dict(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
            "spec": {key: more[key] for key in ("taints", "unschedulable") if key in more},
            "status": {"allocatable": allocatable, "images": more.get("images", [])},
        },
        Node,
    )


def pod(name: str, requests: Mapping[str, str] | None = None, **spec: Any) -> Pod:
    """A pod in `default`. spec: its own fields, and `labels`, `status`, `on` (the node's name), `deleted`, `owner`."""
    labels, status = spec.pop("labels", {}), spec.pop("status", {})
    meta: Object = {"name": name, "namespace": spec.pop("namespace", "default"), "uid": name, "labels": labels}
    if spec.pop("deleted", False):
        meta["deletionTimestamp"] = "2025-01-01T00:00:00Z"
    if owner := spec.pop("owner", None):
        meta["ownerReferences"] = [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": owner, "controller": True}]
    if on := spec.pop("on", ""):
        spec["nodeName"] = on
    container = {"name": "main", "image": "app", "resources": {"requests": dict(requests or {})}}
    spec.setdefault("containers", [container])
    return from_dict({"metadata": meta, "spec": spec, "status": status}, Pod)


def configured(*profiles: Object, **top: Any) -> Configuration:
    """A configuration with these profiles."""
    return parse(
        {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "profiles": [*profiles],
            **top,
        }
    )


class Scene:
    """A scheduler with a clock that stands still, told of some objects."""

    def __init__(
        self,
        *objects: Resource,
        configuration: Configuration | None = None,
        seed: int = 1,
        registry: Mapping[str, Factory] = REGISTRY,
    ) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(configuration, clock=self.clock, seed=seed, registry=registry)
        for one in objects:
            self.scheduler.upsert(one)

    def decide(self, *objects: Resource) -> Decision | None:
        """Tell of objects and have the next pod decided."""
        for one in objects:
            self.scheduler.upsert(one)
        return self.scheduler.schedule()

    def where(self, *objects: Resource) -> str:
        """Give the node that a pod is bound to."""
        decision = self.decide(*objects)
        assert isinstance(decision, Bind), decision
        return decision.node

    def why(self, *objects: Resource) -> str:
        """Give the reasons why a pod is bound to no node, without what was tried to make room."""
        return self.failed(*objects).message.split(" preemption:")[0]

    def failed(self, *objects: Resource) -> Failed:
        """Give the decision for a pod that no node was found for."""
        decision = self.decide(*objects)
        assert isinstance(decision, Failed), decision
        return decision
