"""The flow schemas and priority levels that Kubernetes 1.36 starts with, as objects to create."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pilothouse.apiserver.ports import Object

__all__ = ["AUTO_UPDATE", "CATCH_ALL", "EXEMPT", "FLOW_SCHEMAS", "MANDATORY", "PRIORITY_LEVELS"]

AUTO_UPDATE: Final = "apf.kubernetes.io/autoupdate-spec"
"""The annotation of objects whose spec the server keeps as it was made here."""

EXEMPT: Final = "exempt"
CATCH_ALL: Final = "catch-all"
MANDATORY: Final = frozenset({EXEMPT, CATCH_ALL})
"""Names of the objects without which no request could be sorted; imagined where they are missing."""

_VERSION = "flowcontrol.apiserver.k8s.io/v1"
_ANYBODY = ("system:unauthenticated", "system:authenticated")
_SPECIAL_USERS = ("system:kube-controller-manager", "system:kube-scheduler")


def _object(kind: str, name: str, spec: Object) -> Object:
    metadata = {"name": name, "annotations": {AUTO_UPDATE: "true"}}
    return {"apiVersion": _VERSION, "kind": kind, "metadata": metadata, "spec": spec}


def _level(name: str, shares: int, lendable: int, queues: int, hand: int) -> Object:
    response: Object = {"type": "Reject"}
    if queues:
        response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}
    limited = {"nominalConcurrencyShares": shares, "limitResponse": response, "lendablePercent": lendable}
    return _object("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited})


def _groups(*names: str) -> list[Object]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _users(*names: str) -> list[Object]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _system_accounts() -> list[Object]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}}]


def _resources(verbs: Sequence[str], group: str, resources: Sequence[str], *, cluster: bool) -> Object:
    rule: Object = {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources), "namespaces": ["*"]}
    return rule | ({"clusterScope": True} if cluster else {})


def _everything() -> dict[str, Any]:
    return {
        "resourceRules": [_resources(["*"], "*", ["*"], cluster=True)],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }


def _schema(
    name: str, level: str, precedence: int, by: str, subjects: list[Object], rules: dict[str, Any] | None = None
) -> Object:
    spec: Object = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [{"subjects": subjects} | (_everything() if rules is None else rules)],
    }
    if by:
        spec["distinguisherMethod"] = {"type": by}
    return _object("FlowSchema", name, spec)


PRIORITY_LEVELS: Final[tuple[Object, ...]] = (
    _object(
        "PriorityLevelConfiguration",
        EXEMPT,
        {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}},
    ),
    _level(CATCH_ALL, 5, 0, 0, 0),
    _level("system", 30, 33, 64, 6),
    _level("node-high", 40, 25, 64, 6),
    _level("leader-election", 10, 0, 16, 4),
    _level("workload-high", 40, 50, 128, 6),
    _level("workload-low", 100, 90, 128, 6),
    _level("global-default", 20, 50, 128, 6),
)

_PROBES = {"nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}]}
_LEASES = _resources(["get", "create", "update"], "coordination.k8s.io", ["leases"], cluster=False)
_NODE_HEARTBEATS = {
    "resourceRules": [
        _resources(["*"], "", ["nodes", "nodes/status"], cluster=True),
        _resources(["*"], "coordination.k8s.io", ["leases"], cluster=False),
    ]
}

FLOW_SCHEMAS: Final[tuple[Object, ...]] = (
    _schema(EXEMPT, EXEMPT, 1, "", _groups("system:masters")),
    _schema(CATCH_ALL, CATCH_ALL, 10_000, "ByUser", _groups(*_ANYBODY)),
    _schema("system-nodes", "system", 500, "ByUser", _groups("system:nodes")),
    _schema("system-node-high", "node-high", 400, "ByUser", _groups("system:nodes"), _NODE_HEARTBEATS),
    _schema("probes", EXEMPT, 2, "", _groups(*_ANYBODY), _PROBES),
    _schema(
        "system-leader-election",
        "leader-election",
        100,
        "ByUser",
        _users(*_SPECIAL_USERS) + _system_accounts(),
        {"resourceRules": [_LEASES]},
    ),
    _schema("kube-controller-manager", "workload-high", 800, "ByNamespace", _users(_SPECIAL_USERS[0])),
    _schema("kube-scheduler", "workload-high", 800, "ByNamespace", _users(_SPECIAL_USERS[1])),
    _schema("kube-system-service-accounts", "workload-high", 900, "ByNamespace", _system_accounts()),
    _schema("service-accounts", "workload-low", 9000, "ByUser", _groups("system:serviceaccounts")),
    _schema("global-default", "global-default", 9900, "ByUser", _groups(*_ANYBODY)),
)
