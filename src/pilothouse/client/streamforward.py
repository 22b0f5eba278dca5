"""Port-forward: one connection to a pod's port over one WebSocket, and a local port that makes one for each of its own.

Follows Kubernetes' port-forward by `v4.channel.k8s.io`: channel 0 carries data, channel 1 an error.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Self

from pilothouse.foundation.logs import get_logger

from .errors import ClientError, StreamFailed
from .streamsocket import ChannelSocket

__all__ = ["FORWARD_PROTOCOL", "ForwardedConnection", "ForwardedPort"]

FORWARD_PROTOCOL: Final = "v4.channel.k8s.io"
_DATA, _ERROR = 0, 1
_PORT_BYTES: Final = 2
_CHUNK: Final = 1 << 15
_log = get_logger(__name__)


class ForwardedConnection:
    """One connection to a port of a pod."""

    def __init__(self, socket: ChannelSocket, where: str) -> None:
        self._socket = socket
        self._where = where
        self._messages = socket.messages()
        self._named = {_DATA: _PORT_BYTES, _ERROR: _PORT_BYTES}
        self._error = bytearray()

    async def read(self) -> bytes:
        """Wait for bytes; empty at the end. Raises StreamFailed with what the server says, such as a closed port."""
        async for channel, data in self._messages:
            if channel not in self._named:
                continue
            if skipped := min(self._named[channel], len(data)):
                # Each channel begins with the number of its port.
                self._named[channel] -= skipped
                data = data[skipped:]  # noqa: PLW2901
            if channel == _ERROR:
                if data:
                    raise StreamFailed(f"{self._where}: {data[:500].decode('utf-8', 'replace').strip()}")
            elif data:
                return data
        return b""

    async def write(self, data: bytes) -> None:
        """Send bytes and wait until the peer has taken enough."""
        if data:
            await self._socket.send(_DATA, data)

    async def aclose(self) -> None:
        """End the connection."""
        await self._messages.aclose()
        self._socket.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class ForwardedPort:
    """A local port whose connections go to a port of a pod, while the block lasts.

    connections: how many at once; more wait until others end.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[ForwardedConnection]],
        where: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        connections: int = 100,
    ) -> None:
        self._connect = connect
        self._where = where
        self._host, self._port = host, port
        self._turn = asyncio.Semaphore(connections)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The local port."""
        if self._server is None:
            raise RuntimeError(f"{self._where}: nothing is forwarded outside of the `async with` block")
        found: int = self._server.sockets[0].getsockname()[1]
        return found

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, self._host, self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._turn, await self._connect() as connection:
                await _carry(reader, writer, connection)
        except (ClientError, OSError) as error:
            _log.warning("port-forward failed", what=self._where, error=str(error))
        except Exception as error:  # noqa: BLE001  # a refusal, or whatever: it ends this connection only
            _log.warning("port-forward failed", what=self._where, error=str(error))
        finally:
            writer.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: ForwardedConnection) -> None:
    async def inward() -> None:
        while data := await reader.read(_CHUNK):
            await connection.write(data)

    async def outward() -> None:
        while data := await connection.read():
            writer.write(data)
            await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    sending, receiving = asyncio.ensure_future(inward()), asyncio.ensure_future(outward())
    try:
        # The pod's end decides; the local end may be done with sending long before the answer is there.
        await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and sending.exception() is not None:
            return
        await receiving
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)
