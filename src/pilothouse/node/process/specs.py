"""From a container's configuration and its image to what its keeper is told. Pure, but for a profile that is read."""

from __future__ import annotations

import platform
import signal
from typing import NamedTuple

from pilothouse.node.config import ContainerConfig, Mount, SandboxConfig, SecurityContext
from pilothouse.node.errors import CreateContainerError, InvalidConfig
from pilothouse.node.images.model import HOST, Bundle

from . import caps, seccomp
from .spec import MARK, ContainerSpec, Mode, RootSpec, UserSpec
from .unmounted import machine_path, machine_paths

__all__ = ["MASKED", "READ_ONLY", "Around", "container_spec", "stop_signal", "sysctls_of"]

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
# As in every runtime of today: ports below 1024 and pings are no matter of rights within a pod.
_USUAL_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Around(NamedTuple):
    """What is around a container: its directories, groups, the pod's files, and how this machine isolates."""

    mode: Mode
    directory: str
    hidden: tuple[str, ...]
    files: tuple[Mount, ...]
    cgroup_files: tuple[str, ...] = ()
    cgroup_views: tuple[tuple[str, str], ...] = ()
    oom_file: str = ""
    guarded_devices: bool = False
    target_pid: int = 0


def container_spec(
    container_id: str, config: ContainerConfig, sandbox: SandboxConfig, image: Bundle, around: Around
) -> ContainerSpec:
    """Work out all that a container is. Raises `CreateContainerError`, `InvalidConfig`."""
    security = config.security
    capabilities = _capabilities(security, guarded=around.guarded_devices)
    own = {mount.container_path.rstrip("/") for mount in config.mounts}
    files = tuple(mount for mount in around.files if mount.container_path not in own)
    hidden = () if security.privileged else MASKED
    protected = () if security.privileged else READ_ONLY
    unmounted = config.mounts if around.mode == "plain" else ()
    return ContainerSpec(
        id=container_id,
        directory=around.directory,
        argv=machine_paths(_arguments(config, image), unmounted),
        root=_root(image, around),
        env=tuple(
            (name, machine_path(value, unmounted))
            for name, value in _environment(container_id, config, sandbox, image, around)
        ),
        cwd=machine_path(config.working_dir or image.config.working_dir or "/", unmounted),
        user=_user(security, image),
        read_only_root=security.read_only_root,
        privileged=security.privileged,
        mounts=files + config.mounts,
        devices=config.devices,
        capabilities=caps.mask_of(capabilities),
        no_new_privileges=security.no_new_privileges and not security.privileged,
        seccomp=_filter(security, capabilities, around.mode),
        masked=security.masked_paths if security.masked_paths is not None else hidden,
        read_only=security.readonly_paths if security.readonly_paths is not None else protected,
        tty=config.tty,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        log_path=f"{sandbox.log_directory}/{config.log_path}" if sandbox.log_directory and config.log_path else "",
        cgroup_files=around.cgroup_files,
        cgroup_views=around.cgroup_views,
        oom_file=around.oom_file,
        oom_score_adj=config.resources.oom_score_adj,
        pid=security.namespaces.pid,
        target_id=security.namespaces.target_id,
        target_pid=around.target_pid,
    )


def sysctls_of(config: SandboxConfig, *, own_network: bool) -> dict[str, str]:
    """Return a pod's kernel settings: the usual ones, and what it asks for. Raises `InvalidConfig`.

    Only settings that are of the pod's own namespaces are taken; others would be the machine's.
    """
    namespaces = config.security.namespaces
    network = own_network and namespaces.network == "Pod"
    for name in config.sysctls:
        plain = name.replace("/", ".")
        if plain.startswith("net.") and not network:
            raise InvalidConfig(f'sysctl "{name}": the pod has no network of its own')
        if plain.startswith(_IPC_SYSCTLS) and namespaces.ipc != "Pod":
            raise InvalidConfig(f'sysctl "{name}": the pod shares the machine\'s IPC namespace')
        if ".." in plain or not plain.startswith(("net.", *_IPC_SYSCTLS)):
            raise InvalidConfig(f'sysctl "{name}": not a setting of a pod\'s own namespaces')
    return (_USUAL_SYSCTLS if network else {}) | config.sysctls


def stop_signal(config: ContainerConfig, image_signal: str) -> int:
    """Return the number of the signal that asks a container to end. Raises `InvalidConfig`."""
    name = config.stop_signal or image_signal or "SIGTERM"
    if name.isdigit():
        return int(name)
    upper = name.upper()
    try:
        if "RTMIN+" in upper:
            return signal.SIGRTMIN + int(upper.partition("+")[2])
        return signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"]
    except (KeyError, ValueError):
        raise InvalidConfig(f'stop signal "{name}": no such signal') from None


def _arguments(config: ContainerConfig, image: Bundle) -> tuple[str, ...]:
    command, args = config.command, config.args
    if not command:
        args = args or image.config.cmd or ()
        entry = image.config.entrypoint or ()
        command = () if entry == ("",) else entry
    if not command + args:
        raise CreateContainerError("no command specified")
    return command + args


def _environment(
    container_id: str, config: ContainerConfig, sandbox: SandboxConfig, image: Bundle, around: Around
) -> tuple[tuple[str, str], ...]:
    found = {"PATH": _PATH}
    for line in image.config.env or ():
        name, _, value = line.partition("=")
        found[name] = value
    if sandbox.hostname:
        found["HOSTNAME"] = sandbox.hostname
    found.update(config.envs)
    if not around.cgroup_files and (around.mode == "plain" or config.security.namespaces.pid != "Container"):
        # By it the container's processes are told where nothing else tells them apart.
        found[MARK] = container_id
    for name, value in found.items():
        if not name or "=" in name or "\0" in name + value:
            raise InvalidConfig(f'environment variable "{name}": not a name and value that a process can have')
    return tuple(found.items())


def _root(image: Bundle, around: Around) -> RootSpec:
    if around.mode == "plain":
        if image.id != HOST:
            raise CreateContainerError("this machine allows no namespaces to this user: only image: host can run")
        return RootSpec(type="none")
    if image.id == HOST:
        return RootSpec(type="host", hidden=around.hidden)
    if image.directory:
        return RootSpec(type="directory", path=image.directory)
    upper, work = f"{around.directory}/upper", f"{around.directory}/work"
    return RootSpec(type="overlay", base=image.base, lower=image.layers, upper=upper, work=work)


def _user(security: SecurityContext, image: Bundle) -> UserSpec:
    return UserSpec(
        name=security.run_as_username or ("" if security.run_as_user is not None else image.config.user),
        uid=security.run_as_user,
        gid=security.run_as_group,
        groups=security.supplemental_groups,
        merge=security.supplemental_groups_policy == "Merge",
    )


def _capabilities(security: SecurityContext, *, guarded: bool) -> frozenset[str]:
    if security.privileged:
        return caps.ALL
    # Without a group that guards devices, a node of the disk could be made and read.
    base = caps.DEFAULT if guarded else caps.DEFAULT - {"MKNOD"}
    try:
        return caps.resolve(security.capabilities.add, security.capabilities.drop, base)
    except ValueError as error:
        raise InvalidConfig(f"capabilities: {error}") from error


def _filter(security: SecurityContext, capabilities: frozenset[str], mode: Mode) -> bytes:
    profile = security.seccomp
    if security.privileged or profile.type == "Unconfined" or mode == "plain" or not seccomp.supported():
        return b""
    machine = platform.machine()
    if profile.type == "RuntimeDefault":
        return seccomp.compile_profile(seccomp.default_profile(capabilities, machine), machine)
    try:
        with open(profile.localhost_ref, "rb") as file:
            return seccomp.compile_profile(seccomp.read_profile(file.read(1 << 20), capabilities), machine)
    except OSError as error:
        raise CreateContainerError(
            f'seccomp profile "{profile.localhost_ref}": {str(error.strerror).lower()}'
        ) from error
    except ValueError as error:
        raise CreateContainerError(f'seccomp profile "{profile.localhost_ref}": {error}') from error
