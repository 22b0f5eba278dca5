"""The few requests to the kernel's network configuration that pods need: links, addresses, routes.

A keeper is forked for each pod, so its memory counts a hundred times: this is all it loads, where a whole netlink
library would bring some 24 MB and 300 ms.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

__all__ = ["Netlink", "hardware_address", "link_index"]

_NEWLINK, _DELLINK, _NEWADDR, _NEWROUTE = 16, 17, 20, 24
_REQUEST, _ACK, _EXCL, _CREATE = 1, 4, 0x200, 0x400
_ERROR = 2
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 10, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_LABEL, _IFA_BROADCAST = 1, 2, 3, 4
_RTA_GATEWAY = 5
_IFF_UP = 1
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1
_IFA_F_NODAD = 2


def hardware_address(address: str) -> bytes:
    """Return the hardware address that goes with an IPv4 one: whoever gets it next is where neighbours look."""
    return b"\x02\x70" + ipaddress.IPv4Address(address).packed


def link_index(name: str) -> int:
    """Return the index of a link of the own network namespace; raises `OSError`."""
    return socket.if_nametoindex(name)


class Netlink:
    """Requests in the network namespace that was the process's own when this was made."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def add_bridge(self, name: str, mtu: int, mac: bytes) -> None:
        """Make a bridge. Without a hardware address of its own it would change that with its ports."""
        info = _attribute(_IFLA_INFO_KIND, b"bridge")
        body = _link() + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu) + _attribute(_IFLA_ADDRESS, mac)
        self._ask(_NEWLINK, body + _attribute(_IFLA_LINKINFO, info), _CREATE | _EXCL, f"bridge {name}")

    def add_veth(self, name: str, peer: str, peer_namespace: int, mtu: int, *, mac: bytes = b"") -> None:
        """Make a pair of links: `name` here, `peer` in the namespace of a descriptor."""
        other = _link() + _text(_IFLA_IFNAME, peer) + _number(_IFLA_MTU, mtu) + _number(_IFLA_NET_NS_FD, peer_namespace)
        data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, other))
        info = _attribute(_IFLA_INFO_KIND, b"veth") + data
        body = _link() + _text(_IFLA_IFNAME, name) + _number(_IFLA_MTU, mtu)
        body += _attribute(_IFLA_ADDRESS, mac) if mac else b""
        self._ask(_NEWLINK, body + _attribute(_IFLA_LINKINFO, info), _CREATE | _EXCL, f"veth {name}, {peer}")

    def enslave(self, index: int, master: int) -> None:
        """Put a link into a bridge and set it up."""
        self._ask(_NEWLINK, _link(index, _IFF_UP) + _number(_IFLA_MASTER, master), 0, f"link {index} into {master}")

    def up(self, index: int) -> None:
        """Set a link up."""
        self._ask(_NEWLINK, _link(index, _IFF_UP), 0, f"link {index} up")

    def delete(self, index: int) -> None:
        """Remove a link."""
        self._ask(_DELLINK, _link(index), 0, f"link {index}")

    def add_address(self, index: int, address: str, prefix: int, *, label: str = "") -> None:
        """Give a link an address; one that it has already is an `OSError` of EEXIST. IPv4 has labels."""
        ip = ipaddress.ip_interface(f"{address}/{prefix}")
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        body = struct.pack("=BBBBI", family, prefix, _IFA_F_NODAD if ip.version == 6 else 0, 0, index)
        body += _attribute(_IFA_LOCAL, ip.ip.packed) + _attribute(_IFA_ADDRESS, ip.ip.packed)
        if ip.version == 4:
            body += _attribute(_IFA_BROADCAST, ip.network.broadcast_address.packed)
            body += _text(_IFA_LABEL, label) if label else b""
        self._ask(_NEWADDR, body, _CREATE | _EXCL, f"address {address}/{prefix}")

    def add_default_route(self, gateway: str) -> None:
        """Send what is for nobody near to `gateway`."""
        ip = ipaddress.ip_address(gateway)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        body = struct.pack("=BBBBBBBBI", family, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, 0, _RTN_UNICAST, 0)
        self._ask(_NEWROUTE, body + _attribute(_RTA_GATEWAY, ip.packed), _CREATE | _EXCL, f"route via {gateway}")

    def _ask(self, kind: int, body: bytes, flags: int, what: str) -> None:
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _ACK | flags, self._sequence, 0)
        self._socket.send(head + body)
        while True:
            data = self._socket.recv(16_384)
            _, answer, _, sequence, _ = struct.unpack_from("=IHHII", data)
            if sequence != self._sequence:
                continue
            number = -struct.unpack_from("=i", data, 16)[0] if answer == _ERROR else 0
            if number:
                raise OSError(number, os.strerror(number), what)
            return


def _link(index: int = 0, flags: int = 0) -> bytes:
    return struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, index, flags, flags)


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, struct.pack("=I", value))
