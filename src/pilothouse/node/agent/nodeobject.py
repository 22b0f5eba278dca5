"""The Node object: what is written of this node when it joins and while it lives. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse import __version__
from pilothouse.node.runtime import ImageStatus, RuntimeStatus

from .machine import MachineFacts
from .options import AgentOptions

__all__ = ["CONDITIONS", "KUBELET_VERSION", "NodeView", "node_labels", "node_status"]

KUBELET_VERSION: Final = f"v1.36.0+pilothouse-{__version__}"
_MAX_NAMES: Final = 5
CONDITIONS: Final = {
    "MemoryPressure": (
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ),
}


class NodeView(msgspec.Struct, frozen=True, kw_only=True):
    """All that the node's status is made of."""

    options: AgentOptions
    facts: MachineFacts
    runtime: RuntimeStatus
    addresses: tuple[str, ...]
    pressures: frozenset[str] = frozenset()
    images: Sequence[ImageStatus] = ()


def node_labels(view: NodeView) -> dict[str, str]:
    """Return the labels that every node has, and those that were asked for."""
    arch = view.facts.architecture
    return {
        "beta.kubernetes.io/arch": arch,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": arch,
        "kubernetes.io/os": "linux",
        "kubernetes.io/hostname": view.options.name,
        **view.options.labels,
    }


def node_status(view: NodeView, known: Iterable[Mapping[str, Any]], now: str) -> dict[str, Any]:
    """Return the status; a condition keeps the time of its last change. `known` are the conditions written last."""
    options, facts = view.options, view.facts
    before = {each["type"]: each for each in known}
    addresses = [{"type": "InternalIP", "address": each} for each in view.addresses]
    status: dict[str, Any] = {
        "capacity": _amounts(facts, options, 0, 0, 1.0),
        "allocatable": _amounts(
            facts,
            options,
            options.reserved_cpu,
            options.reserved_memory + options.thresholds.memory_available,
            1 - options.thresholds.disk_available,
        ),
        "conditions": [_condition(before, found, now) for found in _conditions(view)],
        "addresses": [*addresses, {"type": "Hostname", "address": options.name}],
        "nodeInfo": _node_info(view),
        "images": _images(view),
    }
    if options.port:
        status["daemonEndpoints"] = {"kubeletEndpoint": {"Port": options.port}}
    return status


def _amounts(facts: MachineFacts, options: AgentOptions, cpu: int, memory: int, disk: float) -> dict[str, str]:
    milli = max(facts.cpus * 1000 - cpu, 0)
    return {
        "cpu": str(milli // 1000) if milli % 1000 == 0 else f"{milli}m",
        "memory": f"{max(facts.memory - memory, 0) // 1024}Ki",
        "ephemeral-storage": f"{int(facts.disk * disk) // 1024}Ki",
        "pods": str(options.max_pods),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }


def _conditions(view: NodeView) -> list[tuple[str, str, str, str]]:
    found = []
    for kind, (bad, good) in CONDITIONS.items():
        is_bad = kind in view.pressures
        reason, message = bad if is_bad else good
        found.append((kind, "True" if is_bad else "False", reason, message))
    faults = [
        text
        for ok, text in (
            (view.runtime.runtime_ready, "container runtime is down"),
            (view.runtime.network_ready, "container runtime network not ready"),
        )
        if not ok
    ]
    if faults:
        found.append(("Ready", "False", "KubeletNotReady", ", ".join(faults)))
    else:
        found.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    return found


def _condition(before: Mapping[str, Mapping[str, Any]], found: tuple[str, str, str, str], now: str) -> dict[str, Any]:
    kind, status, reason, message = found
    known = before.get(kind)
    same = known is not None and known.get("status") == status
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": known.get("lastTransitionTime", now) if known is not None and same else now,
    }


def _node_info(view: NodeView) -> dict[str, Any]:
    facts = view.facts
    return {
        "machineID": facts.machine_id,
        "systemUUID": facts.system_uuid,
        "bootID": facts.boot_id,
        "kernelVersion": facts.kernel,
        "osImage": facts.os_image,
        "containerRuntimeVersion": f"{view.runtime.name}://{view.runtime.version}",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": facts.architecture,
    }


def _images(view: NodeView) -> list[dict[str, Any]]:
    """Return the largest images, for they matter to a scheduler."""
    ordered = sorted(view.images, key=lambda image: (-image.size, image.id))[: view.options.max_images]
    return [
        {"names": [*image.digests, *image.tags][:_MAX_NAMES] or [image.id], "sizeBytes": image.size}
        for image in ordered
    ]
