from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pilothouse.apiserver.access.node import NodeAuthorizer, references
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes
from support.accessview import MemoryView, asks, asks_path, metadata, pod

N1 = User("system:node:n1", groups=("system:nodes", "system:authenticated"))
N2 = User("system:node:n2", groups=("system:nodes", "system:authenticated"))

SPEC: dict[str, Any] = {
    "nodeName": "n1",
    "serviceAccountName": "robot",
    "imagePullSecrets": [{"name": "pull"}],
    "containers": [
        {
            "name": "c",
            "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env-map", "key": "k"}}},
                {"name": "C", "value": "x"},
            ],
            "envFrom": [{"secretRef": {"name": "all-secret"}}, {"configMapRef": {"name": "all-map"}}],
        }
    ],
    "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "init-map"}}]}],
    "volumes": [
        {"name": "v1", "secret": {"secretName": "vol-secret"}},
        {"name": "v2", "configMap": {"name": "vol-map"}},
        {"name": "v3", "projected": {"sources": [{"secret": {"name": "proj-secret"}}, {"configMap": {"name": "pm"}}]}},
        {"name": "v4", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "v5", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "v6", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi-secret"}}},
        {"name": "v7", "emptyDir": {}},
    ],
    "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu-1"}],
}


def placed(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {**pod(name), "spec": {**SPEC, **spec}}


@pytest.fixture
def view() -> MemoryView:
    view = MemoryView()
    view.put("pods", placed())
    view.put(
        "persistentvolumes",
        {"metadata": metadata("pv-1"), "spec": {"claimRef": {"namespace": "default", "name": "data"}}},
    )
    attachment = {"metadata": metadata("va"), "spec": {"nodeName": "n1"}}
    view.put("volumeattachments.storage.k8s.io", attachment)
    return view


@pytest.fixture
def node(view: MemoryView) -> NodeAuthorizer:
    return NodeAuthorizer(view)


def test_what_a_pod_uses() -> None:
    used: dict[str, set[str]] = {}
    for resource, namespace, name in references(placed()):
        assert namespace == "default"
        used.setdefault(resource, set()).add(name)
    assert used == {
        "serviceaccounts": {"robot"},
        "secrets": {"pull", "env-secret", "all-secret", "vol-secret", "proj-secret", "csi-secret"},
        "configmaps": {"env-map", "all-map", "init-map", "vol-map", "pm"},
        "persistentvolumeclaims": {"data", "web-v5"},
        "resourceclaims": {"gpu-1"},
    }


OWN = [
    asks(N1, "get", "secrets", "default", "vol-secret"),
    asks(N1, "watch", "secrets", "default", "pull"),
    asks(N1, "list", "configmaps", "default", "all-map"),
    asks(N1, "get", "persistentvolumeclaims", "default", "data"),
    asks(N1, "patch", "persistentvolumeclaims/status", "default", "data"),
    asks(N1, "get", "persistentvolumes", "", "pv-1"),
    asks(N1, "get", "resourceclaims", "default", "gpu-1", "resource.k8s.io"),
    asks(N1, "get", "volumeattachments", "", "va", "storage.k8s.io"),
    asks(N1, "create", "serviceaccounts/token", "default", "robot"),
    asks(N1, "get", "serviceaccounts", "default", "robot"),
    asks(N1, "get", "pods", "default", "web"),
    asks(N1, "get", "nodes", "", "n1"),
]
BOTH = [
    asks(N1, "create", "nodes"),
    asks(N1, "patch", "nodes/status", "", "n1"),
    asks(N1, "create", "events", "default"),
    asks(N1, "create", "pods", "default"),
    asks(N1, "patch", "pods/status", "default", "web"),
    asks(N1, "create", "pods/eviction", "default", "web"),
    asks(N1, "list", "services"),
    asks(N1, "create", "leases", "kube-node-lease", "", "coordination.k8s.io"),
    asks(N1, "list", "runtimeclasses", "", "", "node.k8s.io"),
    asks(N1, "create", "certificatesigningrequests", "", "", "certificates.k8s.io"),
]
NEITHER = [
    (asks(N1, "get", "secrets", "default", "other"), "no relationship found between node 'n1' and this object"),
    (asks(N1, "get", "secrets", "elsewhere", "vol-secret"), "no relationship found between node 'n1' and this object"),
    (asks(N1, "list", "secrets", "default"), "No Object name found"),
    (asks(N1, "list", "secrets"), "can only read namespaced object of this type"),
    (asks(N1, "delete", "secrets", "default", "vol-secret"), "can only read resources of this type"),
    (asks(N1, "list", "persistentvolumeclaims", "default"), "can only get individual resources of this type"),
    (
        asks(N1, "create", "serviceaccounts/token", "default", "admin"),
        "no relationship found between node 'n1' and this object",
    ),
    (
        asks(N1, "delete", "serviceaccounts", "default", "robot"),
        "can only create tokens for individual service accounts",
    ),
    (asks(N1, "list", "nodes"), "node 'n1' cannot read all nodes, only its own Node object"),
    (asks(N1, "get", "nodes", "", "n2"), "node 'n1' cannot read 'n2', only its own Node object"),
    (asks(N1, "list", "pods"), "can only list/watch pods with spec.nodeName field selector"),
    (
        asks(N1, "update", "leases", "kube-node-lease", "n2", "coordination.k8s.io"),
        "can only access node lease with the same name as the requesting node",
    ),
    (
        asks(N1, "update", "leases", "default", "n1", "coordination.k8s.io"),
        'can only access leases in the "kube-node-lease" system namespace',
    ),
    (
        asks(N1, "update", "csinodes", "", "n2", "storage.k8s.io"),
        "can only access CSINode with the same name as the requesting node",
    ),
    (asks(N1, "delete", "deployments", "default", "x", "apps"), ""),
    (asks(N1, "create", "pods/exec", "default", "web"), ""),
    (asks_path(N1, "get", "/metrics"), ""),
]


@pytest.mark.parametrize("wanted", OWN)
def test_a_node_may_see_what_its_pods_use_and_another_may_not(node: NodeAuthorizer, wanted: Attributes) -> None:
    assert node.authorize(wanted).allowed
    assert not node.authorize(replace(wanted, user=N2)).allowed


@pytest.mark.parametrize("wanted", BOTH)
def test_what_each_node_may(node: NodeAuthorizer, wanted: Attributes) -> None:
    assert node.authorize(wanted).allowed


@pytest.mark.parametrize(("wanted", "reason"), NEITHER)
def test_what_no_node_may(node: NodeAuthorizer, wanted: Attributes, reason: str) -> None:
    found = node.authorize(wanted)
    assert (found.allowed, found.denied, found.reason) == (False, False, reason)


@pytest.mark.parametrize("selector", ["spec.nodeName=n1", "status.phase!=Failed,spec.nodeName==n1"])
def test_a_node_lists_its_own_pods(node: NodeAuthorizer, selector: str) -> None:
    wanted = replace(asks(N1, "list", "pods"), field_selector=selector)
    assert node.authorize(wanted).allowed
    assert not node.authorize(replace(wanted, user=N2)).allowed
    assert not node.authorize(replace(wanted, field_selector=f"metadata.name={selector}0")).allowed


def test_it_follows_the_pods(view: MemoryView, node: NodeAuthorizer) -> None:
    wanted = asks(N1, "get", "secrets", "default", "vol-secret")
    assert node.authorize(wanted).allowed
    view.put("pods", placed("second"))
    view.remove("pods", "default", "web")
    assert node.authorize(wanted).allowed
    view.put("pods", {**placed("second"), "status": {"phase": "Running"}})
    view.remove("pods", "default", "second")
    assert not node.authorize(wanted).allowed
    view.put("pods", placed("third", nodeName=""))
    assert not node.authorize(wanted).allowed
    view.put("pods", placed("third"))
    assert node.authorize(wanted).allowed
    assert node._used.keys() == {"n1"}


def test_others_are_left_to_others(node: NodeAuthorizer) -> None:
    for user in (User("bob"), User("system:node:n1"), User("bob", groups=("system:masters",))):
        assert node.authorize(asks(user, "get", "nodes", "", "n1")).reason == ""
    unknown = node.authorize(asks(User("bob", groups=("system:nodes",)), "get", "nodes", "", "n1"))
    assert (unknown.allowed, unknown.reason) == (False, 'unknown node for user "bob"')
