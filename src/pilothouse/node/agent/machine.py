"""What a Node says of this machine: capacity, addresses, identity, and what is left of its resources."""

from __future__ import annotations

import os
import platform
import socket

import msgspec

from pilothouse.foundation.addresses import own_address

from .pressure import Reading

__all__ = ["MachineFacts", "addresses", "facts", "read_resources"]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_KI = 1024


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """This machine; memory and disk in bytes."""

    cpus: int
    memory: int
    disk: int
    machine_id: str = ""
    system_uuid: str = ""
    boot_id: str = ""
    kernel: str = ""
    os_image: str = ""
    architecture: str = ""
    hostname: str = ""


def facts(root: str) -> MachineFacts:
    """Look at this machine; `root` is on the disk that counts."""
    where = os.statvfs(root)
    return MachineFacts(
        cpus=os.cpu_count() or 1,
        memory=_meminfo().get("MemTotal", 0),
        disk=where.f_blocks * where.f_frsize,
        machine_id=_read("/etc/machine-id"),
        system_uuid=_read("/sys/class/dmi/id/product_uuid") or _read("/etc/machine-id"),
        boot_id=_read("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=_os_image(),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        hostname=socket.gethostname(),
    )


def read_resources(root: str) -> Reading:
    """Return what is left now."""
    memory = _meminfo()
    where = os.statvfs(root)
    pids_total = int(_read("/proc/sys/kernel/pid_max") or 0)
    running = int((_read("/proc/loadavg").split() or ["", "", "", "0/0"])[3].partition("/")[2] or 0)
    return Reading(
        memory_total=memory.get("MemTotal", 0),
        memory_available=memory.get("MemAvailable", 0),
        disk_total=where.f_blocks * where.f_frsize,
        disk_available=where.f_bavail * where.f_frsize,
        inodes_total=where.f_files,
        inodes_free=where.f_favail,
        pids_total=pids_total,
        pids_available=max(pids_total - running, 0),
    )


def addresses() -> tuple[str, ...]:
    """Return this machine's address, of the interface that leads out; loopback where none does."""
    return (own_address(),)


def _meminfo() -> dict[str, int]:
    found: dict[str, int] = {}
    for line in _read("/proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * _KI
    return found


def _os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip().strip('"')
    return platform.system()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
