"""Capabilities, filters of system calls, users, and what a configuration becomes. Pure."""

from __future__ import annotations

import platform
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.node.config import (
    Capabilities,
    ContainerConfig,
    ContainerMetadata,
    NamespaceOptions,
    SandboxConfig,
    SandboxMetadata,
    SecurityContext,
)
from pilothouse.node.errors import CreateContainerError, InvalidConfig
from pilothouse.node.images.model import Bundle, ImageConfig
from pilothouse.node.process import caps, seccomp
from pilothouse.node.process._syscallnumbers import ARCHITECTURES, numbers
from pilothouse.node.process.spec import UserSpec
from pilothouse.node.process.specs import Around, container_spec, stop_signal, sysctls_of
from pilothouse.node.process.users import Identity, UnknownUser, resolve

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50001, 0x50026


def test_capabilities_are_added_and_dropped() -> None:
    assert caps.mask_of(caps.DEFAULT) == 0xA80425FB
    assert caps.mask_of(caps.ALL) == (1 << 41) - 1
    assert caps.resolve(("NET_ADMIN",), ("CAP_CHOWN",)) == caps.DEFAULT - {"CHOWN"} | {"NET_ADMIN"}
    assert caps.resolve(("net_bind_service",), ("ALL",)) == {"NET_BIND_SERVICE"}
    assert caps.resolve(("ALL",), ("SYS_ADMIN",)) == caps.ALL - {"SYS_ADMIN"}
    with pytest.raises(ValueError, match='unknown capability "CAP_NONSENSE"'):
        caps.resolve(("NONSENSE",), ())


def judge(program: bytes, number: int, *arguments: int, architecture: str = "x86_64") -> int:
    """Run a filter as the kernel would."""
    code = [struct.unpack_from("=HBBI", program, place) for place in range(0, len(program), 8)]
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("=iIQ6Q", number, ARCHITECTURES[architecture], 0, *padded)
    accumulator, counter = 0, 0
    while True:
        operation, if_true, if_false, value = code[counter]
        counter += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                accumulator &= value
            case 0x05:
                counter += value
            case 0x15:
                counter += if_true if accumulator == value else if_false
            case 0x25:
                counter += if_true if accumulator > value else if_false
            case 0x35:
                counter += if_true if accumulator >= value else if_false
            case 0x06:
                return int(value)
            case _:
                raise AssertionError(operation)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_the_default_profile(architecture: str) -> None:
    table = numbers(architecture)
    program = seccomp.compile_profile(seccomp.default_profile(caps.DEFAULT, architecture), architecture)

    def judged(name: str, *arguments: int) -> int:
        return judge(program, table[name], *arguments, architecture=architecture)

    for name in (
        "read",
        "openat",
        "execve",
        "mmap",
        "futex",
        "bind",
        "chroot",
        "ptrace",
        "setuid",
        "landlock_create_ruleset",
    ):
        assert judged(name) == ALLOW, name
    for name in (
        "mount",
        "keyctl",
        "bpf",
        "kexec_load",
        "unshare",
        "init_module",
        "io_uring_setup",
        "userfaultfd",
        "reboot",
    ):
        assert judged(name) == EPERM, name
    assert judged("clone", 0x10000000) == EPERM
    assert judged("clone", 0x3D0F00) == ALLOW
    assert judged("clone3") == ENOSYS
    assert [judged("personality", value) for value in (0, 8, 0x20008, 0xFFFFFFFF, 1 << 32, 4)] == [ALLOW] * 4 + [
        EPERM
    ] * 2
    assert [judged("socket", family) for family in (1, 2, 10, 16, 38, 40)] == [ALLOW] * 4 + [EPERM] * 2
    assert judge(program, 100_000, architecture=architecture) == ENOSYS
    other = next(name for name in ARCHITECTURES if name != architecture)
    assert judge(program, table["read"], architecture=other) == ENOSYS
    more = seccomp.compile_profile(seccomp.default_profile(caps.DEFAULT | {"SYS_ADMIN"}, architecture), architecture)
    assert judge(more, table["mount"], architecture=architecture) == ALLOW


OPERATORS: dict[str, Any] = {
    "SCMP_CMP_EQ": lambda found, value: found == value,
    "SCMP_CMP_NE": lambda found, value: found != value,
    "SCMP_CMP_GT": lambda found, value: found > value,
    "SCMP_CMP_GE": lambda found, value: found >= value,
    "SCMP_CMP_LT": lambda found, value: found < value,
    "SCMP_CMP_LE": lambda found, value: found <= value,
}
WORDS = st.one_of(st.integers(0, (1 << 64) - 1), st.sampled_from([0, 1, 5, 1 << 32, (1 << 32) + 5, (1 << 64) - 1]))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(sorted(OPERATORS)), WORDS), min_size=1, max_size=3),
    st.lists(WORDS, min_size=6, max_size=6),
)
def test_conditions_are_those_of_the_arguments(conditions: list[tuple[int, str, int]], found: list[int]) -> None:
    rule = seccomp.Rule(("read",), ALLOW, tuple(seccomp.Argument(*condition) for condition in conditions))
    program = seccomp.compile_profile(seccomp.Profile((rule,)), "x86_64")
    holds = all(OPERATORS[op](found[place], value) for place, op, value in conditions)
    assert judge(program, 0, *found) == (ALLOW if holds else EPERM)


def test_profiles_are_read_in_both_forms() -> None:
    data = b"""{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {"caps": ["CAP_SYS_BOOT"]}},
        {"names": ["socket"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]}]}"""
    program = seccomp.compile_profile(seccomp.read_profile(data, frozenset()), "x86_64")
    table = numbers("x86_64")
    assert judge(program, table["mkdir"]) == 0x50000 | 13
    assert judge(program, table["reboot"]) == ALLOW
    assert [judge(program, table["socket"], family) for family in (2, 3)] == [0x7FFC0000, ALLOW]
    with pytest.raises(ValueError, match=r'defaultAction: unknown action "X"'):
        seccomp.read_profile(b'{"defaultAction": "X"}', frozenset())
    with pytest.raises(ValueError, match="seccomp profile"):
        seccomp.read_profile(b"[", frozenset())


PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:10:20:app:/home/app:/bin/sh\nbroken\nbad:x:a:b::\n"
GROUP = "root:x:0:\nstaff:x:30:app,root\nextra:x:40:app\n"


@pytest.mark.parametrize(
    ("spec", "identity"),
    [
        (UserSpec(), Identity(0, 0, (0, 30), "/root")),
        (UserSpec(name="app"), Identity(10, 20, (20, 30, 40), "/home/app")),
        (UserSpec(name="10"), Identity(10, 20, (20, 30, 40), "/home/app")),
        (UserSpec(name="app:staff"), Identity(10, 30, (30, 40), "/home/app")),
        (UserSpec(name="99"), Identity(99, 0, (0,), "/")),
        (UserSpec(name="99:98"), Identity(99, 98, (98,), "/")),
        (UserSpec(uid=10, gid=5, groups=(6,), merge=False), Identity(10, 5, (5, 6), "/home/app")),
        (UserSpec(uid=77, name="app"), Identity(77, 0, (0,), "/")),
    ],
)
def test_users(spec: UserSpec, identity: Identity) -> None:
    assert resolve(spec, PASSWD, GROUP) == identity


@pytest.mark.parametrize("name", ["ghost", "app:ghosts"])
def test_unknown_users(name: str) -> None:
    with pytest.raises(UnknownUser, match=r"unable to find .* ghost"):
        resolve(UserSpec(name=name), PASSWD, GROUP)


def spec_of(image: ImageConfig, mode: str = "root", **fields: Any) -> Any:
    config = ContainerConfig(metadata=ContainerMetadata(name="c"), image="x", **fields)
    pod = SandboxConfig(metadata=SandboxMetadata(name="p", uid="u"), hostname="p")
    around = Around(mode=mode, directory="/d", hidden=(), files=())  # type: ignore[arg-type]
    return container_spec("id", config, pod, Bundle(id="sha256:1", config=image, layers=("l",)), around)


@pytest.mark.parametrize(
    ("entry", "cmd", "command", "args", "argv"),
    [
        (("e",), ("c",), (), (), ("e", "c")),
        (("e",), ("c",), (), ("a",), ("e", "a")),
        (("e",), ("c",), ("x",), (), ("x",)),
        (("e",), ("c",), ("x",), ("a",), ("x", "a")),
        (("",), ("c",), (), (), ("c",)),
        (None, ("c",), (), (), ("c",)),
    ],
)
def test_commands_as_kubernetes_has_them(entry: Any, cmd: Any, command: Any, args: Any, argv: Any) -> None:
    assert spec_of(ImageConfig(entrypoint=entry, cmd=cmd), command=command, args=args).argv == argv


def test_the_environment_and_rights_of_a_container() -> None:
    image = ImageConfig(cmd=("c",), env=("A=image", "B=x=y"), user="app", working_dir="/w")
    spec = spec_of(image, envs=(("A", "pod"),))
    assert dict(spec.env) | {"PATH": ""} == {"A": "pod", "B": "x=y", "HOSTNAME": "p", "PATH": ""}
    assert (spec.cwd, spec.user.name) == ("/w", "app")
    assert spec.capabilities == caps.mask_of(caps.DEFAULT - {"MKNOD"}), "no group guards devices here"
    assert bool(spec.seccomp) == (platform.machine() in ARCHITECTURES)
    free = spec_of(image, security=SecurityContext(privileged=True, run_as_user=5))
    assert (free.capabilities, free.seccomp, free.masked, free.no_new_privileges) == ((1 << 41) - 1, b"", (), False)
    assert (free.user.name, free.user.uid) == ("", 5)
    with pytest.raises(CreateContainerError, match="no command specified"):
        spec_of(ImageConfig())
    with pytest.raises(CreateContainerError, match="only image: host can run"):
        spec_of(image, mode="plain")
    with pytest.raises(InvalidConfig, match='environment variable "A=B"'):
        spec_of(image, envs=(("A=B", ""),))
    with pytest.raises(InvalidConfig, match="CAP_X"):
        spec_of(image, security=SecurityContext(capabilities=Capabilities(add=("X",))))


def test_kernel_settings_are_the_pods_own() -> None:
    def pod(security: SecurityContext | None = None, **sysctls: str) -> SandboxConfig:
        names = {name.replace("_", "."): value for name, value in sysctls.items()}
        meta = SandboxMetadata(name="p", uid="u")
        return SandboxConfig(metadata=meta, sysctls=names, security=security or SecurityContext())

    usual = sysctls_of(pod(), own_network=True)
    assert usual["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert sysctls_of(pod(kernel_shmmax="1"), own_network=False) == {"kernel.shmmax": "1"}
    host = SecurityContext(namespaces=NamespaceOptions(network="Node", ipc="Node"))
    for config, own, why in (
        (pod(net_core_somaxconn="1"), False, "no network of its own"),
        (pod(host, net_core_somaxconn="1"), True, "no network of its own"),
        (pod(host, kernel_msgmax="1"), True, "shares the machine's IPC"),
        (pod(kernel_core_pattern="|/x"), True, "not a setting of a pod's own namespaces"),
        (pod(vm_swappiness="1"), True, "not a setting of a pod's own namespaces"),
    ):
        with pytest.raises(InvalidConfig, match=why):
            sysctls_of(config, own_network=own)


def test_stop_signals() -> None:
    config = ContainerConfig(metadata=ContainerMetadata(name="c"), image="x")
    assert [stop_signal(config, name) for name in ("", "SIGQUIT", "quit", "9", "SIGRTMIN+3")] == [15, 3, 3, 9, 37]
    with pytest.raises(InvalidConfig, match="no such signal"):
        stop_signal(config, "SIGNOTHING")
