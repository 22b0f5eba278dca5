"""What a pod's containers share, made by its keeper for itself: namespaces, network, host name, shared memory."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from typing import NoReturn

import msgspec

from pilothouse.node.config import Mount
from pilothouse.node.volumes.places import make_within

from . import syscalls as sys
from .child import Place
from .netlink import Netlink, hardware_address, link_index
from .spec import NetworkSpec, SandboxSpec

__all__ = ["make_space", "tmpfs_of"]

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_POD_LINK = "eth0"


def make_space(spec: SandboxSpec) -> tuple[Place, int]:
    """Leave the machine's namespaces for the pod's; return the place and the id of a shared first process, 0 for none.

    All of it is this process's and its children's, so the kernel takes it away with the last of them.
    """
    if spec.mode == "plain":
        return Place("plain", "", -1), 0
    if spec.mode == "userns":
        _own_users()
    host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    outside = Netlink() if spec.network is not None else None
    host_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    flags = sys.CLONE_NEWNS | (sys.CLONE_NEWIPC if spec.own_ipc else 0)
    flags |= sys.CLONE_NEWUTS if spec.hostname else 0
    flags |= sys.CLONE_NEWNET if spec.network is not None else 0
    sys.unshare(flags)
    sys.mount("", "/", flags=sys.MS_REC | sys.MS_SLAVE)
    if spec.hostname:
        socket.sethostname(spec.hostname)
    if spec.network is not None and outside is not None:
        _link(spec.network, outside, host_network)
        outside.close()
    os.close(host_network)
    for name, value in spec.sysctls.items():
        _sysctl(name, value)
    memory = "/dev/shm"  # noqa: S108  # the machine's, for pods that share its namespace
    if spec.own_ipc:
        memory = f"{spec.directory}/shm"
        os.makedirs(memory, exist_ok=True)
        sys.mount("shm", memory, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, f"mode=1777,size={spec.shm_size}")
    return Place(spec.mode, memory, host_mounts), _pause() if spec.share_processes else 0


def tmpfs_of(spec: SandboxSpec, mount: Mount) -> Mount:
    """Return the mount of a volume in memory, made at its first use in the pod. Raises `ValueError` for its name."""
    if not _NAME.fullmatch(mount.name):
        raise ValueError(f'mount of "{mount.container_path}": "{mount.name}" is no name of a volume')
    path = f"{spec.directory}/memory/{mount.name}"
    if not os.path.ismount(path):
        os.makedirs(path, exist_ok=True)
        size = f",size={mount.size}" if mount.size else ""
        if spec.mode != "plain":
            flags = sys.MS_NOSUID | sys.MS_NODEV
            sys.mount("tmpfs", path, "tmpfs", flags, f"mode={mount.mode:o}{size}")
    if mount.sub_path:
        make_within(path, mount.sub_path)
    return msgspec.structs.replace(mount, host_path=path)


def _own_users() -> None:
    """Enter a user namespace in which this user is root."""
    uid, gid = os.geteuid(), os.getegid()
    sys.unshare(sys.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _link(network: NetworkSpec, outside: Netlink, host_network: int) -> None:
    inside = Netlink()
    # Made from within: there is no moment at which it belongs to nobody, so nothing is left behind by a crash.
    mac = hardware_address(network.address)
    inside.add_veth(_POD_LINK, network.veth, host_network, network.mtu, mac=mac)
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    sys.setns(host_network, sys.CLONE_NEWNET)
    outer, bridge = link_index(network.veth), link_index(network.bridge)
    sys.setns(own, sys.CLONE_NEWNET)
    os.close(own)
    outside.enslave(outer, bridge)
    index = link_index(_POD_LINK)
    inside.up(link_index("lo"))
    inside.add_address(index, network.address, network.prefix)
    inside.up(index)
    inside.add_default_route(network.gateway)
    inside.close()


def _sysctl(name: str, value: str) -> None:
    path = "/proc/sys/" + name.replace(".", "/") if "/" not in name else f"/proc/sys/{name}"
    if ".." in path:
        raise ValueError(f'sysctl "{name}" is no name of one')
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def _pause() -> int:
    """Start the first process of a process namespace that all containers of the pod share."""
    sys.set_subreaper()
    wait, told = os.pipe()
    gate, opened = os.pipe()
    if not os.fork():
        with contextlib.suppress(BaseException):
            sys.unshare(sys.CLONE_NEWPID)
            pid = os.fork()
            if pid:
                os.write(told, str(pid).encode())
                os._exit(0)
            os.close(opened)
            # Only when the process between is gone: its death is not the one to die of.
            if os.read(gate, 1):
                _pause_forever()
        os._exit(1)
    os.close(told)
    os.close(gate)
    text = os.read(wait, 32)
    os.close(wait)
    os.wait()
    if not text:
        raise OSError(0, "cannot make a process namespace")
    os.write(opened, b"!")
    os.close(opened)
    return int(text)


def _pause_forever() -> NoReturn:
    sys.parent_death_signal(signal.SIGKILL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
