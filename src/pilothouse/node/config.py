"""What a runtime is told about sandboxes and containers, field for field as the Container Runtime Interface has it."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "Capabilities",
    "ContainerConfig",
    "ContainerMetadata",
    "DNSConfig",
    "Device",
    "Mount",
    "NamespaceOptions",
    "PortMapping",
    "RegistryAuth",
    "Resources",
    "SandboxConfig",
    "SandboxMetadata",
    "Seccomp",
    "SecurityContext",
]


class SandboxMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Which pod a sandbox is of; `attempt` grows with each new sandbox of the same pod."""

    name: str
    uid: str
    namespace: str = "default"
    attempt: int = 0


class ContainerMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Which container of the pod it is; `attempt` grows with each restart."""

    name: str
    attempt: int = 0


class DNSConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of `resolv.conf`; all empty means the machine's own file."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PortMapping(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the machine that leads to one of the pod. Services of the node carry it out, no sandbox does."""

    container_port: int
    host_port: int
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    host_ip: str = ""


class NamespaceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which namespaces are the pod's, the container's or the machine's ("Node").

    `pid`: "Pod" is `shareProcessNamespace`, "Target" joins the container `target_id` (ephemeral containers).
    """

    network: Literal["Pod", "Node"] = "Pod"
    pid: Literal["Container", "Pod", "Node", "Target"] = "Container"
    ipc: Literal["Pod", "Node"] = "Pod"
    target_id: str = ""


class Seccomp(msgspec.Struct, frozen=True, kw_only=True):
    """Which filter of system calls holds; `localhost_ref` is the absolute path of a profile in Docker's JSON form."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"] = "RuntimeDefault"
    localhost_ref: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities beside the default ones, without "CAP_"; "ALL" stands for all of them."""

    add: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()


class SecurityContext(msgspec.Struct, frozen=True, kw_only=True):
    """As whom and with which rights processes run.

    `masked_paths` and `readonly_paths` None means the usual ones. `supplemental_groups_policy` as in the pod's field:
    "Merge" adds what the image's /etc/group says of the user.
    """

    run_as_user: int | None = None
    run_as_username: str = ""
    run_as_group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: Literal["Merge", "Strict"] = "Merge"
    capabilities: Capabilities = Capabilities()
    privileged: bool = False
    read_only_root: bool = False
    no_new_privileges: bool = True
    seccomp: Seccomp = Seccomp()
    namespaces: NamespaceOptions = NamespaceOptions()
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a control group; 0 means none. `cpu_quota` and `cpu_period` in µs, memory in bytes."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit: int = 0
    pids_limit: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    oom_score_adj: int = 0
    unified: dict[str, str] = {}


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """One volume in a container.

    A "bind" shows `host_path`, or what `sub_path` names in it without leaving it. A "tmpfs" is memory of at most
    `size` bytes (0: half of the machine's); those of one `name` are the same one for all containers of the pod, and go
    with it.
    """

    container_path: str
    host_path: str = ""
    sub_path: str = ""
    read_only: bool = False
    recursive_read_only: bool = False
    propagation: Literal["None", "HostToContainer", "Bidirectional"] = "None"
    type: Literal["bind", "tmpfs"] = "bind"
    name: str = ""
    size: int = 0
    mode: int = 0o1777


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device of the machine in a container; `permissions` out of r, w and m."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of a pod that its containers share. `cgroup_parent` is the pod's group, such as `/kubepods/pod<uid>`."""

    metadata: SandboxMetadata
    hostname: str = ""
    log_directory: str = ""
    dns: DNSConfig = DNSConfig()
    port_mappings: tuple[PortMapping, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    cgroup_parent: str = ""
    resources: Resources = Resources()
    sysctls: dict[str, str] = {}
    security: SecurityContext = SecurityContext()


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One container.

    `command` and `args` replace the image's entry point and command; `log_path` is relative to the sandbox's
    `log_directory`; `stop_signal` empty means the image's, else SIGTERM.
    """

    metadata: ContainerMetadata
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources = Resources()
    security: SecurityContext = SecurityContext()
    stop_signal: str = ""


class RegistryAuth(msgspec.Struct, frozen=True, kw_only=True):
    """Credentials for a registry; never shown."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return "RegistryAuth(…)"
