"""The Node and Lease objects of a fleet. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pilothouse.node.agent.nodeobject import CONDITIONS, KUBELET_VERSION

from .rules import Rules

__all__ = ["FleetOptions", "heartbeat_of", "lease_of", "node_of", "node_status_of"]


class FleetOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How many nodes, what each has, and how often it is heard of.

    prefix: of the nodes' names, with a number each. zones: over how many zones they are spread. writers: calls of pods'
    statuses under way at once. tick: how exact times are, in seconds.
    """

    count: int
    prefix: str = "sim"
    cpu: str = "8"
    memory: str = "32Gi"
    max_pods: int = 110
    zones: int = 3
    labels: Mapping[str, str] = {}
    renew_seconds: float = 10.0
    lease_seconds: int = 40
    status_seconds: float = 300.0
    writers: int = 32
    tries: int = 10
    tick: float = 0.02
    rules: Rules = Rules()

    def address(self, number: int) -> str:
        """Return a node's address, of a range that no machine has."""
        return f"198.18.{number >> 8 & 255}.{number & 255}" if number < 1 << 16 else f"198.19.{number >> 8 & 255}.1"


def node_of(options: FleetOptions, number: int) -> dict[str, Any]:
    """Return a Node as it is made."""
    name = f"{options.prefix}-{number}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": f"zone-{number % options.zones}",
        "simulated.pilothouse.dev/node": "true",
        **options.labels,
    }
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def heartbeat_of(now: str) -> dict[str, Any]:
    """Return what a node says of itself now and then, as a patch of its status."""
    return {"conditions": [{"type": kind, "lastHeartbeatTime": now} for kind in (*CONDITIONS, "Ready")]}


def node_status_of(options: FleetOptions, number: int, now: str) -> dict[str, Any]:
    """Return a Node's whole status, as a patch."""
    amounts = {"cpu": options.cpu, "memory": options.memory, "pods": str(options.max_pods)}
    amounts["ephemeral-storage"] = "100Gi"
    found = [(kind, "False", *texts[1]) for kind, texts in CONDITIONS.items()]
    found.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    return {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
            for kind, status, reason, message in found
        ],
        "addresses": [
            {"type": "InternalIP", "address": options.address(number)},
            {"type": "Hostname", "address": f"{options.prefix}-{number}"},
        ],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": f"{number:08x}",
            "containerRuntimeVersion": "simulated://1",
            "kernelVersion": "0.0.0-simulated",
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": f"{number:032x}",
            "operatingSystem": "linux",
            "osImage": "simulated",
            "systemUUID": f"{number:08x}-0000-0000-0000-000000000000",
        },
    }


def lease_of(options: FleetOptions, number: int, uid: str, now: str) -> dict[str, Any]:
    """Return a node's Lease as it is made."""
    name = f"{options.prefix}-{number}"
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": options.lease_seconds, "renewTime": now},
    }
