"""The addresses by which other machines reach this one, asked of the kernel without any traffic."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
from typing import Final

__all__ = ["LOOPBACK", "own_address", "own_addresses"]

LOOPBACK: Final = "127.0.0.1"
_ELSEWHERE: Final = ("192.0.2.1", 9)
_ASK_FOR_ADDRESS: Final = 0x8915
"""The call SIOCGIFADDR of Linux."""
_NAME_BYTES: Final = 15


def own_address() -> str:
    """Return the IPv4 address of the interface that leads out, `LOOPBACK` where none does."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_ELSEWHERE)  # nothing is sent: it only asks the routes
        found: str = probe.getsockname()[0]
        if found != "0.0.0.0":  # noqa: S104  # compared
            return found
    return LOOPBACK


def own_addresses() -> tuple[str, ...]:
    """Return the IPv4 addresses of this machine, one an interface, that of `own_address` first; none of loopback."""
    found = [own_address()]
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        found += [_address_of(name, probe) for _, name in socket.if_nameindex()]
    return tuple(dict.fromkeys(each for each in found if each and not ipaddress.ip_address(each).is_loopback))


def _address_of(interface: str, probe: socket.socket) -> str:
    try:
        import fcntl  # noqa: PLC0415  # not where there are no such calls

        request = struct.pack("256s", interface.encode()[:_NAME_BYTES])
        return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), _ASK_FOR_ADDRESS, request)[20:24])
    except (ImportError, OSError):  # it has no address
        return ""
