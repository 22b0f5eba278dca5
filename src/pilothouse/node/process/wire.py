"""Messages between agent, zygote and keepers: one JSON object with descriptors per packet of a local socket."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

__all__ = ["MAX_MESSAGE", "pair", "receive", "send"]

MAX_MESSAGE = 128 << 10
"""Bytes of a message; what is longer goes through a file."""
_MAX_FDS = 8

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(dict[str, Any])


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets that keep messages apart."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; raises `OSError`, `BlockingIOError` where the other side does not keep up, `ValueError`."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE:
        raise ValueError(f"argument list too long: {len(data)} bytes; at most {MAX_MESSAGE} are taken")
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], control, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Receive one message and its descriptors, which the caller owns; None at the end.

    Raises `BlockingIOError` where nothing is there, `ValueError` for what is no message.
    """
    size = array.array("i").itemsize
    data, control, _, _ = sock.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(_MAX_FDS * size), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % size])
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    try:
        return _decoder.decode(data), list(fds)
    except msgspec.DecodeError as error:
        for fd in fds:
            os.close(fd)
        raise ValueError(f"not a message: {error}") from error
