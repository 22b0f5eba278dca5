"""Kubernetes' channels over WebSocket: each message begins with the number of the channel it belongs to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from pilothouse.apiserver.streams.inbox import Inbox
from pilothouse.apiserver.streams.websocket import Part, WebSocket

__all__ = ["Channels"]

_CLOSE: Final = 255
_MAX_CODED: Final = 1 << 20
"""Bytes of the longest message in base64: it is decoded as a whole."""


class Channels:
    """The channels of one connection.

    inboxes: where what comes on a channel goes; other channels are ignored. coded: messages are base64 text, the
    channel a digit. closes: the peer may close a channel of its own by message 255.
    """

    def __init__(
        self, socket: WebSocket, inboxes: Mapping[int, Inbox], *, coded: bool = False, closes: bool = False
    ) -> None:
        self._socket = socket
        self._inboxes = inboxes
        self._coded = coded
        self._closes = closes
        self._held = bytearray()
        self._inbox: Inbox | None = None
        self._channel = -1

    async def run(self) -> None:
        """Read until the peer is gone; then all inboxes end."""
        try:
            async for part in self._socket.parts():
                if not await (self._take_whole(part) if self._coded else self._take(part)):
                    return
        finally:
            for inbox in self._inboxes.values():
                inbox.end()

    async def _take(self, part: Part) -> bool:
        data = part.data
        if part.first or self._channel < 0:
            if not data:
                self._channel = -1
                return True
            self._channel, data = data[0], data[1:]
            self._inbox = self._inboxes.get(self._channel)
            self._held.clear()
        if self._closes and self._channel == _CLOSE:
            self._held += data
            done = self._close() if part.last else len(self._held) <= 1
        else:
            await self._feed(self._inbox, data)
            done = True
        if part.last:
            self._channel = -1
        return done

    def _close(self) -> bool:
        if len(self._held) != 1:
            return False
        if inbox := self._inboxes.get(self._held[0]):
            inbox.end()
        return True

    async def _take_whole(self, part: Part) -> bool:
        self._held += part.data
        if len(self._held) > _MAX_CODED:
            self._socket.close(1009, f"at most {_MAX_CODED} bytes in a message")
            return False
        if not part.last:
            return True
        message, self._held = bytes(self._held), bytearray()
        if message:
            try:
                await self._feed(self._inboxes.get(message[0] - ord("0")), base64.b64decode(message[1:], validate=True))
            except binascii.Error:
                # The real server ignores what it cannot decode.
                return True
        return True

    @staticmethod
    async def _feed(inbox: Inbox | None, data: bytes) -> None:
        if inbox is not None:
            inbox.feed(data)
            await inbox.room()

    def send(self, channel: int, data: bytes) -> None:
        """Send bytes on a channel as one message."""
        if self._coded:
            self._socket.send(b"%d%b" % (channel, base64.b64encode(data)), text=True)
        else:
            self._socket.send(bytes((channel,)) + data)

    async def drain(self) -> None:
        """Wait until the peer has taken enough."""
        await self._socket.drain()

    def close(self) -> None:
        """Say that nothing more comes."""
        self._socket.close()
