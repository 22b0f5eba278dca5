"""The machine's side of pods' network: the bridge, forwarding, and a way out by masquerading."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import shutil

from pilothouse.foundation import processes
from pilothouse.node.errors import RuntimeUnavailable

from .ipam import AddressPool
from .netlink import Netlink, hardware_address, link_index

__all__ = ["ensure_bridge", "ensure_way_out", "remove_bridge", "remove_way_out", "table_of"]


def ensure_bridge(name: str, pool: AddressPool, mtu: int) -> None:
    """Make the bridge, with the pool's gateway as its address, or take the one that is there.

    Raises `RuntimeUnavailable` that says what the kernel refused.
    """
    netlink = Netlink()
    try:
        with contextlib.suppress(FileExistsError):
            netlink.add_bridge(name, mtu, hardware_address(pool.gateway))
        index = link_index(name)
        with contextlib.suppress(FileExistsError):
            netlink.add_address(index, pool.gateway, pool.prefix)
        netlink.up(index)
    except OSError as error:
        raise RuntimeUnavailable(f'bridge "{name}": {error.filename}: {error.strerror}') from error
    finally:
        netlink.close()


def remove_bridge(name: str) -> None:
    """Remove the bridge; one that is not there is fine. Raises `OSError`."""
    netlink = Netlink()
    try:
        netlink.delete(link_index(name))
    except OSError as error:
        if error.errno not in {errno.ENODEV, errno.ENXIO}:
            raise
    finally:
        netlink.close()


async def remove_way_out(bridge: str) -> None:
    """Take the masquerading away, where there is some. Forwarding stays: others may have come to need it."""
    if shutil.which("nft") is None:
        return
    with contextlib.suppress(processes.ProcessError):
        await processes.run(["nft", "delete", "table", "ip", table_of(bridge)], env=processes.inherit(), timeout=20)


async def ensure_way_out(bridge: str, pool: AddressPool, cluster_cidr: str = "") -> str:
    """Forward and masquerade what pods send to other networks; return why that is not so, empty where it is.

    cluster_cidr: pods of other nodes, who are to see where something comes from.
    """
    try:
        _forward()
    except OSError as error:
        return f"net.ipv4.ip_forward cannot be set: {error.strerror}"
    if shutil.which("nft") is None:
        return "no nft program"
    table = table_of(bridge)
    elsewhere = f" ip daddr != {ipaddress.ip_network(cluster_cidr)}" if cluster_cidr else ""
    rules = (
        f"table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n  chain postrouting {{\n"
        f"    type nat hook postrouting priority srcnat; policy accept;\n"
        f'    ip saddr {pool.network}{elsewhere} oifname != "{bridge}" masquerade\n  }}\n}}\n'
    )
    try:
        await processes.run(["nft", "-f", "-"], env=processes.inherit(), stdin=rules.encode(), timeout=20)
    except processes.ProcessError as error:
        return str(error)
    return ""


def table_of(bridge: str) -> str:
    """Return the name of the table that masquerades."""
    return f"pilothouse-{bridge}"


def _forward() -> None:
    with open("/proc/sys/net/ipv4/ip_forward", "r+", encoding="ascii") as file:
        if file.read().strip() != "1":
            file.seek(0)
            file.write("1")
