"""Filters of system calls: profiles in Docker's and OCI's JSON form, compiled to the kernel's packet-filter code. Pure.

A program checks the architecture, finds the call's number by bisection, then its rules in order.
"""

from __future__ import annotations

import errno
import platform
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ._syscallnumbers import ARCHITECTURES, numbers

__all__ = ["Argument", "Profile", "Rule", "compile_profile", "default_profile", "read_profile", "supported"]

_ALLOW, _LOG, _ERRNO, _TRAP, _KILL_THREAD, _KILL_PROCESS = 0x7FFF0000, 0x7FFC0000, 0x50000, 0x30000, 0, 0x80000000
_ACTIONS = {
    "SCMP_ACT_ALLOW": _ALLOW,
    "SCMP_ACT_LOG": _LOG,
    "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRAP": _TRAP,
    "SCMP_ACT_KILL": _KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
}
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP_EQUAL, _JUMP_GREATER, _JUMP_GREATER_EQUAL, _JUMP = 0x15, 0x25, 0x35, 0x05
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_HALF = 0xFFFFFFFF
_MAX_INSTRUCTIONS = 4096
_CLONE_NAMESPACES = 0x7E020000


class Argument(NamedTuple):
    """A condition on one argument: `op` as in the JSON form, `value` beside it, `value_two` for masked equality."""

    position: int
    op: str
    value: int
    value_two: int = 0


class Rule(NamedTuple):
    """What happens to some calls when all conditions hold: a return value of the kernel's filter."""

    names: tuple[str, ...]
    action: int
    arguments: tuple[Argument, ...] = ()


class Profile(NamedTuple):
    """Rules, the first that holds counts; `default` for calls that no rule is about, `unknown` for newer calls."""

    rules: tuple[Rule, ...]
    default: int = _ERRNO | errno.EPERM
    unknown: int = _ERRNO | errno.ENOSYS


# What the field's default profile withholds unless a capability is there, by that capability.
_GUARDED = {
    "DAC_READ_SEARCH": "open_by_handle_at",
    "SYS_ADMIN": (
        "bpf fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules "
        "lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd "
        "setdomainname sethostname setns syslog umount2 unshare"
    ),
    "SYS_BOOT": "reboot",
    "SYS_CHROOT": "chroot",
    "SYS_MODULE": "delete_module init_module finit_module",
    "SYS_PACCT": "acct",
    "SYS_PTRACE": "kcmp pidfd_getfd process_madvise",
    "SYS_RAWIO": "iopl ioperm",
    "SYS_TIME": "settimeofday clock_settime",
    "SYS_TTY_CONFIG": "vhangup",
    "SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "SYSLOG": "syslog",
    "BPF": "bpf",
    "PERFMON": "perf_event_open",
}
_NEVER = (
    "_sysctl add_key afs_syscall create_module get_kernel_syms getpmsg io_uring_enter io_uring_register "
    "io_uring_setup kexec_file_load kexec_load keyctl migrate_pages move_pages nfsservctl pivot_root putpmsg "
    "query_module request_key security swapoff swapon sysfs tuxcall uselib userfaultfd ustat vserver"
)
_CONDITIONAL = ("clone", "clone3", "personality", "socket")
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_ALG, _AF_VSOCK = 38, 40


def supported() -> bool:
    """Whether filters can be compiled for this machine."""
    return platform.machine() in ARCHITECTURES


@lru_cache(maxsize=64)
def default_profile(capabilities: frozenset[str], architecture: str) -> Profile:
    """Return the usual profile of containers: all known calls without those that reach beyond a container."""
    withheld = set(_NEVER.split()) | set(_CONDITIONAL)
    withheld.update(name for names in _GUARDED.values() for name in names.split())
    for capability in capabilities & _GUARDED.keys():
        withheld -= set(_GUARDED[capability].split())
    plain = tuple(sorted(set(numbers(architecture)) - withheld))
    rules = [Rule(plain, _ALLOW)]
    rules += [Rule(("personality",), _ALLOW, (Argument(0, "SCMP_CMP_EQ", value),)) for value in _PERSONALITIES]
    # Sockets of the kernel's cryptography and of virtual machines reach past the container.
    rules += [
        Rule(("socket",), _ERRNO | errno.EPERM, (Argument(0, "SCMP_CMP_EQ", family),))
        for family in (_AF_ALG, _AF_VSOCK)
    ]
    rules.append(Rule(("socket",), _ALLOW))
    if "SYS_ADMIN" in capabilities:
        rules.append(Rule(("clone", "clone3"), _ALLOW))
    else:
        rules.append(Rule(("clone",), _ALLOW, (Argument(0, "SCMP_CMP_MASKED_EQ", _CLONE_NAMESPACES, 0),)))
        # Its flags are in memory, where no filter can look: programs fall back to `clone`.
        rules.append(Rule(("clone3",), _ERRNO | errno.ENOSYS))
    return Profile(tuple(rules))


def read_profile(data: bytes, capabilities: frozenset[str]) -> Profile:
    """Read a profile in JSON, Docker's form with its conditions or OCI's; raises `ValueError` that names the field."""
    try:
        tree = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ValueError(f"seccomp profile: {error}") from error
    default = _action(tree.get("defaultAction", ""), tree.get("defaultErrnoRet"), "defaultAction")
    rules = []
    for position, entry in enumerate(tree.get("syscalls") or ()):
        if not _applies(entry, capabilities):
            continue
        action = _action(entry.get("action", ""), entry.get("errnoRet"), f"syscalls[{position}].action")
        arguments = tuple(
            Argument(int(arg["index"]), str(arg["op"]), int(arg["value"]), int(arg.get("valueTwo") or 0))
            for arg in entry.get("args") or ()
        )
        if any(argument.op not in _COMPARE for argument in arguments):
            raise ValueError(f"seccomp profile: syscalls[{position}].args: unknown operator")
        rules.append(Rule(tuple(entry.get("names") or ()), action, arguments))
    return Profile(tuple(rules), default, default)


def compile_profile(profile: Profile, architecture: str) -> bytes:
    """Return the filter as an array of `struct sock_filter`; raises `ValueError` where it would be too long."""
    table = numbers(architecture)
    by_number: dict[int, list[Rule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            if name in table:
                by_number.setdefault(table[name], []).append(rule)
    last = max(table.values())
    bodies = {number: _rules(rules, profile.default) for number, rules in by_number.items()}
    fallback = _code(_RETURN, profile.default)
    spans = _spans([bodies.get(number, fallback) for number in range(last + 1)])
    search = _search([*spans, (last + 1, _code(_RETURN, profile.unknown))])
    head = [
        _code(_LOAD, _ARCHITECTURE_AT),
        _code(_JUMP_EQUAL, ARCHITECTURES[architecture], 1, 0),
        _code(_RETURN, _ERRNO | errno.ENOSYS),
        _code(_LOAD, _NUMBER_AT),
    ]
    program = b"".join(head) + search
    if len(program) // 8 > _MAX_INSTRUCTIONS:
        raise ValueError(f"seccomp profile: {len(program) // 8} instructions; the kernel takes {_MAX_INSTRUCTIONS}")
    return program


def _code(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value & _HALF)


def _spans(bodies: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Return where each run of equal bodies begins."""
    found: list[tuple[int, bytes]] = []
    for number, body in enumerate(bodies):
        if not found or found[-1][1] != body:
            found.append((number, body))
    return found


def _search(spans: Sequence[tuple[int, bytes]]) -> bytes:
    """Compile the bisection: the number is loaded, each leaf is a body that returns."""
    if len(spans) == 1:
        return spans[0][1]
    middle = len(spans) // 2
    low, high = _search(spans[:middle]), _search(spans[middle:])
    distance = len(low) // 8
    # A conditional jump reaches 255 instructions only; a plain one any number.
    return _code(_JUMP_GREATER_EQUAL, spans[middle][0], 0, 1) + _code(_JUMP, distance) + low + high


def _rules(rules: Sequence[Rule], default: int) -> bytes:
    code = b""
    for rule in rules:
        if not rule.arguments:
            return code + _code(_RETURN, rule.action)
        body = _code(_RETURN, rule.action)
        for argument in reversed(rule.arguments):
            body = _condition(argument, len(body) // 8) + body
        code += body
    return code + _code(_RETURN, default)


def _condition(argument: Argument, skip: int) -> bytes:
    """Compile one condition: go on where it holds, else jump over the next `skip` instructions."""
    low_at = _ARGUMENTS_AT + 8 * argument.position
    high_at = low_at + 4
    return _COMPARE[argument.op](argument, low_at, high_at, skip)


def _equal(argument: Argument, low_at: int, high_at: int, skip: int, mask: int = (1 << 64) - 1) -> bytes:
    value = argument.value
    return b"".join(
        [
            _code(_LOAD, high_at),
            _code(_AND, mask >> 32),
            _code(_JUMP_EQUAL, value >> 32, 0, skip + 3),
            _code(_LOAD, low_at),
            _code(_AND, mask),
            _code(_JUMP_EQUAL, value, 0, skip),
        ]
    )


def _masked_equal(argument: Argument, low_at: int, high_at: int, skip: int) -> bytes:
    return _equal(argument._replace(value=argument.value_two), low_at, high_at, skip, argument.value)


def _not_equal(argument: Argument, low_at: int, high_at: int, skip: int) -> bytes:
    return b"".join(
        [
            _code(_LOAD, high_at),
            _code(_JUMP_EQUAL, argument.value >> 32, 0, 2),
            _code(_LOAD, low_at),
            _code(_JUMP_EQUAL, argument.value, skip, 0),
        ]
    )


def _ordered(argument: Argument, low_at: int, high_at: int, skip: int) -> bytes:
    high, low = argument.value >> 32, argument.value
    greater = argument.op in {"SCMP_CMP_GT", "SCMP_CMP_GE"}
    # The last comparison tells "greater" (or equal) from the rest; a lower one is its opposite.
    last = _JUMP_GREATER if argument.op in {"SCMP_CMP_GT", "SCMP_CMP_LE"} else _JUMP_GREATER_EQUAL
    yes, no = (0, skip) if greater else (skip, 0)
    above = (3, 0) if greater else (skip + 3, 0)
    below = (0, skip + 2) if greater else (0, 2)
    return b"".join(
        [
            _code(_LOAD, high_at),
            _code(_JUMP_GREATER, high, *above),
            _code(_JUMP_EQUAL, high, *below),
            _code(_LOAD, low_at),
            _code(last, low, yes, no),
        ]
    )


_COMPARE = {
    "SCMP_CMP_EQ": _equal,
    "SCMP_CMP_NE": _not_equal,
    "SCMP_CMP_MASKED_EQ": _masked_equal,
    "SCMP_CMP_GT": _ordered,
    "SCMP_CMP_GE": _ordered,
    "SCMP_CMP_LT": _ordered,
    "SCMP_CMP_LE": _ordered,
}


def _action(name: str, number: int | None, field: str) -> int:
    if name not in _ACTIONS:
        raise ValueError(f'seccomp profile: {field}: unknown action "{name}"')
    return (
        _ACTIONS[name] | (number if number is not None else errno.EPERM) if name == "SCMP_ACT_ERRNO" else _ACTIONS[name]
    )


def _applies(entry: dict[str, Any], capabilities: frozenset[str]) -> bool:
    """Whether Docker's conditions of a rule hold; those about old kernels always do."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "")
    wanted, unwanted = entry.get("includes") or {}, entry.get("excludes") or {}
    have = {f"CAP_{name}" for name in capabilities}
    if not set(wanted.get("caps") or ()) <= have or (wanted.get("arches") and arch not in wanted["arches"]):
        return False
    return not (set(unwanted.get("caps") or ()) & have or arch in (unwanted.get("arches") or ()))
