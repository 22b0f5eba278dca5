"""A WebSocket to a pod with Kubernetes' channels: each message begins with the number of the channel it is of.

Follows RFC 6455 (framing by wsproto) and Kubernetes' `v5.channel.k8s.io`.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from .calls import Caller
from .errors import StreamFailed, TransportError
from .transport import Duplex

__all__ = ["MAX_SENT", "ChannelSocket", "open_socket"]

MAX_SENT: Final = 1 << 15
"""Bytes of one message that is sent."""
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


async def open_socket(caller: Caller, target: str, protocols: Sequence[str]) -> ChannelSocket:
    """Upgrade a request to a WebSocket that speaks one of the protocols, the best one first.

    Raises ApiStatus where the server refuses, StreamFailed where it does not upgrade, TransportError.
    """
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    headers = (
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", key),
        ("Sec-WebSocket-Protocol", ", ".join(protocols)),
    )
    path = target.partition("?")[0]
    answer = await caller.request("GET", target, headers=headers)
    duplex = answer.duplex
    if duplex is None:
        raise StreamFailed(f"{path}: the server answered {answer.status} instead of switching to a WebSocket")
    wanted = base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()
    protocol = answer.header("sec-websocket-protocol")
    if answer.header("sec-websocket-accept") != wanted:
        duplex.abort()
        raise StreamFailed(f"{path}: the answer to the WebSocket's handshake is not to ours; is a proxy in between?")
    if protocol not in protocols:
        duplex.abort()
        raise StreamFailed(
            f"{path}: the server speaks {protocol or 'no protocol'!r}; want one of {', '.join(protocols)}"
        )
    return ChannelSocket(duplex, protocol, path)


class ChannelSocket:
    """Messages of channels, both ways. Nothing is read while nobody asks, so a slow reader slows the server down."""

    def __init__(self, duplex: Duplex, protocol: str, where: str) -> None:
        self.protocol = protocol
        self._where = where
        self._duplex = duplex
        self._connection = Connection(ConnectionType.CLIENT)
        self.close_reason = ""

    async def messages(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """Give channel and bytes, of long messages in parts, until the peer closes. Raises TransportError."""
        channel = -1
        while data := await self._duplex.read():
            for event in self._received(data):
                if isinstance(event, Message):
                    part = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                    if channel < 0 and part:
                        channel, part = part[0], part[1:]
                    if part or event.message_finished:
                        yield channel, part
                    if event.message_finished:
                        channel = -1
                elif isinstance(event, Ping):
                    self._send(event.response())
                elif isinstance(event, CloseConnection):
                    self.close_reason = event.reason or ""
                    if self._connection.state is ConnectionState.REMOTE_CLOSING:
                        self._send(event.response())
                    self._duplex.close()
                    return

    def _received(self, data: bytes) -> Iterator[Event]:
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if not isinstance(event, Pong):
                    yield event
        except (RemoteProtocolError, LocalProtocolError) as error:
            self._duplex.abort()
            raise TransportError(f"{self._where}: what came is no WebSocket: {error}") from error

    async def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel and wait until the peer has taken enough. After a close it does nothing."""
        prefix = bytes((channel,))
        for start in range(0, len(data) or 1, MAX_SENT):
            self._send(BytesMessage(prefix + data[start : start + MAX_SENT]))
            await self._duplex.drain()

    def _send(self, event: Event) -> None:
        try:
            self._duplex.write(self._connection.send(event))
        except LocalProtocolError:
            return  # one of both sides has closed

    def close(self) -> None:
        """Say goodbye and close."""
        self._send(CloseConnection(1000))
        self._duplex.close()

    def abort(self) -> None:
        """Close at once."""
        self._duplex.abort()
