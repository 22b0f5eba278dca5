"""Scripts for nftables, each one transaction, carried out by Debian's `nft`; and what else rules need of the kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Final

from pilothouse.foundation import processes
from pilothouse.foundation.rights import owns_network

__all__ = ["Nft", "NftError", "families", "filter_bridges", "is_available", "set_hairpin", "set_sysctl", "why_not"]

_SECONDS: Final = 30.0
_BRIDGE_MODULE: Final = "br_netfilter"
_BRIDGED: Final = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}


class NftError(Exception):
    """The kernel or `nft` refused a script; nothing of it was done."""


class Nft:
    """Runs scripts in the network namespace of this process."""

    async def apply(self, script: str) -> None:
        """Carry out all of a script or nothing. Raises `NftError`."""
        try:
            await processes.run(["nft", "-f", "-"], env=processes.inherit(), stdin=script.encode(), timeout=_SECONDS)
        except processes.ProcessFailed as error:
            raise NftError(_first_line(error.completed.stderr)) from error
        except processes.ProcessError as error:
            raise NftError(str(error)) from error

    async def has_table(self, family: str, name: str) -> bool:
        """Return whether a table is there. Raises `NftError`."""
        try:
            done = await processes.run(["nft", "list", "tables"], env=processes.inherit(), timeout=_SECONDS)
        except processes.ProcessError as error:
            raise NftError(str(error)) from error
        return f"table {family} {name}" in done.stdout.decode().splitlines()


def is_available() -> bool:
    """Return whether rules can be made at all."""
    return not why_not()


def why_not() -> str:
    """Return why rules cannot be made here, empty where they can."""
    if not owns_network():
        return "only root may change the rules of nftables"
    if shutil.which("nft") is None:
        return "there is no program nft (package nftables)"
    return ""


def families() -> tuple[int, ...]:
    """Return the address families of this machine: 4, and 6 where the kernel has it."""
    return (4, 6) if os.path.isdir("/proc/sys/net/ipv6") else (4,)


async def filter_bridges(family: int) -> str:
    """Have what passes between ports of bridges come by nftables; return why that is not so, empty where it is."""
    path = _BRIDGED[family]
    is_there = os.path.exists(f"/proc/sys/{path}")  # noqa: ASYNC240  # no disk is asked
    if not is_there and shutil.which("modprobe") is not None:
        with contextlib.suppress(processes.ProcessError):  # what is missing then is said below
            await processes.run(["modprobe", _BRIDGE_MODULE], env=processes.inherit(), timeout=_SECONDS)
    return set_sysctl(path, "1")


def set_sysctl(path: str, value: str) -> str:
    """Set a value below /proc/sys where it differs; return why that failed, empty where it did not."""
    try:
        with open(f"/proc/sys/{path}", "r+", encoding="ascii") as file:
            if file.read().strip() != value:
                file.seek(0)
                file.write(value)
    except OSError as error:
        return f"{path.replace('/', '.')} cannot be set to {value}: {error.strerror}"
    return ""


def set_hairpin(bridge: str) -> None:
    """Let each port of a bridge send back where something came from, as a pod wants that asks itself by a service."""
    root = f"/sys/class/net/{bridge}/brif"
    with contextlib.suppress(OSError):
        for port in os.listdir(root):
            with contextlib.suppress(OSError), open(f"{root}/{port}/hairpin_mode", "r+", encoding="ascii") as file:
                if file.read().strip() != "1":
                    file.seek(0)
                    file.write("1")


def _first_line(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else "nft failed and said nothing"
