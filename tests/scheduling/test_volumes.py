"""Volumes: which nodes reach them, which become a claim's own, how many a node takes, who may share one."""

from __future__ import annotations

from typing import Any

from pilothouse.kinds.structs import (
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    from_dict,
)
from pilothouse.scheduling import Bind
from pilothouse.scheduling.storage import SELECTED_NODE

from .kit import Scene, node, pod

ZONE = "topology.kubernetes.io/zone"
BOUND = {"pv.kubernetes.io/bind-completed": "yes"}


def claim(name: str, volume: str = "", storage_class: str = "slow", **more: Any) -> PersistentVolumeClaim:
    meta: dict[str, Any] = {"name": name, "namespace": "default", "annotations": BOUND if volume else {}}
    meta["annotations"] = {**meta["annotations"], **more.pop("annotations", {})}
    meta |= more.pop("meta", {})
    spec = {
        "storageClassName": storage_class,
        "volumeName": volume,
        "accessModes": more.pop("modes", ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": more.pop("size", "1Gi")}},
        **more,
    }
    return from_dict({"metadata": meta, "spec": spec, "status": {"phase": "Pending"}}, PersistentVolumeClaim)


def volume(name: str, zone: str = "", labels: dict[str, str] | None = None, **more: Any) -> PersistentVolume:
    spec: dict[str, Any] = {
        "capacity": {"storage": "1Gi"},
        "storageClassName": "slow",
        "accessModes": ["ReadWriteOnce"],
    }
    if zone:
        term = {"matchExpressions": [{"key": ZONE, "operator": "In", "values": [zone]}]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [term]}}
    meta = {"name": name, "labels": labels or {}}
    return from_dict({"metadata": meta, "spec": {**spec, **more}, "status": {"phase": "Available"}}, PersistentVolume)


def storage_class(mode: str = "WaitForFirstConsumer", **more: Any) -> StorageClass:
    tree = {"metadata": {"name": "slow"}, "provisioner": "disk.example.com", "volumeBindingMode": mode, **more}
    return from_dict(tree, StorageClass)


def using(name: str, *claims: str, **more: Any) -> Any:
    volumes = [{"name": one, "persistentVolumeClaim": {"claimName": one}} for one in claims]
    return pod(name, volumes=volumes, **more)


NODES = (node("a", {ZONE: "1"}), node("b", {ZONE: "2"}))


def test_a_bound_volume_has_the_pod_run_where_it_is_reached() -> None:
    scene = Scene(*NODES, storage_class(), claim("data", "pv1"), volume("pv1", "2"))
    assert scene.where(using("p", "data")) == "b"
    scene = Scene(NODES[0], storage_class(), claim("data", "pv1"), volume("pv1", "2"))
    why = scene.why(using("p", "data"))
    assert why == "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity."


def test_what_is_said_of_claims_that_cannot_be_used() -> None:
    scene = Scene(*NODES, storage_class("Immediate"), claim("open"))
    failed = scene.failed(using("p", "open"))
    assert failed.message == (
        "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    assert scene.why(using("q", "none")) == '0/2 nodes are available: persistentvolumeclaim "none" not found.'
    dying = claim("dying", meta={"deletionTimestamp": "2025-01-01T00:00:00Z"})
    why = Scene(*NODES, storage_class(), dying).why(using("r", "dying"))
    assert why == '0/2 nodes are available: persistentvolumeclaim "dying" is being deleted.'
    why = Scene(*NODES, storage_class(), claim("data", "gone")).why(using("s", "data"))
    assert why == '0/2 nodes are available: persistentvolume "gone" not found.'


def test_a_claim_that_waits_gets_a_volume_on_the_node_of_its_pod() -> None:
    scene = Scene(*NODES, storage_class(), claim("data"), volume("big", "2", capacity={"storage": "9Gi"}))
    scene.scheduler.upsert(volume("small", "2"))
    decision = scene.decide(using("p", "data"))
    assert isinstance(decision, Bind)
    # Nodes on which a volume can be provided do as well, so either is chosen.
    if decision.node == "b":
        assert decision.volumes is not None
        assert decision.volumes.bindings == (("small", "default/data"),)
    else:
        assert decision.volumes is not None
        assert decision.volumes.provisions == ("default/data",)


def test_a_volume_is_given_once() -> None:
    only = storage_class(provisioner="kubernetes.io/no-provisioner")
    scene = Scene(*NODES, only, claim("one"), claim("two"), volume("pv", "2"))
    first = scene.decide(using("p", "one"))
    assert isinstance(first, Bind)
    assert (first.node, first.volumes and first.volumes.bindings) == ("b", (("pv", "default/one"),))
    why = scene.why(using("q", "two"))
    assert why == "0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind."
    assert scene.scheduler.bind_failed("p", "the volume is gone") is not None
    assert scene.where(using("r", "two")) == "b"


def test_volumes_are_provided_where_the_class_allows() -> None:
    allowed = [{"matchLabelExpressions": [{"key": ZONE, "values": ["2"]}]}]
    scene = Scene(*NODES, storage_class(allowedTopologies=allowed), claim("data"))
    decision = scene.decide(using("p", "data"))
    assert isinstance(decision, Bind)
    assert decision.node == "b"
    assert decision.volumes is not None
    assert decision.volumes.provisions == ("default/data",)
    # Another pod with the claim has to go to the same node, before anyone has written that.
    assert scene.where(using("q", "data")) == "b"


def test_pods_with_one_claim_go_to_one_node_until_it_is_free_again() -> None:
    nodes = [node(f"n{number}") for number in range(6)]
    for seed in range(4):
        scene = Scene(*nodes, storage_class(), claim("data"), seed=seed)
        first = scene.where(using("p", "data", labels={"app": "a"}))
        assert scene.where(using("q", "data", labels={"app": "b"})) == first
        chosen = claim("data", annotations={SELECTED_NODE: first})
        scene.scheduler.upsert(chosen)
        # Whoever provides volumes could not do so there, and takes the choice back.
        scene.scheduler.upsert(claim("data"))
        scene.scheduler.remove(node(first))
        assert scene.where(using("r", "data")) != first


def test_a_node_chosen_before_stays_chosen() -> None:
    scene = Scene(*NODES, storage_class(), claim("data", annotations={SELECTED_NODE: "a"}))
    assert scene.where(using("p", "data")) == "a"


def test_storage_that_is_left_is_looked_at_where_the_driver_tells_it() -> None:
    driver = from_dict({"metadata": {"name": "disk.example.com"}, "spec": {"storageCapacity": True}}, CSIDriver)

    def left(amount: str) -> CSIStorageCapacity:
        topology = {"matchLabels": {ZONE: "1"}}
        meta = {"name": "c", "namespace": "kube-system"}
        tree = {"metadata": meta, "storageClassName": "slow", "capacity": amount, "nodeTopology": topology}
        return from_dict(tree, CSIStorageCapacity)

    scene = Scene(*NODES, driver, storage_class(), claim("data", size="5Gi"), left("1Gi"))
    why = scene.why(using("p", "data"))
    assert why == "0/2 nodes are available: 2 node(s) did not have enough free storage."
    scene.scheduler.upsert(left("10Gi"))
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() == "a"


def test_a_volume_with_zone_labels_has_the_pod_run_in_that_zone() -> None:
    labels = {"failure-domain.beta.kubernetes.io/zone": "2__3"}
    scene = Scene(*NODES, storage_class(), claim("data", "pv1"), volume("pv1", labels=labels))
    assert scene.where(using("p", "data")) == "b"
    scene = Scene(NODES[0], storage_class(), claim("data", "pv1"), volume("pv1", labels=labels))
    why = scene.why(using("p", "data"))
    assert why == "0/1 nodes are available: 1 node(s) had no available volume zone."


def test_a_claim_for_one_pod_is_used_by_one_pod() -> None:
    one = claim("data", "pv1", modes=["ReadWriteOncePod"])
    scene = Scene(*NODES, storage_class(), one, volume("pv1"), using("first", "data", on="a"))
    why = scene.why(using("p", "data"))
    assert why == (
        "0/2 nodes are available: 2 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode "
        "already in-use by another pod."
    )
    scene.scheduler.remove(using("first", "data", on="a"))
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() in {"a", "b"}


def test_a_pod_takes_a_claim_for_one_pod_from_a_less_important_one() -> None:
    one = claim("data", "pv1", modes=["ReadWriteOncePod"])
    scene = Scene(*NODES, storage_class(), one, volume("pv1"), using("first", "data", on="a"))
    failed = scene.failed(using("p", "data", priority=5))
    assert failed.nominated == "a"
    assert [victim.metadata.name for victim in failed.victims] == ["first"]


def test_a_disk_that_is_mounted_for_writing_is_not_shared() -> None:
    disk = [{"name": "d", "gcePersistentDisk": {"pdName": "disk1"}}]
    scene = Scene(NODES[0], pod("first", volumes=disk, on="a"))
    assert scene.why(pod("p", volumes=disk)) == "0/1 nodes are available: 1 node(s) had no available disk."
    scene.scheduler.upsert(NODES[1])
    scene.clock.advance(2)
    scene.scheduler.tick()
    assert scene.where() == "b"


def test_a_node_attaches_only_so_many_volumes() -> None:
    drivers = [{"name": "disk.example.com", "nodeID": "a", "allocatable": {"count": 1}}]
    limits = from_dict({"metadata": {"name": "a"}, "spec": {"drivers": drivers}}, CSINode)
    volumes = [volume(f"pv{i}", csi={"driver": "disk.example.com", "volumeHandle": f"h{i}"}) for i in (1, 2)]
    claims = [claim("one", "pv1"), claim("two", "pv2")]
    scene = Scene(NODES[0], limits, storage_class(), *volumes, *claims, using("first", "one", on="a"))
    assert scene.where(using("same", "one")) == "a"
    why = scene.why(using("p", "two"))
    assert why == "0/1 nodes are available: 1 node(s) exceed max volume count."
