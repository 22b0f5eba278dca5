"""The PROXY protocol, versions 1 and 2: whom a connection is really from, as the proxy before this one says."""

from __future__ import annotations

import ipaddress
import re
import struct
from typing import Final, NamedTuple

from pilothouse.traffic.plane.http import Refused

__all__ = ["MOST", "Source", "read_proxy_header", "write_proxy_header"]

MOST: Final = 536
"""Bytes that have to be seen at most: a version 2 header whose extensions are longer is refused."""

_V2: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1: Final = re.compile(
    rb"PROXY (?:(UNKNOWN)(?: [^\r\n]*)?|(TCP[46]) ([0-9a-fA-F:.]{2,39}) ([0-9a-fA-F:.]{2,39}) "
    rb"(0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
)
_V1_BYTES: Final = 107


class Source(NamedTuple):
    """Who opened a connection; empty where the proxy does not say (its own health checks)."""

    address: str
    port: int


def read_proxy_header(data: bytes) -> tuple[Source, int] | None:
    """Return who it is and how long the header was, None where more bytes are needed. Raises Refused."""
    if data.startswith(_V2[: len(data)]):
        return _version2(data) if len(data) >= 16 else None
    if data.startswith(b"PROXY "[: len(data)]):
        return _version1(data)
    raise Refused(400, "proxy protocol", "the connection does not begin with a PROXY header")


def _version1(data: bytes) -> tuple[Source, int] | None:
    end = data.find(b"\n", 0, _V1_BYTES)
    if end < 0:
        if len(data) >= _V1_BYTES:
            raise Refused(400, "proxy protocol", "the PROXY header is too long")
        return None
    found = _V1.fullmatch(data, 0, end + 1)
    if found is None:
        raise Refused(400, "proxy protocol", "malformed PROXY header")
    if found[1]:
        return Source("", 0), end + 1
    try:
        address = ipaddress.ip_address(found[3].decode())
        ipaddress.ip_address(found[4].decode())
    except ValueError:
        raise Refused(400, "proxy protocol", "malformed address in the PROXY header") from None
    port = int(found[5])
    if address.version != (4 if found[2] == b"TCP4" else 6) or port > 65535:
        raise Refused(400, "proxy protocol", "malformed address in the PROXY header")
    return Source(str(address), port), end + 1


def _version2(data: bytes) -> tuple[Source, int] | None:
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command >> 4 != 2 or command & 15 > 1 or 16 + length > MOST:
        raise Refused(400, "proxy protocol", "unknown or oversized PROXY header")
    if len(data) < 16 + length:
        return None
    if command & 15 == 0 or family >> 4 not in {1, 2}:
        return Source("", 0), 16 + length
    size = 4 if family >> 4 == 1 else 16
    if length < 2 * size + 4:
        raise Refused(400, "proxy protocol", "malformed PROXY header")
    address = ipaddress.ip_address(data[16 : 16 + size])
    (port,) = struct.unpack_from("!H", data, 16 + 2 * size)
    return Source(str(address), port), 16 + length


def write_proxy_header(source: Source, destination: Source) -> bytes:
    """Return a header of version 1 for what a peer is told."""
    kind = "TCP6" if ":" in source.address else "TCP4"
    return f"PROXY {kind} {source.address} {destination.address} {source.port} {destination.port}\r\n".encode()
