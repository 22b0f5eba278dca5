"""The sockets of a DNS server: datagrams and connections in, bounded in number, answers out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

__all__ = ["Answering", "DnsSockets"]

Answering = Callable[[bytes, bool], "bytes | Awaitable[bytes | None] | None"]
"""What answers a message; the flag is whether it came by TCP. None: no answer. Plain bytes where they are known."""

_IDLE_SECONDS: Final = 10.0
_MOST_CONNECTIONS: Final = 256


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, owner: DnsSockets) -> None:
        self._owner = owner
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._owner.answering(data, False)  # as the type says
        if isinstance(answer, bytes):
            self._send(answer, addr)
        elif answer is not None:
            self._owner.later(answer, functools.partial(self._known, addr))

    def _known(self, addr: tuple[str, int], done: asyncio.Future[bytes | None]) -> None:
        answer = None if done.cancelled() or done.exception() is not None else done.result()
        if answer is not None:
            self._send(answer, addr)

    def _send(self, answer: bytes, addr: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)


class DnsSockets:
    """Listens at addresses by UDP and TCP. `in_flight`: answers that are waited for at a time; beyond, none begins."""

    def __init__(self, answering: Answering, *, in_flight: int = 1_024) -> None:
        self.answering = answering
        self.dropped = 0
        self._most = in_flight
        self._tasks: set[asyncio.Future[bytes | None]] = set()
        self._transports: list[asyncio.DatagramTransport] = []
        self._servers: list[asyncio.Server] = []
        self._connections = 0
        self._handlers: set[asyncio.Task[None]] = set()

    async def listen(self, address: str, port: int) -> int:
        """Listen and return the port, for 0 is any that is free. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._connection, address, port, backlog=128)
        actual = int(server.sockets[0].getsockname()[1])
        try:
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (address, actual))
        except OSError:
            server.close()
            await server.wait_closed()
            raise
        self._servers.append(server)
        self._transports.append(transport)
        return actual

    def later(self, answer: Awaitable[bytes | None], then: Callable[[asyncio.Future[bytes | None]], None]) -> None:
        """Wait for an answer beside, unless too many are waited for already: it is given up then."""
        task = asyncio.ensure_future(answer)
        if len(self._tasks) >= self._most:
            self.dropped += 1
            task.cancel()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(then)

    @property
    def in_flight(self) -> int:
        """How many answers are waited for."""
        return len(self._tasks)

    async def close(self) -> None:
        """Stop listening and give up what waits."""
        for server in self._servers:
            server.close()
        for transport in self._transports:
            transport.close()
        pending: list[asyncio.Future[Any]] = [*self._tasks, *self._handlers]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._servers.clear()
        self._transports.clear()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._connections >= _MOST_CONNECTIONS:
            self.dropped += 1
            writer.transport.abort()
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._handlers.add(task)
        self._connections += 1
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections -= 1
            self._handlers.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_IDLE_SECONDS):
                length = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(length)
            answer = self.answering(data, True)  # as the type says
            if answer is not None and not isinstance(answer, bytes):
                answer = await answer
            if answer is None:
                return
            async with asyncio.timeout(_IDLE_SECONDS):
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
