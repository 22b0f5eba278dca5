"""Port-forward over SPDY, over SPDY in WebSocket, and over channels."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilothouse.apiserver.http.pipes import MemoryDuplex
from pilothouse.apiserver.model import Response, UpgradeResponse
from pilothouse.apiserver.streams.portforward import PAIR_SECONDS, connect_port_forward
from pilothouse.apiserver.streams.spdypeer import SpdyPeer, SpdyStream
from pilothouse.apiserver.streams.websocket import WebSocket, WebSocketTunnel
from pilothouse.foundation.clock import FakeClock
from support.streamkit import LINE, FakeNodes, Socket, make_pod, make_request, spdy_request, upgraded, websocket_request

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
TOLD = "error forwarding port 1 to pod web_default, uid u1: nothing listens"


@asynccontextmanager
async def forwarding(*, tunnel: bool = False, clock: FakeClock | None = None) -> AsyncIterator[SpdyPeer]:
    request = websocket_request("", TUNNEL) if tunnel else spdy_request("", PROTOCOL)
    answer = await connect_port_forward(request, make_pod(), FakeNodes(), clock=clock)
    if tunnel:
        assert isinstance(answer, UpgradeResponse)
        assert dict(answer.headers)["Sec-WebSocket-Protocol"] == TUNNEL
    async with upgraded(answer) as (duplex, task):
        carrier: MemoryDuplex | WebSocketTunnel = duplex
        if tunnel:
            carrier = WebSocketTunnel(WebSocket(duplex, server=False), duplex)
        peer = SpdyPeer(carrier, server=False)
        pump = asyncio.create_task(peer.run())
        yield peer
        pump.cancel()
        duplex.close()
        await asyncio.wait_for(asyncio.wait({task}), 5)


def connection(peer: SpdyPeer, port: int, number: str = "") -> tuple[SpdyStream, SpdyStream]:
    common = {"port": str(port)} | ({"requestid": number} if number else {})
    return peer.open({**common, "streamtype": "error"}), peer.open({**common, "streamtype": "data"})


async def read(stream: SpdyStream, count: int = -1) -> bytes:
    found = b""
    while (count < 0 or len(found) < count) and (data := await asyncio.wait_for(stream.read(), 5)):
        found += data
    return found


@pytest.mark.parametrize("tunnel", [False, True])
async def test_connections_are_carried_side_by_side(tunnel: bool) -> None:
    async with forwarding(tunnel=tunnel) as peer:
        first, second = connection(peer, 9, "0"), connection(peer, 8080, "1")
        data = LINE * 500
        second[1].write(b"x")
        assert await read(second[1], 6) == b"8080:x"
        # Nobody reads the first one yet; windows keep it from holding up the second one.
        first[1].write(data)
        second[1].write(b"z")
        assert await read(second[1], 6) == b"8080:z"
        assert await read(first[1], len(data)) == data
        first[1].close()
        assert await read(first[1]) == b""
        assert await read(first[0]) == b""
        second[1].write(b"y")
        assert await read(second[1], 6) == b"8080:y"


@pytest.mark.parametrize("tunnel", [False, True])
async def test_what_goes_wrong_is_told_on_the_error_stream(tunnel: bool) -> None:
    async with forwarding(tunnel=tunnel) as peer:
        error, data = connection(peer, 1, "0")
        assert (await read(error)).decode() == TOLD
        assert await read(data) == b""


async def test_clients_without_request_ids_are_understood() -> None:
    async with forwarding() as peer:
        for text in (b"a", b"b"):
            _, data = connection(peer, 9)
            data.write(text)
            assert await read(data, 1) == text


@pytest.mark.parametrize(
    "headers",
    [
        {"streamtype": "data"},
        {"streamtype": "data", "port": "0"},
        {"streamtype": "data", "port": "65536"},
        {"streamtype": "data", "port": "x"},
        {"streamtype": "other", "port": "80"},
        {"port": "80"},
    ],
)
async def test_streams_without_port_or_type_are_refused(headers: dict[str, str]) -> None:
    async with forwarding() as peer:
        refused = peer.open(headers)
        await asyncio.wait_for(refused.accepted.wait(), 5)
        assert refused.ended


async def test_a_second_stream_of_a_kind_is_refused() -> None:
    async with forwarding() as peer:
        headers = {"port": "9", "requestid": "7", "streamtype": "data"}
        peer.open(headers)
        second = peer.open(headers)
        await asyncio.wait_for(second.accepted.wait(), 5)
        assert second.ended


async def test_half_a_connection_is_given_up() -> None:
    clock = FakeClock()
    async with forwarding(clock=clock) as peer:
        error = peer.open({"port": "9", "requestid": "a", "streamtype": "error"})
        data = peer.open({"port": "9", "requestid": "b", "streamtype": "data"})
        await asyncio.wait_for(data.accepted.wait(), 5)
        await clock.run(PAIR_SECONDS + 1)
        assert await read(error) == b"(request=a) timed out waiting for streams"
        assert await read(data) == b""


@pytest.mark.parametrize("coded", [False, True])
async def test_channels_carry_one_connection_to_each_port(coded: bool) -> None:
    protocol = "v4.base64.channel.k8s.io" if coded else "v4.channel.k8s.io"
    answer = await connect_port_forward(websocket_request("ports=8080,1", protocol), make_pod(), FakeNodes())

    def plain(message: bytes) -> bytes:
        return bytes((message[0] - 48,)) + base64.b64decode(message[1:]) if coded else message

    async with upgraded(answer) as (duplex, _):
        client = Socket(duplex)
        client.send("0" + base64.b64encode(b"hi").decode() if coded else b"\x00hi")
        await client.read(6)
        messages = sorted(plain(message) for message in client.messages)
    port = struct.pack("<H", 8080)
    assert messages == sorted(
        [b"\x00" + port, b"\x01" + port, b"\x02\x01\x00", b"\x03\x01\x00", b"\x008080:hi", b"\x03" + TOLD.encode()]
    )


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("", 'query parameter "port" is required\n'),
        ("ports=", 'query parameter "port" cannot be empty\n'),
        ("ports=0", 'port "0" must be > 0\n'),
        ("ports=80,x", 'unable to parse "x" as a port: strconv.ParseUint: parsing "x": invalid syntax\n'),
        ("ports=70000", 'unable to parse "70000" as a port: strconv.ParseUint: parsing "70000": value out of range\n'),
        ("ports=" + ",".join(["80"] * 65), "65 ports; at most 64 can be forwarded over one WebSocket\n"),
    ],
)
async def test_ports_of_channels_are_checked(query: str, text: str) -> None:
    answer = await connect_port_forward(websocket_request(query, "v4.channel.k8s.io"), make_pod(), FakeNodes())
    assert isinstance(answer, Response)
    assert (answer.status, answer.body) == (400, text.encode())


async def test_refusals() -> None:
    async def told(*, upgrade: bool, node: str, nodes: FakeNodes | None) -> tuple[int, str]:
        request = spdy_request("", PROTOCOL) if upgrade else make_request("/", "")
        answer = await connect_port_forward(request, make_pod(node=node), nodes)
        assert isinstance(answer, Response)
        assert isinstance(answer.body, bytes)
        return answer.status, json.loads(answer.body)["message"]

    nodes = FakeNodes()
    assert await told(upgrade=False, node="n1", nodes=nodes) == (400, "Upgrade request required")
    assert await told(upgrade=True, node="", nodes=nodes) == (400, "pod web does not have a host assigned")
    assert (await told(upgrade=True, node="n1", nodes=None))[0] == 500
    wrong = await connect_port_forward(spdy_request("", "other"), make_pod(), nodes)
    assert isinstance(wrong, Response)
    assert wrong.status == 403
