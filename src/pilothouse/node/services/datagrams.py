"""A listener of the user-space proxy for UDP: each client has a socket of its own to its endpoint, while it talks."""

from __future__ import annotations

import asyncio
import ipaddress
import random
import socket
from collections.abc import Sequence
from typing import Any, cast

from .affinity import Affinity
from .carrying import Carried, Limits
from .selection import Target

__all__ = ["DatagramListener"]

_Address = tuple[Any, ...]


class _Flow(asyncio.DatagramProtocol):
    """One client's way to its endpoint and back."""

    def __init__(self, owner: DatagramListener, client: _Address, target: Target) -> None:
        self.target = target
        self.moved_at = owner.loop.time()
        self._owner = owner
        self._client = client
        self._transport: asyncio.DatagramTransport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = self._transport = cast("asyncio.DatagramTransport", transport)
        for data in self._early:
            made.sendto(data)
        self._early.clear()

    def send(self, data: bytes) -> None:
        self.moved_at = self._owner.loop.time()
        if self._transport is not None:
            self._transport.sendto(data)
        elif len(self._early) < 16:
            self._early.append(data)

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        self.moved_at = self._owner.loop.time()
        self._owner.answer(data, self._client)

    def error_received(self, exc: Exception) -> None:
        self._owner.forget(self._client)  # the endpoint refused; the next datagram finds another

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class DatagramListener(asyncio.DatagramProtocol):
    """Listens at one address and port; `start` raises `OSError` where it may not."""

    def __init__(  # what all listeners share, and where this one is
        self, address: str, port: int, limits: Limits, carried: Carried, source: random.Random
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.targets: tuple[Target, ...] = ()
        self._where = (address, port)
        self._affinity: Affinity | None = None
        self._ranges: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network] = ()
        self._limits = limits
        self._carried = carried
        self._source = source
        self._transport: asyncio.DatagramTransport | None = None
        self._flows: dict[_Address, _Flow] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def start(self) -> None:
        """Bind."""
        self._transport, _ = await self.loop.create_datagram_endpoint(lambda: self, local_addr=self._where)

    def lead_to(self, targets: tuple[Target, ...], affinity: Affinity | None, ranges: Sequence[str]) -> None:
        """Lead clients to these endpoints; those of endpoints that are gone get another one."""
        self.targets = targets
        self._affinity = affinity
        self._ranges = [ipaddress.ip_network(each) for each in ranges]
        for client, flow in list(self._flows.items()):
            if flow.target not in targets:
                self.forget(client)

    def tidy(self) -> None:
        """Forget clients that are silent for too long."""
        now = self.loop.time()
        for client, flow in list(self._flows.items()):
            if now - flow.moved_at > self._limits.udp_idle_seconds:
                self.forget(client)

    def forget(self, client: _Address) -> None:
        """End a client's flow."""
        flow = self._flows.pop(client, None)
        if flow is not None:
            flow.close()

    def close(self) -> None:
        """End the listener and all flows: datagrams have no end of their own."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()
        for task in self._tasks:
            task.cancel()
        for client in list(self._flows):
            self.forget(client)

    def answer(self, data: bytes, client: _Address) -> None:
        """Send an endpoint's datagram to a client."""
        if self._transport is not None and not self._is_closed:
            self._transport.sendto(data, client)

    def datagram_received(self, data: bytes, addr: _Address) -> None:
        flow = self._flows.get(addr)
        if flow is None:
            made = self._made(addr)
            if made is None:
                self._carried.refused += 1
                return
            flow = made
        flow.send(data)

    def _made(self, client: _Address) -> _Flow | None:
        if not self.targets or len(self._flows) >= self._limits.flows or not self._may(client[0]):
            return None
        target = self._affinity.find(client[0], self.targets) if self._affinity is not None else None
        target = target or self._source.choice(self.targets)
        if self._affinity is not None:
            self._affinity.remember(client[0], target)
        flow = self._flows[client] = _Flow(self, client, target)
        task = self.loop.create_task(self._connect(flow, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return flow

    async def _connect(self, flow: _Flow, client: _Address) -> None:
        family = socket.AF_INET6 if ":" in flow.target.address else socket.AF_INET
        remote = (flow.target.address, flow.target.port)
        try:
            await self.loop.create_datagram_endpoint(lambda: flow, remote_addr=remote, family=family)
        except OSError:
            self.forget(client)
            return
        if self._flows.get(client) is not flow:
            flow.close()

    def _may(self, client: str) -> bool:
        if not self._ranges:
            return True
        address = ipaddress.ip_address(client)
        return any(address in each for each in self._ranges)
