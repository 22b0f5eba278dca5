from __future__ import annotations

import asyncio
import http.client
import os
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import uvloop
from cryptography import x509

from pilothouse.apiserver.http import HttpLimits
from pilothouse.apiserver.model import Answer, Piece, Request, Response, Sink, StreamingResponse, UpgradeResponse
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.tls import client_context
from support.httpkit import Authority, Client, Recorder, serving

pytestmark = pytest.mark.timeout(20)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def who(request: Request) -> Answer:
    certificate = request.peer.certificate if request.peer else None
    name = x509.load_der_x509_certificate(certificate).subject.rfc4514_string() if certificate else "nobody"
    return Response(200, f"{name} {request.peer.secure if request.peer else None}".encode())


async def connect(port: int, context: ssl.SSLContext) -> Client:
    return await Client.connect(port, ssl=context, server_hostname="localhost")


async def test_the_certificate_of_the_client_is_handed_over(authority: Authority) -> None:
    async with serving(who, tls=authority.context()) as (server, port):
        for pair, wanted in ((authority.client, b"CN=ann True"), ((None, None), b"nobody True")):
            context = client_context(ca=authority.ca_path, certificate=pair[0], key=pair[1], alpn=["h2", "http/1.1"])
            client = await connect(port, context)
            tls = client.writer.get_extra_info("ssl_object")
            assert (tls.selected_alpn_protocol(), tls.version()) == ("http/1.1", "TLSv1.3")
            for _ in range(2):
                assert (await client.get())[2] == wanted
            assert server.connection_count == 1
            await client.close()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_certificate_of_another_authority_fails_the_handshake(
    authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    stranger = Authority(tmp_path / "other")
    handler = Recorder()
    async with serving(handler, tls=authority.context()) as (_, port):
        context = client_context(ca=authority.ca_path, certificate=stranger.client[0], key=stranger.client[1])
        context.maximum_version = version
        with pytest.raises((ssl.SSLError, ConnectionError)):  # noqa: PT012  # in TLS 1.3 it shows when reading
            client = await connect(port, context)
            try:
                await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if not await client.reader.read():
                    raise ConnectionResetError
            finally:
                client.writer.transport.abort()
    assert handler.requests == []


async def test_tls_1_1_is_refused(authority: Authority) -> None:
    async with serving(Recorder(), tls=authority.context()) as (_, port):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect(port, context)


async def test_plain_text_and_garbage_end_the_connection(authority: Authority) -> None:
    async with serving(Recorder(), tls=authority.context()) as (server, port):
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(1000), b"\x16\x03\x01\xff\xff" + bytes(100)):
            client = await Client.connect(port)
            await client.send(data)
            assert b"HTTP" not in await client.rest() or data.startswith(b"GET")
            await client.close()
        await asyncio.sleep(0.01)
        assert server.connection_count == 0


async def test_garbage_after_the_handshake_ends_the_connection(authority: Authority) -> None:
    async with serving(Recorder(), tls=authority.context()) as (server, port):

        def talk() -> None:
            raw = socket.create_connection(("127.0.0.1", port))
            context = client_context(ca=authority.ca_path)
            with context.wrap_socket(raw, server_hostname="localhost") as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert tls.recv(12) == b"HTTP/1.1 200"
                with socket.socket(fileno=os.dup(tls.fileno())) as under:
                    under.sendall(b"garbage" * 100)
                    under.settimeout(5)
                    try:
                        while under.recv(1000):
                            pass
                    except ConnectionError:
                        pass

        await asyncio.to_thread(talk)
        await asyncio.sleep(0.01)
        assert server.connection_count == 0


async def test_a_handshake_has_its_time_and_its_place(authority: Authority) -> None:
    clock = FakeClock()
    limits = HttpLimits(max_connections=1)
    async with serving(Recorder(), tls=authority.context(), clock=clock, limits=limits) as (server, port):
        client = await Client.connect(port)
        await client.send(b"\x16\x03\x01")
        await asyncio.sleep(0.01)
        assert server.connection_count == 1
        extra = await Client.connect(port)
        assert await extra.rest() == b""
        await extra.close()
        clock.advance(9)
        await asyncio.sleep(0.01)
        assert server.connection_count == 1
        clock.advance(2)
        assert await client.rest() == b""
        assert server.connection_count == 0
        await client.close()


async def carry(authority: Authority) -> None:
    """Carry big bodies, streams and upgrades through TLS."""
    size = 5_000_000

    async def run(sink: Sink) -> None:
        for _ in range(size // 10_000):
            sink.write_piece(Piece(bytes(10_000)))
            await sink.drain()
            assert sink.buffered < 200_000

    async def echo(duplex: object) -> None:
        while data := await duplex.read():  # type: ignore[attr-defined]
            duplex.write(data)  # type: ignore[attr-defined]
            await duplex.drain()  # type: ignore[attr-defined]

    def handler(request: Request) -> Answer:
        if request.path == "/stream":
            return StreamingResponse(run)
        return UpgradeResponse(echo) if request.path == "/upgrade" else Response(200, [request.body, bytes(size)])

    async with serving(handler, tls=authority.context(), limits=HttpLimits(max_body_bytes=size)) as (server, port):
        client = await connect(port, client_context(ca=authority.ca_path))
        await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        assert len((await client.answer())[2]) == 2 * size
        assert len((await client.get("/stream"))[2]) == size
        await client.send(b"GET /upgrade HTTP/1.1\r\nHost: x\r\n\r\nearly")
        assert (await client.head())[0] == 101
        assert await client.reader.readexactly(5) == b"early"
        sending = asyncio.ensure_future(client.send(bytes(size)))
        assert len(await client.reader.readexactly(size)) == size
        await sending
        await client.close()
        await asyncio.sleep(0.02)
        assert server.connection_count == 0


async def test_bodies_streams_and_upgrades(authority: Authority) -> None:
    await carry(authority)


def test_bodies_streams_and_upgrades_on_uvloop(authority: Authority) -> None:
    uvloop.run(carry(authority))


async def test_closing_says_goodbye(authority: Authority) -> None:
    async with serving(Recorder(), tls=authority.context()) as (server, port):

        def talk() -> bytes:
            raw = socket.create_connection(("127.0.0.1", port))
            context = client_context(ca=authority.ca_path)
            with context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                data = b""
                while piece := tls.recv(1000):
                    data += piece
                return data

        assert (await asyncio.to_thread(talk)).endswith(b"GET / 0")
        client = await connect(port, client_context(ca=authority.ca_path))
        await client.get()
        await asyncio.wait_for(server.close(5), 3)
        assert await client.rest() == b""
        await client.close()


async def test_too_large_bodies_are_answered_though_the_client_still_sends(authority: Authority) -> None:
    async with serving(Recorder(), tls=authority.context(), limits=HttpLimits(max_body_bytes=10)) as (_, port):
        client = await connect(port, client_context(ca=authority.ca_path))
        await client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n" + bytes(9_000_000))
        assert (await client.answer())[0] == 413
        await client.close()


async def test_clients_of_the_standard_library_and_aiohttp(authority: Authority) -> None:
    async with serving(who, tls=authority.context()) as (_, port):
        context = client_context(ca=authority.ca_path, certificate=authority.client[0], key=authority.client[1])

        def ask() -> bytes:
            connection = http.client.HTTPSConnection("localhost", port, timeout=5, context=context)
            connection.request("GET", "/")
            try:
                return connection.getresponse().read()
            finally:
                connection.close()

        assert await asyncio.to_thread(ask) == b"CN=ann True"
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://localhost:{port}/", ssl=context) as answer,
        ):
            assert await answer.read() == b"CN=ann True"
