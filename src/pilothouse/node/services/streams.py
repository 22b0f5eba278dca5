"""A listener of the user-space proxy for TCP: takes connections, chooses endpoints, and lets bytes flow."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
import socket
from collections.abc import Sequence
from typing import Final

from .affinity import Affinity
from .carrying import Carried, Limits
from .selection import Target
from .splicing import Pipes, Splice

__all__ = ["StreamListener"]

_BACKLOG: Final = 1_024
_AT_ONCE: Final = 64
_TRIES: Final = 3


class StreamListener:
    """Listens at one address and port. Raises `OSError` where it may not."""

    def __init__(  # what all listeners share, and where this one is
        self, address: str, port: int, limits: Limits, carried: Carried, pipes: Pipes, source: random.Random
    ) -> None:
        self.targets: tuple[Target, ...] = ()
        self._affinity: Affinity | None = None
        self._ranges: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
        self._limits = limits
        self._carried = carried
        self._pipes = pipes
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((address, port))
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket, self._accept)

    def lead_to(self, targets: tuple[Target, ...], affinity: Affinity | None, ranges: Sequence[str]) -> None:
        """Lead connections from now on to these endpoints. ranges: from where, all where empty."""
        self.targets = targets
        self._affinity = affinity
        self._ranges = [ipaddress.ip_network(each) for each in ranges]

    def tidy(self) -> None:
        """Do nothing: connections are tidied where they all are."""

    def close(self) -> None:
        """Take no more; connections that are there go on."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, where = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:
                # No file is left, or the client went away: what waits is taken with the next event.
                self._carried.refused += 1
                return
            if self._carried.connections >= self._limits.connections or not self._may(where[0]):
                self._carried.refused += 1
                _reset(client)
                continue
            self._carried.opening += 1
            task = self._loop.create_task(self._lead(client, where[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _may(self, client: str) -> bool:
        if not self._ranges:
            return True
        address = ipaddress.ip_address(client)
        return any(address in each for each in self._ranges)

    async def _lead(self, client: socket.socket, where: str) -> None:
        try:
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found = await self._connected(where)
        except BaseException:
            _reset(client)
            raise
        finally:
            self._carried.opening -= 1
        if found is None:
            _reset(client)
            return
        target, server = found
        splice = Splice(client, server, self._pipes, self._carried.remove)
        self._carried.add(splice, target)

    async def _connected(self, client: str) -> tuple[Target, socket.socket] | None:
        """Return a connection to the endpoint of a client, to another one where that does not answer."""
        left = list(self.targets)
        for _ in range(_TRIES):
            if not left:
                return None
            target = self._affinity.find(client, left) if self._affinity is not None else None
            target = target or self._source.choice(left)
            left.remove(target)
            if self._affinity is not None:  # before it is connected, so that those who come meanwhile go there too
                self._affinity.remember(client, target)
            server = socket.socket(socket.AF_INET6 if ":" in target.address else socket.AF_INET, socket.SOCK_STREAM)
            try:
                server.setblocking(False)
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.timeout(self._limits.connect_seconds):
                    await self._loop.sock_connect(server, (target.address, target.port))
            except (OSError, TimeoutError):
                server.close()
                continue
            except BaseException:
                server.close()
                raise
            return target, server
        return None


def _reset(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
