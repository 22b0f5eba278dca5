"""An address of the cluster on the machine's loopback device, where nobody else has it."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from typing import Final

from pilothouse.node.process.netlink import Netlink, link_index

__all__ = ["change_loopback"]

_DELETE_ADDRESS: Final = 21
_REQUEST_ACK: Final = 5
_LOCAL: Final = 2


def change_loopback(address: str, *, add: bool) -> None:
    """Add an address to the loopback device, or remove it. Raises `OSError`; removing what is not there is fine."""
    prefix = 128 if ":" in address else 32
    if not add:
        _delete(address, prefix)
        return
    with contextlib.closing(Netlink()) as netlink:
        netlink.add_address(link_index("lo"), address, prefix)


def _delete(address: str, prefix: int) -> None:
    ip = ipaddress.ip_address(address)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, prefix, 0, 0, link_index("lo"))
    body += struct.pack("=HH", 4 + len(ip.packed), _LOCAL) + ip.packed
    head = struct.pack("=IHHII", 16 + len(body), _DELETE_ADDRESS, _REQUEST_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.bind((0, 0))
        sock.send(head + body)
        sock.recv(4_096)
