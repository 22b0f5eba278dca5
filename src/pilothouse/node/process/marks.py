"""What a node adds to the machine's network beside its bridge, so marked that it is known when nobody remembers it.

Routes have a protocol number of their own, addresses on the loopback device a label.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from .netlink import Netlink, link_index

__all__ = ["LABEL", "PROTOCOL", "MachineNetwork", "Route"]

LABEL: Final = "lo:pilothouse"
"""Of the addresses of the cluster on the loopback device; a label begins with its device's name."""
PROTOCOL: Final = 112
"""Who made a route; `ip route show proto 112` lists them."""

_DELADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE, _GETLINK = 21, 22, 24, 25, 26, 18
_REQUEST, _DUMP, _REPLACE, _CREATE = 1, 0x300, 0x100, 0x400
_DONE, _ERROR = 3, 2
_IFA_LOCAL, _IFA_LABEL, _IFLA_MASTER = 2, 3, 10
_RTA_DST, _RTA_GATEWAY = 1, 5
_MAIN, _UNICAST = 254, 1
_GONE: Final = {errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENODEV}
_CHUNK: Final = 1 << 18


class Route(NamedTuple):
    """Where packets to `network` (CIDR) go."""

    network: str
    gateway: str

    def is_within(self, cidr: str) -> bool:
        """Return whether it leads to a part of a range."""
        inner, outer = ipaddress.ip_network(self.network), ipaddress.ip_network(cidr)
        if isinstance(inner, ipaddress.IPv4Network):
            return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
        return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


class MachineNetwork(Netlink):
    """Requests for marked routes and addresses in the network namespace of this thread. Raises `OSError`."""

    def put_route(self, route: Route) -> None:
        """Make a route, or have it lead to another gateway."""
        self._ask(_NEWROUTE, _route(route), _CREATE | _REPLACE, f"route {route.network} via {route.gateway}")

    def delete_route(self, route: Route) -> None:
        """Remove a route; one that is not there is fine."""
        self._gone(_DELROUTE, _route(route), f"route {route.network} via {route.gateway}")

    def routes(self) -> set[Route]:
        """Return the routes that are marked, those of IPv4 and IPv6."""
        found = set()
        for body in self._dump(_GETROUTE, struct.pack("=BBBBBBBBI", *(0,) * 9)):
            family, length, _, _, table, protocol = struct.unpack_from("=BBBBBB", body)
            values = dict(_attributes(body[12:]))
            if protocol != PROTOCOL or table != _MAIN or _RTA_GATEWAY not in values or _RTA_DST not in values:
                continue
            if family in {socket.AF_INET, socket.AF_INET6}:
                network = f"{ipaddress.ip_address(values[_RTA_DST])}/{length}"
                found.add(Route(network, str(ipaddress.ip_address(values[_RTA_GATEWAY]))))
        return found

    def labelled(self, label: str = LABEL) -> list[str]:
        """Return the addresses of IPv4 that have a label."""
        found = []
        for body in self._dump(_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            values = dict(_attributes(body[8:]))
            if values.get(_IFA_LABEL, b"").rstrip(b"\0") == label.encode() and _IFA_LOCAL in values:
                found.append(str(ipaddress.ip_address(values[_IFA_LOCAL])))
        return found

    def delete_loopback(self, address: str) -> None:
        """Remove an address from the loopback device; one that is not there is fine."""
        ip = ipaddress.ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        head = struct.pack("=BBBBI", family, ip.max_prefixlen, 0, 0, link_index("lo"))
        self._gone(_DELADDR, head + _attribute(_IFA_LOCAL, ip.packed), f"address {address}")

    def ports(self, bridge: int) -> int:
        """Return how many links a bridge has, by its index."""
        bodies = self._dump(_GETLINK, struct.pack("=BBHiII", socket.AF_UNSPEC, 0, 0, 0, 0, 0))
        masters = [dict(_attributes(body[16:])).get(_IFLA_MASTER) for body in bodies]
        return masters.count(struct.pack("=I", bridge))

    def _gone(self, kind: int, body: bytes, what: str) -> None:
        try:
            self._ask(kind, body, 0, what)
        except OSError as error:
            if error.errno not in _GONE:
                raise

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        self._sequence += 1
        head = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | _DUMP, self._sequence, 0)
        self._socket.send(head + body)
        found: list[bytes] = []
        while True:
            for answer, sequence, part in _messages(self._socket.recv(_CHUNK)):
                if sequence != self._sequence:
                    continue
                if answer == _DONE:
                    return found
                if answer == _ERROR:
                    number = -struct.unpack_from("=i", part)[0]
                    raise OSError(number, f"the kernel does not list its network: {errno.errorcode.get(number)}")
                found.append(part)


def _route(route: Route) -> bytes:
    network, gateway = ipaddress.ip_network(route.network), ipaddress.ip_address(route.gateway)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, _MAIN, PROTOCOL, 0, _UNICAST, 0)
    body += _attribute(_RTA_DST, network.network_address.packed)
    return body + _attribute(_RTA_GATEWAY, gateway.packed)


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    while len(data) >= 16:
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", data)
        yield kind, sequence, data[16:length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
