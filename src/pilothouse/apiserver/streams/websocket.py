"""WebSocket over a `Duplex`: messages in parts, pings answered, closes with their codes (RFC 6455, on wsproto)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from pilothouse.apiserver.model import Duplex

__all__ = ["Part", "WebSocket", "WebSocketTunnel"]

MAX_MESSAGE: Final = 32 << 20
"""Bytes of the longest message that is read, as Kubernetes has it."""
_MAX_REASON: Final = 100
MAX_SENT: Final = 1 << 18
"""Bytes of the longest message that `send` makes of one piece of a tunnel."""


@dataclass(frozen=True, slots=True)
class Part:
    """Part of a message as it came: whether it is the message's first and last."""

    data: bytes
    first: bool
    last: bool


class WebSocket:
    """One side of a connection whose handshake is done."""

    def __init__(self, duplex: Duplex, *, server: bool = True, max_message: int = MAX_MESSAGE) -> None:
        self._duplex = duplex
        self._connection = Connection(ConnectionType.SERVER if server else ConnectionType.CLIENT)
        self._max_message = max_message
        self.close_code = 0
        """The code that the peer closed with; 0 before."""

    async def parts(self) -> AsyncIterator[Part]:
        """Give the peer's messages, in parts as they come, until it closes or breaks the protocol.

        Nothing is read while the caller works on a part.
        """
        size, first = 0, True
        while data := await self._duplex.read():
            for event in self._receive(data):
                if isinstance(event, Message):
                    part = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                    size += len(part)
                    if size > self._max_message:
                        self.close(CloseReason.MESSAGE_TOO_BIG, f"at most {self._max_message} bytes in a message")
                        return
                    yield Part(part, first, event.message_finished)
                    first = event.message_finished
                    size = 0 if first else size
                elif isinstance(event, Ping):
                    self._send(event.response())
                elif isinstance(event, CloseConnection):
                    self.close_code = int(event.code)
                    self._answer_close(event)
                    return
            # A peer that pings and never reads is made to wait.
            await self._duplex.drain()

    def _receive(self, data: bytes) -> Iterator[Event]:
        try:
            self._connection.receive_data(data)
            for event in self._connection.events():
                if not isinstance(event, Pong):
                    yield event
        except (RemoteProtocolError, LocalProtocolError) as error:
            yield CloseConnection(CloseReason.PROTOCOL_ERROR, str(error))

    def send(self, data: bytes, *, text: bool = False) -> None:
        """Send one message. After a close it does nothing."""
        self._send(TextMessage(data.decode("ascii")) if text else BytesMessage(data))

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""
        await self._duplex.drain()

    def close(self, code: int = CloseReason.NORMAL_CLOSURE, reason: str = "") -> None:
        """Say that nothing more comes, with a code and why."""
        self._send(CloseConnection(code, reason))

    def _answer_close(self, event: CloseConnection) -> None:
        # wsproto gives a close of its own making where the peer broke the protocol.
        if self._connection.state is ConnectionState.OPEN:
            self.close(event.code, (event.reason or "")[:_MAX_REASON])
        else:
            self._send(event.response())

    def _send(self, event: Event) -> None:
        try:
            self._duplex.write(self._connection.send(event))
        except LocalProtocolError:
            # One of both sides has closed.
            return


class WebSocketTunnel:
    """Bytes through the messages of a WebSocket, as a `Duplex`: what SPDY over WebSocket runs on."""

    def __init__(self, socket: WebSocket, duplex: Duplex) -> None:
        self._socket = socket
        self._duplex = duplex
        self._parts = socket.parts()

    async def read(self) -> bytes:
        async for part in self._parts:
            if part.data:
                return part.data
        return b""

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_SENT):
            self._socket.send(data[start : start + MAX_SENT])

    async def drain(self) -> None:
        await self._socket.drain()

    def close(self) -> None:
        self._socket.close()
        self._duplex.close()

    def abort(self) -> None:
        self._duplex.abort()
