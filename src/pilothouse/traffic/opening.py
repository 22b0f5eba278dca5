"""What a gateway opens for its workers: listening sockets, and files in memory."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

__all__ = ["in_memory", "listening", "why_not"]

_BACKLOG: Final = 4096
_PRIVILEGED: Final = 1024


def in_memory(data: bytes) -> int:
    """Return the descriptor of a file that holds these bytes; the caller closes it."""
    fd = os.memfd_create("pilothouse-gateway", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    return fd


def listening(address: str, port: int) -> socket.socket:
    """Return a socket that listens; at an empty address on all, of both versions of IP. Raises OSError."""
    is_any = address in {"", "::"}
    family = socket.AF_INET6 if is_any or ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        if not is_any or error.errno != errno.EAFNOSUPPORT:
            raise
        return listening("0.0.0.0", port)  # noqa: S104  # all addresses were asked for
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_any else 1)
        sock.bind((address, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def why_not(error: OSError, port: int) -> str:
    """Return why a port cannot be listened at, and the way out."""
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop that, or use another port"
    if error.errno == errno.EACCES and port < _PRIVILEGED:
        return f"ports below {_PRIVILEGED} are root's; use one above, or lower net.ipv4.ip_unprivileged_port_start"
    return os.strerror(error.errno) if error.errno else str(error)
