"""What this machine lets the process runtime do, and what each missing piece means for pods."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys

import msgspec

from pilothouse.foundation import rights

from . import seccomp
from .cgroups import ControlGroups, detect
from .spec import Mode

__all__ = ["Machine", "capabilities_of_this_machine"]

_CLONE_NEWUSER_NEWNS = 0x10020000
_MS_REC_PRIVATE = 0x44000
# Some kernels, such as Ubuntu's, give a namespace but no rights in it.
_TRY = (
    "import ctypes, sys; c = ctypes.CDLL(None); "
    f"sys.exit(c.unshare({_CLONE_NEWUSER_NEWNS}) != 0 or c.mount(None, b'/', None, {_MS_REC_PRIVATE}, None) != 0)"
)


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The strongest way to run pods here, and what is missing, in sentences for people."""

    mode: Mode
    cgroups: int
    overlay: bool
    seccomp: bool
    missing: tuple[str, ...] = ()


def capabilities_of_this_machine(groups: ControlGroups | None = None) -> Machine:
    """Look at user, kernel and control groups. Starts a process where this user is not root; takes some 50 ms then."""
    groups = groups if groups is not None else detect()
    mode = _mode()
    machine = Machine(
        mode=mode,
        cgroups=groups.version,
        overlay=mode != "plain" and _has_overlay(),
        seccomp=seccomp.supported() and mode != "plain",
    )
    return msgspec.structs.replace(machine, missing=tuple(_missing(machine, groups)))


def _mode() -> Mode:
    if platform.system() != "Linux" or not hasattr(os, "pidfd_open"):
        return "plain"
    if rights.owns_network():
        return "root"
    done = subprocess.run(  # noqa: S603  # our own interpreter
        [sys.executable, "-I", "-S", "-c", _TRY], check=False, capture_output=True, timeout=30
    )
    return "userns" if done.returncode == 0 else "plain"


def _missing(machine: Machine, groups: ControlGroups) -> list[str]:
    facts = (
        (
            machine.mode != "root",
            (
                "not root: pods have no network of their own; each has an address out of 127/8, and two of them cannot "
                "listen on the same port of all addresses"
            ),
        ),
        (
            machine.mode != "root" and _first_port() > 53,
            f"ports below {_first_port()}, such as DNS's 53, cannot be had",
        ),
        (machine.mode == "userns", "not root: files of images belong to one user, whoever owns them in the image"),
        (
            machine.mode == "plain",
            "no namespaces: pods see all processes and files of this machine; only image: host can run",
        ),
        (
            not machine.cgroups,
            "no control groups that are writable: limits of CPU, memory and processes do not hold",
        ),
        (
            machine.cgroups == 1 and not {"cpu", "memory", "pids"} <= set(groups.mounts),
            "some controllers of control groups are missing (cpu, memory, pids are wanted): their limits do not hold",
        ),
        (
            machine.mode != "plain" and not machine.overlay,
            "no overlay file system: each container gets a copy of its image's files",
        ),
        (
            machine.mode != "plain" and not machine.seccomp,
            f"no filter of system calls for {platform.machine()}: pods run without one",
        ),
        (
            machine.mode == "root" and not rights.effective() >> rights.SYS_RESOURCE & 1,
            "no CAP_SYS_RESOURCE: pods' processes cannot be saved from the kernel when memory is short",
        ),
        (
            machine.mode == "root" and shutil.which("nft") is None,
            "no nft program: pods reach each other and this machine, but no other networks",
        ),
    )
    return [text for holds, text in facts if holds]


def _first_port() -> int:
    return _number("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)


def _has_overlay() -> bool:
    with contextlib.suppress(OSError), open("/proc/filesystems", encoding="ascii") as file:
        if "overlay" in file.read().split():
            return True
    # It may be there as a module that is loaded with the first use.
    release = platform.release()
    return os.path.exists(f"/lib/modules/{release}/kernel/fs/overlayfs")


def _number(path: str, default: int) -> int:
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return int(file.read())
    return default
