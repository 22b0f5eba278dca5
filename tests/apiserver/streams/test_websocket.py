"""WebSocket: handshakes, messages in parts, pings, closes, bounds; and the tunnel through it."""

from __future__ import annotations

import asyncio
import struct

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong

from pilothouse.apiserver.http.pipes import MemoryDuplex
from pilothouse.apiserver.model import Response
from pilothouse.apiserver.streams.negotiation import Handshake, spdy_handshake, websocket_handshake
from pilothouse.apiserver.streams.websocket import Part, WebSocket, WebSocketTunnel
from support.streamkit import WEBSOCKET_HEADERS, make_request, spdy_request, websocket_request

BEARER = "base64url.bearer.authorization.k8s.io.c2VjcmV0"


def agreed(*offers: str, supported: tuple[str, ...] = ("v5", "v4")) -> Handshake | Response:
    found = websocket_handshake(websocket_request("", *offers), supported)
    assert isinstance(found, Handshake | Response)
    return found


def test_the_first_offer_that_is_supported_is_taken() -> None:
    found = agreed("v6", "v4", "v5")
    assert isinstance(found, Handshake)
    assert found.protocol == "v4"
    assert dict(found.headers) == {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol": "v4",
    }


def test_a_bearer_token_is_never_a_protocol() -> None:
    found = agreed(BEARER, "v4")
    assert isinstance(found, Handshake)
    assert found.protocol == "v4"
    assert "c2VjcmV0" not in str(found.headers)
    alone = agreed(BEARER, supported=("v4", ""))
    assert isinstance(alone, Handshake)
    assert "Sec-WebSocket-Protocol" not in dict(alone.headers)
    refused = agreed(BEARER, "v1")
    assert isinstance(refused, Response)
    assert refused.body == b"requested protocol(s) are not supported: [v1]; supports [v5 v4]\n"
    assert refused.status == 403


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"sec-websocket-key": ""}, 400),
        ({"sec-websocket-key": "c2hvcnQ="}, 400),
        ({"sec-websocket-key": "!"}, 400),
        ({"sec-websocket-version": "8"}, 426),
    ],
)
def test_bad_handshakes_are_refused(changed: dict[str, str], status: int) -> None:
    found = websocket_handshake(make_request("/", "", {**WEBSOCKET_HEADERS, **changed}), ("",))
    assert isinstance(found, Response)
    assert found.status == status


@pytest.mark.parametrize(
    ("offers", "status", "text"),
    [
        (["v9", "v8"], 403, "unable to negotiate protocol: client supports [v9 v8], server accepts [v4 v3]"),
        ([""], 400, "no valid protocols"),
    ],
)
def test_spdy_protocols_are_negotiated(offers: list[str], status: int, text: str) -> None:
    found = spdy_handshake(spdy_request("", *offers), ("v4", "v3"))
    assert isinstance(found, Response)
    assert isinstance(found.body, bytes)
    assert (found.status, text in found.body.decode()) == (status, True)
    good = spdy_handshake(spdy_request("", "v9", "v3", "v4"), ("v4", "v3"))
    assert isinstance(good, Handshake)
    assert good.protocol == "v3"
    assert dict(good.headers)["X-Stream-Protocol-Version"] == "v3"
    bare = spdy_handshake(make_request("/", "", {"connection": "upgrade", "upgrade": "spdy/3.1"}), ("v4",))
    assert isinstance(bare, Response)
    assert (
        bare.body == b"unable to upgrade: header X-Stream-Protocol-Version does not exist in request with 2 headers\n"
    )
    for headers in ({}, {"connection": "Upgrade"}, {"upgrade": "SPDY/3.1"}):
        assert isinstance(spdy_handshake(make_request("/", "", headers), ("v4",)), Response)


class Client:
    """A wsproto client over memory."""

    def __init__(self, duplex: MemoryDuplex) -> None:
        self.duplex = duplex
        self.connection = Connection(ConnectionType.CLIENT)

    def send(self, event: object) -> None:
        self.duplex.write(self.connection.send(event))  # type: ignore[arg-type]

    async def event(self) -> object:
        while True:
            for event in self.connection.events():
                return event
            data = await asyncio.wait_for(self.duplex.read(), 5)
            self.connection.receive_data(data or None)


def connected(**settings: int) -> tuple[Client, WebSocket]:
    near, far = MemoryDuplex.pair(1 << 16)
    return Client(near), WebSocket(far, **settings)  # type: ignore[arg-type]


async def test_fragments_come_as_parts_of_one_message() -> None:
    client, server = connected()
    client.send(BytesMessage(b"ab", message_finished=False))
    client.send(Ping(b"p"))
    client.send(BytesMessage(b"c", message_finished=True))
    client.send(BytesMessage(b"next"))
    client.send(CloseConnection(1000))
    assert [part async for part in server.parts()] == [
        Part(b"ab", first=True, last=False),
        Part(b"c", first=False, last=True),
        Part(b"next", first=True, last=True),
    ]
    assert server.close_code == 1000
    assert await client.event() == Pong(b"p")
    closed = await client.event()
    assert isinstance(closed, CloseConnection)
    assert closed.code == 1000


async def test_a_message_that_is_too_long_closes() -> None:
    client, server = connected(max_message=1000)
    client.send(BytesMessage(bytes(600), message_finished=False))
    client.send(BytesMessage(bytes(600), message_finished=False))
    assert sum([len(part.data) async for part in server.parts()]) == 600
    closed = await client.event()
    assert isinstance(closed, CloseConnection)
    assert closed.code == 1009
    server.send(b"late")


@pytest.mark.parametrize(
    "data",
    [
        b"\x82\x02ab",  # not masked
        b"\x83\x80abcd",  # unknown opcode
        b"\xc2\x80abcd",  # reserved bit
        b"\x80\x80abcd",  # goes on with nothing
        b"\x09\x80abcd",  # a ping in fragments
        b"\x89\xfe\x00\x7eabcd",  # a long ping
        b"\x81\x81\0\0\0\0\xff",  # text that is no UTF-8
        b"\x82\xff" + struct.pack(">Q", 1 << 63) + b"abcd",
    ],
)
async def test_what_breaks_the_protocol_closes(data: bytes) -> None:
    client, server = connected()
    client.duplex.write(data)
    assert [part async for part in server.parts()] == []
    closed = await client.event()
    assert isinstance(closed, CloseConnection)
    assert closed.code in {1002, 1007}


async def test_an_end_without_a_close_ends_the_messages() -> None:
    client, server = connected()
    client.duplex.write(b"\x82")
    client.duplex.close()
    assert [part async for part in server.parts()] == []


async def test_a_tunnel_is_a_connection() -> None:
    near, far = MemoryDuplex.pair(1 << 20)
    client, tunnel = Client(near), WebSocketTunnel(WebSocket(far), far)
    client.send(BytesMessage(b""))
    client.send(BytesMessage(b"one"))
    client.send(BytesMessage(b"two"))
    assert await tunnel.read() == b"one"
    assert await tunnel.read() == b"two"
    tunnel.write(bytes(600_000))
    await tunnel.drain()
    got, messages = 0, 0
    while got < 600_000:
        event = await client.event()
        assert isinstance(event, BytesMessage)
        got += len(event.data)
        messages += event.message_finished
    assert messages == 3
    client.send(CloseConnection(1000))
    assert await tunnel.read() == b""
    tunnel.close()
