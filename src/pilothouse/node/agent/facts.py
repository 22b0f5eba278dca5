"""What a pod's specification says about its life: containers by role, who restarts, who may be asked what. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pilothouse.kinds.quantity import Quantity, parse
from pilothouse.kinds.structs.core_containers import Container, EphemeralContainer, ResourceRequirements
from pilothouse.kinds.structs.core_handlers import LifecycleHandler, Probe
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.cgroupmath import Need, QosClass, qos_class

from .model import HookKind, ProbeKind

__all__ = [
    "AnyContainer",
    "Role",
    "amount",
    "container_named",
    "grace_of",
    "hook_of",
    "named_pod",
    "need_of",
    "pod_qos",
    "probe_of",
    "requests_of",
    "role_of",
    "should_restart",
]

Role: TypeAlias = Literal["init", "sidecar", "main", "ephemeral"]
AnyContainer: TypeAlias = Container | EphemeralContainer

DEFAULT_GRACE = 30


def role_of(pod: Pod) -> dict[str, tuple[Role, AnyContainer]]:
    """Return all containers by name: init containers and sidecars in their order, main ones, ephemeral ones."""
    found: dict[str, tuple[Role, AnyContainer]] = {}
    for each in pod.spec.init_containers:
        found[each.name] = ("sidecar" if each.restart_policy == "Always" else "init", each)
    for each in pod.spec.containers:
        found[each.name] = ("main", each)
    for extra in pod.spec.ephemeral_containers:
        found[extra.name] = ("ephemeral", extra)
    return found


def container_named(pod: Pod, name: str) -> AnyContainer | None:
    """Return a container of any role."""
    found = role_of(pod).get(name)
    return found[1] if found else None


def named_pod(pod: Pod) -> str:
    """Return a pod as a kubelet's messages name it: name_namespace(uid)."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def grace_of(pod: Pod) -> float:
    """Return the seconds that containers have to end; the deletion's where the pod is deleted."""
    meta, spec = pod.metadata, pod.spec
    if meta.deletion_timestamp and meta.deletion_grace_period_seconds is not None:
        return float(meta.deletion_grace_period_seconds)
    given = spec.termination_grace_period_seconds
    return float(DEFAULT_GRACE if given is None else given)


def should_restart(pod: Pod, role: Role, container: AnyContainer, exit_code: int) -> bool:
    """Say whether a container that has ended is started again."""
    if role == "ephemeral":
        return False
    if role == "sidecar":
        return True
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if rule.action == "Restart" and codes is not None and (exit_code in codes.values) == (codes.operator == "In"):
            return True
    policy = container.restart_policy or pod.spec.restart_policy or "Always"
    if role == "init":
        return exit_code != 0 and policy != "Never"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def probe_of(container: AnyContainer, kind: ProbeKind) -> Probe | None:
    """Return a probe of a container."""
    probes = {
        "startup": container.startup_probe,
        "liveness": container.liveness_probe,
        "readiness": container.readiness_probe,
    }
    return probes[kind]


def hook_of(container: AnyContainer, hook: HookKind) -> LifecycleHandler | None:
    """Return a hook of a container that has something to do."""
    if container.lifecycle is None:
        return None
    found = container.lifecycle.post_start if hook == "postStart" else container.lifecycle.pre_stop
    if found is None or not (found.exec or found.http_get or found.sleep or found.tcp_socket):
        return None
    return found


def amount(resources: ResourceRequirements | None, which: Literal["requests", "limits"], name: str) -> Quantity | None:
    """Return an amount that a container asks for, None where it does not say."""
    if resources is None:
        return None
    found = (resources.requests if which == "requests" else resources.limits).get(name)
    return None if found is None else parse(str(found))


def need_of(container: AnyContainer) -> Need:
    """Return what one container asks for, as control groups take it."""
    given = container.resources

    def milli(which: Literal["requests", "limits"]) -> int | None:
        found = amount(given, which, "cpu")
        return None if found is None else found.milli_value()

    def whole(which: Literal["requests", "limits"]) -> int | None:
        found = amount(given, which, "memory")
        return None if found is None else found.value()

    return Need(
        cpu_request=milli("requests"),
        cpu_limit=milli("limits"),
        memory_request=whole("requests"),
        memory_limit=whole("limits"),
    )


def pod_qos(pod: Pod) -> QosClass:
    """Return the pod's class."""
    return qos_class([need_of(each) for each in (*pod.spec.init_containers, *pod.spec.containers)])


def requests_of(pod: Pod) -> dict[str, int]:
    """Return what a pod takes of the node: CPU in thousandths, everything else in whole units.

    The sum of main containers and sidecars, or what an init container needs beside the sidecars before it, if more.
    """
    total: dict[str, int] = {}
    for each in pod.spec.containers:
        _add(total, each)
    sidecars: dict[str, int] = {}
    peak: dict[str, int] = {}
    for each in pod.spec.init_containers:
        if each.restart_policy == "Always":
            _add(sidecars, each)
            continue
        single = dict(sidecars)
        _add(single, each)
        peak = {name: max(peak.get(name, 0), single.get(name, 0)) for name in peak.keys() | single.keys()}
    for name, value in sidecars.items():
        total[name] = total.get(name, 0) + value
    total = {name: max(total.get(name, 0), peak.get(name, 0)) for name in total.keys() | peak.keys()}
    for name, text in pod.spec.overhead.items():
        total[name] = total.get(name, 0) + _units(name, parse(str(text)))
    return total


def _add(total: dict[str, int], container: AnyContainer) -> None:
    resources = container.resources
    for name, text in {**resources.limits, **resources.requests}.items():
        total[name] = total.get(name, 0) + _units(name, parse(str(text)))


def _units(name: str, quantity: Quantity) -> int:
    return quantity.milli_value() if name == "cpu" else quantity.value()
