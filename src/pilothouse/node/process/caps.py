"""Capabilities: their numbers, the default set of containers, and what adding and dropping make of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ALL", "DEFAULT", "NAMES", "mask_of", "resolve"]

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""Without "CAP_", each at its number."""

ALL = frozenset(NAMES)
DEFAULT = frozenset(
    [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)
"""What a container has when nothing is said."""


def resolve(add: Iterable[str], drop: Iterable[str], base: frozenset[str] = DEFAULT) -> frozenset[str]:
    """Return `base` with what is added and without what is dropped.

    "ALL" on one side is followed by single names on the other, as container runtimes do it. Raises `ValueError` for a
    name that is no capability.
    """
    added = {_plain(name) for name in add}
    dropped = {_plain(name) for name in drop}
    kept = ALL if "ALL" in added else base
    if "ALL" in dropped:
        return frozenset(added - {"ALL"})
    return frozenset((kept | added) - dropped - {"ALL"})


def mask_of(names: Iterable[str]) -> int:
    """Return the bit set of capabilities."""
    return sum(1 << NAMES.index(name) for name in names)


def _plain(name: str) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain != "ALL" and plain not in ALL:
        raise ValueError(f'unknown capability "CAP_{plain}"')
    return plain
