"""Which volume a claim gets, and directories of nodes as volumes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import (
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    from_dict,
    replace,
    to_dict,
)
from pilothouse.operator.harness import Harness
from pilothouse.testing import ControlPlane
from pilothouse.workloads.reconcilers.localvolumes import add_local_volumes
from pilothouse.workloads.reconcilers.volumes import add_claim_protection, add_volume_protection, add_volumes
from pilothouse.workloads.volumes import (
    best_volume,
    bound_claim,
    bound_status,
    bound_volume,
    default_class,
    mismatch,
    unbound_volume,
    undeletable,
)
from pilothouse.workloads.volumes_local import (
    FINALIZER,
    REMOVED,
    ROOT_OF_NODE,
    TO_REMOVE,
    folder_on,
    local_class,
    local_volume,
    node_for,
    place_of,
)


def volume(name: str, size: str = "1Gi", modes: Sequence[str] = ("ReadWriteOnce",), **spec: Any) -> PersistentVolume:
    labels = spec.pop("labels", {})
    base = {"capacity": {"storage": size}, "accessModes": [*modes], "storageClassName": "c"}
    tree = {"metadata": {"name": name, "labels": labels}, "spec": base | spec, "status": {"phase": "Available"}}
    return from_dict(tree, PersistentVolume)


def claim(size: str = "1Gi", modes: Sequence[str] = ("ReadWriteOnce",), **spec: Any) -> PersistentVolumeClaim:
    base = {"resources": {"requests": {"storage": size}}, "accessModes": [*modes], "storageClassName": "c"}
    metadata = {"name": "a", "namespace": "ns", "uid": "u"}
    tree = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": base | spec}
    return from_dict(tree, PersistentVolumeClaim)


VOLUMES = [
    volume("five", "5Gi"),
    volume("two", "2Gi", labels={"tier": "a"}),
    volume("many", "1Gi", modes=("ReadWriteOnce", "ReadWriteMany")),
    volume("other", "1Gi", storageClassName="d"),
    volume("block", "1Gi", volumeMode="Block"),
    volume("taken", "1Gi", claimRef={"namespace": "ns", "name": "b"}),
]
MEANT = volume("meant", "9Gi", storageClassName="x", claimRef={"namespace": "ns", "name": "a"})


@pytest.mark.parametrize(
    ("found", "volumes", "delayed", "expected"),
    [
        (claim("1500Mi"), VOLUMES, False, "two"),
        (claim("3Gi"), VOLUMES, False, "five"),
        (claim("6Gi"), VOLUMES, False, None),
        (claim(), VOLUMES, False, "two"),  # of the fewest modes, though another one is smaller
        (claim(modes=("ReadWriteMany",)), VOLUMES, False, "many"),
        (claim(modes=("ReadOnlyMany",)), VOLUMES, False, None),
        (claim(volumeMode="Block"), VOLUMES, False, "block"),
        (claim(storageClassName="d"), VOLUMES, False, "other"),
        (claim(selector={"matchLabels": {"tier": "a"}}), VOLUMES, False, "two"),
        (claim(selector={"matchLabels": {"tier": "z"}}), VOLUMES, False, None),
        (claim(), VOLUMES, True, None),
        (claim(), [*VOLUMES, MEANT], False, "meant"),
        (claim(), [*VOLUMES, MEANT], True, "meant"),
    ],
)
def test_the_best_volume(
    found: PersistentVolumeClaim, volumes: Sequence[PersistentVolume], delayed: bool, expected: str | None
) -> None:
    best = best_volume(found, volumes, delayed)
    assert (None if best is None else best.metadata.name) == expected


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (volume("v"), ""),
        (volume("v", "500Mi"), "requested PV is too small"),
        (volume("v", storageClassName=""), "storageClassName does not match"),
        (volume("v", volumeMode="Block"), "incompatible volumeMode"),
        (volume("v", modes=("ReadOnlyMany",)), "incompatible accessMode"),
    ],
)
def test_why_a_named_volume_will_not_do(named: PersistentVolume, expected: str) -> None:
    assert mismatch(named, claim()) == expected


def test_both_say_that_they_belong_together_and_once() -> None:
    made = bound_volume(volume("v"), claim())
    assert made.spec.claim_ref is not None
    assert (made.spec.claim_ref.name, made.spec.claim_ref.uid) == ("a", "u")
    assert made.metadata.annotations == {"pv.kubernetes.io/bound-by-controller": "yes"}
    assert bound_volume(made, claim()) is made
    found = bound_claim(claim(), made)
    assert found.spec.volume_name == "v"
    assert bound_claim(found, made) is found
    told = bound_status(found, made)
    assert (told.status.phase, told.status.capacity) == ("Bound", {"storage": "1Gi"})
    assert bound_status(told, made) is told
    assert unbound_volume(made).spec.claim_ref is None
    assert bound_volume(MEANT, claim()).metadata.annotations == {}
    kept = unbound_volume(bound_volume(MEANT, claim())).spec.claim_ref
    assert kept is not None
    assert (kept.name, kept.uid) == ("a", "")


def test_the_newest_default_class() -> None:
    def marked(name: str, time: str, mark: str = "true") -> StorageClass:
        notes = {"storageclass.kubernetes.io/is-default-class": mark}
        return from_dict({"metadata": {"name": name, "creationTimestamp": time, "annotations": notes}}, StorageClass)

    old, new = marked("old", "2026-01-01T00:00:00Z"), marked("new", "2026-01-02T00:00:00Z")
    assert default_class([old, new, marked("no", "2026-01-03T00:00:00Z", "false")]) is new
    assert default_class([]) is None


def test_a_directory_is_on_its_node_and_under_its_root() -> None:
    node = from_dict({"metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "host"}}}, Node)
    made = local_volume(claim(), local_class(), node)
    assert place_of(made) == ("host", "/var/lib/pilothouse/volumes/pvc-u_ns_a")
    assert node_for([node], 0) is None


async def test_a_claim_gets_a_directory_when_its_pod_has_a_node_and_gives_it_back() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=FakeClock())
        for add in (add_volumes, add_claim_protection, add_volume_protection, add_local_volumes):
            add(harness.manager)
        claims = "/api/v1/namespaces/default/persistentvolumeclaims"
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        about = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}}
        async with harness:
            await plane.call("POST", claims, about | {"spec": spec})
            await harness.converge()
            assert (await plane.call("GET", f"{claims}/data"))["status"]["phase"] == "Pending"
            about_node = {
                "name": "n",
                "labels": {"kubernetes.io/hostname": "host"},
                "annotations": {ROOT_OF_NODE: "/srv/volumes"},
            }
            await plane.call("POST", "/api/v1/nodes", {"kind": "Node", "metadata": about_node})
            status = {"nodeInfo": {"kubeletVersion": "v1.36.0"}}
            await plane.call("PATCH", "/api/v1/nodes/n/status", {"status": status})
            await harness.converge()
            waiting = await plane.call("GET", f"{claims}/data")
            assert waiting["spec"]["storageClassName"] == "local-path"
            assert waiting["status"]["phase"] == "Pending"
            notes = {"volume.kubernetes.io/selected-node": "n"}
            await plane.call("PATCH", f"{claims}/data", {"metadata": {"annotations": notes}})
            await harness.converge()
            bound = await plane.call("GET", f"{claims}/data")
            assert bound["status"] == {
                "phase": "Bound",
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "1Gi"},
            }
            name = bound["spec"]["volumeName"]
            found = await plane.call("GET", f"/api/v1/persistentvolumes/{name}")
            assert found["status"]["phase"] == "Bound"
            root, _, folder = found["spec"]["hostPath"]["path"].rpartition("/")
            assert (root, folder) == ("/srv/volumes", f"{name}_default_data")
            await plane.call("DELETE", f"{claims}/data")
            await harness.converge()
            asked = (await plane.call("GET", "/api/v1/nodes/n"))["metadata"]["annotations"]
            assert asked[TO_REMOVE] == folder
            found = await plane.call("GET", f"/api/v1/persistentvolumes/{name}")
            assert found["metadata"]["finalizers"] == [FINALIZER]
            await plane.call("PATCH", "/api/v1/nodes/n", {"metadata": {"annotations": {REMOVED: folder}}})
            await harness.converge()
            assert TO_REMOVE not in (await plane.call("GET", "/api/v1/nodes/n"))["metadata"]["annotations"]
            assert (await plane.call("GET", "/api/v1/persistentvolumes"))["items"] == []
            await plane.call("DELETE", "/apis/storage.k8s.io/v1/storageclasses/local-path")
            await harness.converge()
            assert (await plane.call("GET", "/apis/storage.k8s.io/v1/storageclasses"))["items"] == []


@pytest.mark.parametrize("way", ["node gone", "other root", "kept", "deleted while free"])
async def test_a_deleted_volume_goes_when_nobody_has_to_remove_its_directory(way: str) -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        harness = Harness(client, clock=FakeClock())
        for add in (add_volumes, add_volume_protection, add_local_volumes):
            add(harness.manager)
        root = "/elsewhere" if way == "other root" else "/srv/volumes"
        node = {"name": "n", "annotations": {ROOT_OF_NODE: "/srv/volumes"}}
        bound = way != "deleted while free"
        volume = local_volume(claim(), local_class(), from_dict({"metadata": node}, Node))
        body = to_dict(volume)
        body["spec"]["hostPath"]["path"] = body["spec"]["hostPath"]["path"].replace("/srv/volumes", root)
        if not bound:
            del body["spec"]["claimRef"]
        volumes = "/api/v1/persistentvolumes"
        async with harness:
            await plane.call("POST", "/api/v1/nodes", {"kind": "Node", "metadata": node})
            if way == "kept":
                body["spec"]["persistentVolumeReclaimPolicy"] = "Retain"
            await plane.call("POST", volumes, body)
            await harness.converge()
            if way == "kept":
                found = await plane.call("GET", f"{volumes}/pvc-u")
                assert "finalizers" not in found["metadata"] or FINALIZER not in found["metadata"]["finalizers"]
            if way in {"kept", "deleted while free"}:
                await plane.call("DELETE", f"{volumes}/pvc-u")
                await harness.converge()
            notes = (await plane.call("GET", "/api/v1/nodes/n"))["metadata"]["annotations"]
            if way in {"node gone", "deleted while free"}:
                assert notes[TO_REMOVE] == "pvc-u_ns_a"
                await plane.call("DELETE", "/api/v1/nodes/n")
                await harness.converge()
            else:
                assert TO_REMOVE not in notes
            assert (await plane.call("GET", volumes))["items"] == []


def test_only_a_volumes_own_directory_is_its_own() -> None:
    node = from_dict({"metadata": {"name": "n", "annotations": {ROOT_OF_NODE: "/srv/"}}}, Node)
    made = local_volume(claim(), local_class(), node)
    assert folder_on(made, node) == "pvc-u_ns_a"
    for path in ("/srv/pvc-other_ns_a", "/srv/x/pvc-u_ns_a", "/srv", "/pvc-u_ns_a", "/srv/pvc-u_a,b"):
        assert folder_on(replace(made, spec__host_path__path=path), node) == ""
    assert folder_on(made, from_dict({"metadata": {"name": "m", "annotations": {ROOT_OF_NODE: "/srv"}}}, Node)) == ""
    assert folder_on(made, from_dict({"metadata": {"name": "n"}}, Node)) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/x", "host_path deleter only supports /tmp/.+ but received provided /x"),
        ("/tmp/x", 'error getting deleter volume plugin for volume "v": no volume plugin matched'),
    ],
)
def test_why_a_volume_made_by_hand_is_not_deleted(path: str, why: str) -> None:
    assert undeletable(volume("v", hostPath={"path": path})) == why
