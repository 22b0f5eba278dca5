"""System calls that Python 3.11 does not have, typed; each raises `OSError` as those of `os` do."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Any

__all__ = [
    "AT_EMPTY_PATH",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "MNT_DETACH",
    "MOUNT_ATTR_NODEV",
    "MOUNT_ATTR_NOSUID",
    "MOUNT_ATTR_RDONLY",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_PRIVATE",
    "MS_RDONLY",
    "MS_REC",
    "MS_REMOUNT",
    "MS_SHARED",
    "MS_SLAVE",
    "capset",
    "close_on_exec_from",
    "drop_bounding",
    "mount",
    "mount_setattr",
    "move_mount",
    "no_new_privileges",
    "open_in_root",
    "open_tree",
    "parent_death_signal",
    "pivot_root",
    "seccomp_load",
    "set_dumpable",
    "set_keep_capabilities",
    "set_name",
    "set_subreaper",
    "setns",
    "umount",
    "unshare",
]

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 18, 1 << 19, 1 << 20
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_EMPTY_PATHS = 0x04 | 0x40
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS, _PR_SET_NAME = 1, 4, 8, 15
_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 24, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1

# Numbers from 424 on are the same everywhere.
_OPEN_TREE, _MOVE_MOUNT, _CLOSE_RANGE, _OPENAT2, _MOUNT_SETATTR = 428, 429, 436, 437, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPSET = {"x86_64": 126, "aarch64": 91}
_SECCOMP = {"x86_64": 317, "aarch64": 277}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_machine = platform.machine()


def _checked(result: int, what: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what or None)
    return result


def _syscall(number: int, *args: Any, what: str = "") -> int:
    # An argument without a type would be passed as a C int, its upper half undefined.
    plain = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    return _checked(_libc.syscall(ctypes.c_long(number), *plain), what)


def unshare(flags: int) -> None:
    """Leave the namespaces of `flags` for new ones."""
    _checked(_libc.unshare(ctypes.c_int(flags)), "unshare")


def setns(fd: int, flags: int) -> None:
    """Enter the namespace of a file, or those of `flags` of the process of a pidfd."""
    _checked(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Attach a file system of this kind at `target`, or change what is there, as its manual page has it."""
    values = [os.fsencode(text) if text else None for text in (source, target, kind)]
    _checked(
        _libc.mount(*values, ctypes.c_ulong(flags), os.fsencode(data) if data else None), f"{kind or 'mount'} {target}"
    )


def umount(target: str, flags: int = 0) -> None:
    """Unmount as umount2(2)."""
    _checked(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), target)


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root and put the old one at `old`."""
    _syscall(_PIVOT_ROOT[_machine], os.fsencode(new), os.fsencode(old), what=new)


def open_tree(directory: int, path: str, *, recursive: bool = False) -> int:
    """Return the descriptor of a detached copy of the mount at `path`; an empty path is `directory` itself."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    return _syscall(_OPEN_TREE, directory, os.fsencode(path), flags, what=path)


def move_mount(tree: int, target: int) -> None:
    """Attach a detached mount at an open directory or file."""
    _syscall(_MOVE_MOUNT, tree, b"", target, b"", _MOVE_EMPTY_PATHS, what="move_mount")


def mount_setattr(tree: int, *, add: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """Change the attributes of the mount of a descriptor."""
    attributes = struct.pack("=QQQQ", add, clear, propagation, 0)
    flags = AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    _syscall(_MOUNT_SETATTR, tree, b"", flags, attributes, len(attributes), what="mount_setattr")


def open_in_root(root: int, path: str, flags: int = os.O_PATH) -> int:
    """Open `path` as if `root` were the root directory, links included."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _syscall(_OPENAT2, root, os.fsencode(path), how, len(how), what=path)


def close_on_exec_from(first: int) -> None:
    """Let no descriptor from `first` on be inherited by another program."""
    _syscall(_CLOSE_RANGE, first, 0xFFFFFFFF, 4, what="close_range")


def _prctl(option: int, value: int | bytes, what: str) -> None:
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    zero = ctypes.c_ulong(0)
    _checked(_libc.prctl(ctypes.c_int(option), argument, zero, zero, zero), what)


def parent_death_signal(number: int) -> None:
    """Get this signal when the parent dies; a change of the user forgets it."""
    _prctl(_PR_SET_PDEATHSIG, number, "PR_SET_PDEATHSIG")


def set_dumpable(value: bool) -> None:
    """Allow or forbid others without privileges to look into this process."""
    _prctl(_PR_SET_DUMPABLE, int(value), "PR_SET_DUMPABLE")


def set_keep_capabilities() -> None:
    """Keep the permitted capabilities over a change of the user."""
    _prctl(_PR_SET_KEEPCAPS, 1, "PR_SET_KEEPCAPS")


def set_name(name: str) -> None:
    """Set what `ps` shows, cut at 15 bytes."""
    _prctl(_PR_SET_NAME, name.encode()[:15], "PR_SET_NAME")


def set_subreaper() -> None:
    """Become the parent of descendants whose parents die."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, "PR_SET_CHILD_SUBREAPER")


def no_new_privileges() -> None:
    """Never gain privileges by running a program."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")


def drop_bounding(capability: int) -> None:
    """Take a capability out of the bounding set."""
    _prctl(_PR_CAPBSET_DROP, capability, "PR_CAPBSET_DROP")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the capabilities of this process, as bit sets."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    sets = (effective, permitted, inheritable)
    data = struct.pack("=6I", *(value & low for value in sets), *(value >> high for value in sets))
    _syscall(_CAPSET[_machine], header, data, what="capset")


def seccomp_load(program: bytes) -> None:
    """Put a compiled filter on this process and all that come of it."""
    buffer = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    _syscall(_SECCOMP[_machine], _SECCOMP_SET_MODE_FILTER, 0, descriptor, what="seccomp")
