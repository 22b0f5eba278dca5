"""Taking away all that a node has put on this machine, when its agent is gone, however that ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Collection
from typing import Final

import msgspec

from pilothouse.foundation import processes
from pilothouse.foundation.rights import owns_network

from .process.directory import stored_options
from .process.ending import end_pods
from .process.marks import MachineNetwork
from .process.netlink import link_index
from .process.network import remove_bridge, table_of
from .process.options import Options

__all__ = ["TABLES", "Cleared", "clear", "clear_node"]

TABLES: Final = ("pilothouse-services", "pilothouse-policies")
"""The tables of nftables that a node has, beside the one of its bridge."""

_MADE_AGAIN: Final = ("configmap", "secret", "downward-api", "projected")
_PORTS_SECONDS: Final = 10.0
_NFT_SECONDS: Final = 20.0


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken away: the number of pods; and in words what was there, and what stays and why."""

    pods: int = 0
    removed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


async def clear_node(directory: str, *, grace: float | None = None, at_most: float = 60.0) -> Cleared:
    """Clear the node whose data is in `directory`, as `pilothouse node run --data-dir` has it. See `clear`."""
    root = os.path.join(directory, "runtime")
    options = stored_options(root) or Options(root=root)
    return await clear(options, grace=grace, at_most=at_most, pods=os.path.join(directory, "agent", "pods"))


async def clear(
    options: Options,
    *,
    grace: float | None = None,
    at_most: float = 60.0,
    pods: str = "",
    tables: Collection[str] = TABLES,
    addresses: Collection[str] | None = None,
    cluster_cidr: str = "",
) -> Cleared:
    """End all pods of a runtime's directory, and remove what this node has made of the machine.

    Each container gets its own stop signal, and SIGKILL after `grace` seconds (its pod's own where None), never later
    than after `at_most`. Then bridge, rules, routes, control groups and the addresses of the cluster on the loopback
    device go. Images, logs, emptyDirs and persistent volumes stay; of `pods`, the agent's directory of pods' volumes,
    secrets and the like go, which the next agent writes again. The agent has to have ended, in whatever way; what was
    cleared before, in part or as a whole, is fine.

    tables: of nftables, beside the bridge's. addresses: of the cluster, that this node has put on the loopback device;
    all that are marked where None. cluster_cidr: of all pods; routes that lead elsewhere stay. Raises
    `RuntimeUnavailable` while an agent runs, `OSError`.
    """
    count = await end_pods(options, grace=grace, at_most=at_most)
    if pods:
        await asyncio.to_thread(_remove_secrets, pods)
    removed: list[str] = []
    problems: list[str] = []
    if owns_network():
        await _remove_tables({*tables, table_of(options.bridge)}, removed, problems)
        _remove_marked(addresses, cluster_cidr, removed)
        await _remove_bridge(options.bridge, removed, problems)
    return Cleared(pods=count, removed=tuple(removed), problems=tuple(problems))


def _remove_marked(addresses: Collection[str] | None, cluster_cidr: str, removed: list[str]) -> None:
    with contextlib.closing(MachineNetwork()) as network:
        for address in network.labelled():
            if addresses is None or address in addresses:
                network.delete_loopback(address)
                removed.append(f"address {address} of lo")
        for route in sorted(network.routes()):
            if not cluster_cidr or route.is_within(cluster_cidr):
                network.delete_route(route)
                removed.append(f"route {route.network} via {route.gateway}")


async def _remove_bridge(bridge: str, removed: list[str], problems: list[str]) -> None:
    with contextlib.closing(MachineNetwork()) as network:
        try:
            index = link_index(bridge)
        except OSError:
            return
        if left := await asyncio.to_thread(_ports_left, network, index):
            problems.append(f"bridge {bridge} stays: {left} links of others are in it")
            return
    remove_bridge(bridge)
    removed.append(f"bridge {bridge}")


def _ports_left(network: MachineNetwork, bridge: int) -> int:
    """Return how many links a bridge keeps: the kernel takes those of pods away a little later than their processes."""
    deadline = time.monotonic() + _PORTS_SECONDS
    while (left := network.ports(bridge)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


async def _remove_tables(names: Collection[str], removed: list[str], problems: list[str]) -> None:
    if shutil.which("nft") is None:
        return
    try:
        done = await processes.run(["nft", "list", "tables"], env=processes.inherit(), timeout=_NFT_SECONDS)
        words = [line.split() for line in done.stdout.decode().splitlines()]
        ours = [(line[1], line[2]) for line in words if len(line) == 3 and line[2] in names]
        script = "".join(f"delete table {family} {name}\n" for family, name in ours)
        if script:
            await processes.run(
                ["nft", "-f", "-"], env=processes.inherit(), stdin=script.encode(), timeout=_NFT_SECONDS
            )
    except processes.ProcessError as error:
        problems.append(f"tables of nftables stay: {error}")
        return
    removed += [f"table {family} {name}" for family, name in ours]


def _remove_secrets(pods: str) -> None:
    """Remove what the API server has too, and nobody is to read here without it."""
    with contextlib.suppress(FileNotFoundError):
        for uid in os.listdir(pods):
            for kind in _MADE_AGAIN:
                shutil.rmtree(os.path.join(pods, uid, "volumes", f"kubernetes.io~{kind}"), ignore_errors=True)
