"""The user-space proxy, as an ordinary user has it: bytes, half closes, affinity, drains and limits on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pilothouse.kinds.structs import Service
from pilothouse.node.services.affinity import Affinity
from pilothouse.node.services.carrying import Limits
from pilothouse.node.services.selection import Target
from pilothouse.node.services.userspace import UserspaceBackend
from support.servicekit import Board, endpoint, service

NET = f"127.{64 + os.getpid() % 60}.{os.getpid() // 60 % 250}"
A, B, CLUSTER = f"{NET}.11", f"{NET}.12", f"{NET}.1"
PORT = 8_080


@pytest.fixture
async def backend() -> AsyncIterator[UserspaceBackend]:
    made = UserspaceBackend(node_addresses=(f"{NET}.2",), source=random.Random(7))
    await made.start()
    yield made
    await made.stop()
    assert not made.figures()["connections"]


def wanted(**spec: Any) -> Service:
    return service(address=CLUSTER, ports=[{"port": PORT, "protocol": "TCP"}], **spec)


@contextlib.asynccontextmanager
async def server(address: str, answer: object = None) -> AsyncIterator[asyncio.Server]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if callable(answer):
                await answer(reader, writer)
            else:
                writer.write(f"{address}\n".encode())
                await writer.drain()
            writer.close()

    made = await asyncio.start_server(serve, address, PORT)
    try:
        yield made
    finally:
        made.close()


async def ask(address: str = CLUSTER, port: int = PORT) -> str:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        return (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
    finally:
        writer.close()


async def test_connections_are_spread_and_follow_endpoints(backend: UserspaceBackend) -> None:
    board = Board()
    async with server(A), server(B):
        await backend.apply(board.put(wanted(), endpoint(A), endpoint(B)))
        assert {await ask() for _ in range(30)} == {A, B}
        await backend.apply(board.put(wanted(), endpoint(B)))
        assert {await ask() for _ in range(10)} == {B}
        await backend.apply(board.put(wanted()))
        with pytest.raises(ConnectionRefusedError):
            await ask()
    assert backend.problems() == []


async def test_an_endpoint_that_does_not_answer_is_passed_over(backend: UserspaceBackend) -> None:
    async with server(A):
        await backend.apply(Board().put(wanted(), endpoint(A), endpoint(B)))  # nobody listens at B
        assert {await ask() for _ in range(20)} == {A}


async def test_clients_stay_with_their_endpoint(backend: UserspaceBackend) -> None:
    board = Board()
    sticky = wanted(sessionAffinity="ClientIP")
    async with server(A), server(B):
        await backend.apply(board.put(sticky, endpoint(A), endpoint(B)))
        first = await ask()
        assert {await ask() for _ in range(20)} == {first}
        await backend.apply(board.put(sticky, endpoint(B if first == A else A)))
        assert await ask() != first


async def test_clients_that_come_at_once_stay_together_too(backend: UserspaceBackend) -> None:
    async with server(A), server(B):
        await backend.apply(Board().put(wanted(sessionAffinity="ClientIP"), endpoint(A), endpoint(B)))
        assert len(set(await asyncio.gather(*(ask() for _ in range(20))))) == 1


async def test_large_transfers_arrive_whole_both_ways(backend: UserspaceBackend) -> None:
    size = 24 << 20
    body = random.Random(1).randbytes(1 << 20) * (size >> 20)

    async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await reader.read()

    async with server(A, mirror):
        await backend.apply(Board().put(wanted(), endpoint(A)))
        reader, writer = await asyncio.open_connection(CLUSTER, PORT)

        async def send() -> None:
            writer.write(body)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        digest = hashlib.sha256()
        while data := await reader.read(1 << 20):
            digest.update(data)
        await sending
        writer.close()
    assert digest.digest() == hashlib.sha256(body).digest()


async def test_one_side_may_end_first(backend: UserspaceBackend) -> None:
    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent = await reader.read()  # until the client has ended its side
        writer.write(str(len(sent)).encode())
        await writer.drain()

    async with server(A, count):
        await backend.apply(Board().put(wanted(), endpoint(A)))
        reader, writer = await asyncio.open_connection(CLUSTER, PORT)
        writer.write(b"x" * 100_000)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"100000"
        writer.close()


async def test_a_slow_reader_holds_the_sender_and_no_memory(backend: UserspaceBackend) -> None:
    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with server(A, flood):
        await backend.apply(Board().put(wanted(), endpoint(A)))
        sock = socket.create_connection((CLUSTER, PORT))
        with sock:
            moved = -1
            for _ in range(100):
                await asyncio.sleep(0.05)
                splice = next(iter(backend._carried._splices), None)
                if splice is not None and splice.bytes_out == moved:
                    break
                moved = splice.bytes_out if splice is not None else -1
            else:
                pytest.fail("the flood does not stop")
        for _ in range(100):
            if not backend.figures()["connections"]:
                break
            await asyncio.sleep(0.05)
    assert backend.figures()["connections"] == 0


async def test_what_is_idle_for_too_long_is_ended(backend: UserspaceBackend) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.read()

    async with server(A, hold):
        await backend.apply(Board().put(wanted(), endpoint(A)))
        reader, writer = await asyncio.open_connection(CLUSTER, PORT)
        assert await reader.readline() == b"hello\n"
        live = {Target(A, PORT, is_local=True)}
        backend._carried.tidy(live, Limits(idle_seconds=60))
        assert backend.figures()["connections"] == 1
        backend._carried.tidy(live, Limits(idle_seconds=-1))
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readline(), 5)
        writer.close()


async def test_udp_clients_are_bounded_and_forgotten() -> None:
    made = UserspaceBackend(limits=Limits(flows=2, udp_idle_seconds=-1))
    await made.start()
    found = service(address=CLUSTER, ports=[{"port": PORT, "protocol": "UDP"}])
    ports = [{"name": "", "port": PORT, "protocol": "UDP"}]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, (A, PORT))
    try:
        await made.apply(Board().put(found, endpoint(A), ports=ports))
        (listener,) = made._listeners.values()
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.sendto(b"x", (CLUSTER, PORT))
            for _ in range(200):
                await asyncio.sleep(0.01)
                if made.figures()["refused"]:
                    break
        assert made.figures()["refused"] == 1
        listener.tidy()
        assert not listener._flows  # type: ignore[union-attr]
    finally:
        await made.stop()
        transport.close()


async def test_limits_of_connections_and_drain() -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await reader.read()

    board = Board()
    made = UserspaceBackend(limits=Limits(connections=2, drain_seconds=0.01))
    await made.start()
    try:
        async with server(A, hold):
            await made.apply(board.put(wanted(), endpoint(A)))
            pairs = [await asyncio.open_connection(CLUSTER, PORT) for _ in range(2)]
            for reader, _ in pairs:
                assert await reader.readline() == b"hello\n"
            with pytest.raises(ConnectionResetError):
                await ask()
            assert "refused" in made.problems()[0]
            await made.apply(board.put(wanted()))  # the endpoint is gone, the connections drain
            for reader, writer in pairs:
                with pytest.raises(ConnectionResetError):
                    await asyncio.wait_for(reader.readline(), 10)
                writer.close()
    finally:
        await made.stop()


async def test_datagrams_go_and_come_back(backend: UserspaceBackend) -> None:
    class Echo(asyncio.DatagramProtocol):
        def __init__(self, name: str) -> None:
            self.name = name

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            self.transport.sendto(data + self.name.encode(), addr)  # type: ignore[attr-defined]

    loop = asyncio.get_running_loop()
    board = Board()
    found = service(address=CLUSTER, ports=[{"port": PORT, "protocol": "UDP"}])
    ports = [{"name": "", "port": PORT, "protocol": "UDP"}]
    echoes = [await loop.create_datagram_endpoint(functools.partial(Echo, a), (a, PORT)) for a in (A, B)]
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect((CLUSTER, PORT))
    try:
        await backend.apply(board.put(found, endpoint(A), ports=ports))
        await loop.sock_sendall(sock, b"1 ")
        assert await asyncio.wait_for(loop.sock_recv(sock, 100), 5) == f"1 {A}".encode()
        await backend.apply(board.put(found, endpoint(B), ports=ports))
        await loop.sock_sendall(sock, b"2 ")
        assert await asyncio.wait_for(loop.sock_recv(sock, 100), 5) == f"2 {B}".encode()
    finally:
        sock.close()
        for transport, _ in echoes:
            transport.close()


async def test_what_cannot_be_carried_is_said(backend: UserspaceBackend) -> None:
    board = Board()
    await backend.apply(board.put(service("far", "10.96.0.10"), endpoint(A)))
    assert "127.0.0.0/8" in backend.problems()[0]
    await backend.apply(board.remove("far"))
    assert backend.problems() == []
    async with server(CLUSTER):  # somebody has the place
        await backend.apply(board.put(wanted(), endpoint(A)))
        assert "in use" in backend.problems()[0]
        assert not await backend.check()
    async with server(A):
        await backend.apply({})
        assert backend.problems() == []
        assert await ask() == A


def test_affinity_ends_after_its_time_and_with_its_endpoint() -> None:
    now = [0.0]
    affinity = Affinity(10, lambda: now[0])
    one, other = Target(A, 1), Target(B, 1)
    affinity.remember("c", one)
    now[0] = 10.0
    assert affinity.find("c", [one, other]) == one
    assert affinity.find("c", [other]) is None
    affinity.remember("c", one)
    now[0] = 20.1
    assert affinity.find("c", [one, other]) is None
    assert len(affinity) == 0
