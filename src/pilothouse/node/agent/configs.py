"""From a pod to what a runtime is told: sandbox and container configurations. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeVar

import msgspec

from pilothouse.kinds.structs.core_containers import SecurityContext as PodContainerContext
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.cgroupmath import container_resources, oom_score_adj, pod_cgroup, pod_resources
from pilothouse.node.config import (
    Capabilities,
    ContainerConfig,
    ContainerMetadata,
    DNSConfig,
    Mount,
    NamespaceOptions,
    PortMapping,
    SandboxConfig,
    SandboxMetadata,
    Seccomp,
    SecurityContext,
)

from .facts import AnyContainer, grace_of, need_of, pod_qos
from .ports import ConfigError, expand

__all__ = ["container_config", "log_directory", "sandbox_config", "security_of"]

C = TypeVar("C", SandboxConfig, ContainerConfig)

_LABELS: Final = "io.kubernetes.pod"
_MAX_HOSTNAME: Final = 63
_CRITICAL_PRIORITY: Final = 2_000_000_000


def log_directory(root: str, pod: Pod) -> str:
    """Return where the logs of a pod are: NAMESPACE_NAME_UID."""
    meta = pod.metadata
    return f"{root}/{meta.namespace}_{meta.name}_{meta.uid}"


def sandbox_config(pod: Pod, attempt: int, *, logs: str, dns: DNSConfig) -> SandboxConfig:
    """Return what is told of a pod's sandbox."""
    meta, spec = pod.metadata, pod.spec
    needs = [need_of(each) for each in spec.containers]
    hostname = spec.hostname_override or spec.hostname or meta.name[:_MAX_HOSTNAME].rstrip("-.")
    ports = [
        PortMapping(
            container_port=port.container_port,
            host_port=port.host_port,
            protocol=port.protocol or "TCP",
            host_ip=port.host_ip,
        )
        for each in (*spec.init_containers, *spec.containers)
        for port in each.ports
        if port.host_port and not spec.host_network
    ]
    sysctls = spec.security_context.sysctls if spec.security_context else ()
    made = SandboxConfig(
        metadata=SandboxMetadata(name=meta.name, namespace=meta.namespace, uid=meta.uid, attempt=attempt),
        hostname="" if spec.host_network else hostname,
        log_directory=log_directory(logs, pod),
        dns=dns,
        annotations=dict(meta.annotations),
        port_mappings=tuple(ports),
        labels={
            **meta.labels,
            f"{_LABELS}.name": meta.name,
            f"{_LABELS}.namespace": meta.namespace,
            f"{_LABELS}.uid": meta.uid,
        },
        cgroup_parent=pod_cgroup(meta.uid, pod_qos(pod)),
        resources=pod_resources(needs),
        sysctls={each.name: each.value for each in sysctls},
        security=SecurityContext(namespaces=_namespaces(pod)),
    )
    return _plain(made)


def container_config(  # noqa: PLR0913  all of a container, most with a default
    pod: Pod,
    container: AnyContainer,
    attempt: int,
    *,
    mounts: Sequence[Mount],
    envs: Sequence[tuple[str, str]],
    memory_capacity: int,
    image_user: str = "",
    target_id: str = "",
) -> ContainerConfig:
    """Return what is told of a container. Raises `ConfigError` for what the pod forbids of the image."""
    known = dict(envs)
    need = need_of(container)
    priority = pod.spec.priority or 0
    score = oom_score_adj(
        pod_qos(pod), need.memory_request or 0, memory_capacity, critical=priority >= _CRITICAL_PRIORITY
    )
    stop = (container.lifecycle.stop_signal if container.lifecycle else None) or ""
    made = ContainerConfig(
        metadata=ContainerMetadata(name=container.name, attempt=attempt),
        image=container.image,
        command=tuple(expand(word, known) for word in container.command),
        args=tuple(expand(word, known) for word in container.args),
        working_dir=container.working_dir,
        envs=tuple(envs),
        mounts=tuple(mounts),
        labels={
            "io.kubernetes.container.name": container.name,
            f"{_LABELS}.name": pod.metadata.name,
            f"{_LABELS}.namespace": pod.metadata.namespace,
            f"{_LABELS}.uid": pod.metadata.uid,
        },
        annotations={
            "io.kubernetes.container.restartCount": str(attempt),
            f"{_LABELS}.terminationGracePeriod": f"{grace_of(pod):g}",
        },
        log_path=f"{container.name}/{attempt}.log",
        stdin=bool(container.stdin),
        stdin_once=bool(container.stdin_once),
        tty=bool(container.tty),
        resources=container_resources(need, score),
        security=security_of(pod, container, image_user=image_user, target_id=target_id),
        stop_signal=stop,
    )
    return _plain(made)


def security_of(pod: Pod, container: AnyContainer, *, image_user: str = "", target_id: str = "") -> SecurityContext:
    """Return as whom and with which rights a container runs; its own fields before the pod's."""
    outer = pod.spec.security_context
    inner = container.security_context or PodContainerContext()
    user = inner.run_as_user if inner.run_as_user is not None else (outer.run_as_user if outer else None)
    group = inner.run_as_group if inner.run_as_group is not None else (outer.run_as_group if outer else None)
    non_root = inner.run_as_non_root if inner.run_as_non_root is not None else (outer and outer.run_as_non_root)
    if non_root:
        _check_non_root(pod, container, user, image_user)
    groups: list[int] = list(outer.supplemental_groups) if outer else []
    if outer and outer.fs_group is not None:
        groups.append(outer.fs_group)
    capabilities = inner.capabilities
    return SecurityContext(
        run_as_user=user,
        run_as_group=group,
        supplemental_groups=tuple(groups),
        supplemental_groups_policy=(outer.supplemental_groups_policy if outer else None) or "Merge",
        capabilities=Capabilities(add=tuple(capabilities.add), drop=tuple(capabilities.drop))
        if capabilities
        else Capabilities(),
        privileged=bool(inner.privileged),
        read_only_root=bool(inner.read_only_root_filesystem),
        no_new_privileges=not (inner.allow_privilege_escalation or inner.privileged),
        seccomp=_seccomp(pod, inner),
        namespaces=_namespaces(pod, target_id),
        masked_paths=() if inner.proc_mount == "Unmasked" else None,
        readonly_paths=() if inner.proc_mount == "Unmasked" else None,
    )


def _check_non_root(pod: Pod, container: AnyContainer, user: int | None, image_user: str) -> None:
    about = f"(pod: {pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid}), container: {container.name})"
    if user == 0:
        raise ConfigError(f"container's runAsUser breaks non-root policy {about}")
    if user is not None:
        return
    name = image_user.partition(":")[0]
    if name in {"", "0", "root"}:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {about}")
    if not name.isdigit():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), "
            f"cannot verify user is non-root {about}"
        )


def _seccomp(pod: Pod, inner: PodContainerContext) -> Seccomp:
    outer = pod.spec.security_context
    given = inner.seccomp_profile or (outer.seccomp_profile if outer else None)
    if inner.privileged:
        return Seccomp(type="Unconfined")
    if given is None or given.type is None:
        return Seccomp()
    return Seccomp(type=given.type, localhost_ref=given.localhost_profile or "")


def _namespaces(pod: Pod, target_id: str = "") -> NamespaceOptions:
    spec = pod.spec
    pid: Literal["Container", "Pod", "Node", "Target"] = "Container"
    if spec.host_pid:
        pid = "Node"
    elif spec.share_process_namespace:
        pid = "Pod"
    elif target_id:
        pid = "Target"
    return NamespaceOptions(
        network="Node" if spec.host_network else "Pod",
        pid=pid,
        ipc="Node" if spec.host_ipc else "Pod",
        target_id=target_id if pid == "Target" else "",
    )


def _plain(made: C) -> C:
    """Return a configuration without the objects that stand for absent fields of a pod, which only its room knows."""
    return msgspec.convert(msgspec.to_builtins(made, enc_hook=_value), type(made))


def _value(value: object) -> object:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    raise NotImplementedError(f"{type(value).__name__}: no part of a configuration")
