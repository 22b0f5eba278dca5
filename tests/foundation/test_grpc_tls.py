"""TLS both ways, with and without client certificates."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from pilothouse.foundation import tls
from pilothouse.foundation.grpc import GrpcChannel, GrpcCode, GrpcError, GrpcServer, ServerCall


class Files:
    """A CA, a server's and a client's certificate on disk."""

    def __init__(self, directory: Path) -> None:
        authority = tls.make_ca("ca")
        self.server = tls.issue(authority, "server", hosts=["localhost", "127.0.0.1"], server=True)
        self.client = tls.issue(authority, "client-1", client=True)
        self.authority = authority.certificate
        self.paths = {}
        for name, data in (
            ("ca", self.authority),
            ("server", self.server.certificate),
            ("server-key", self.server.key),
            ("client", self.client.certificate),
            ("client-key", self.client.key),
        ):
            path = directory / f"{name}.pem"
            path.write_bytes(data)
            path.chmod(0o600)
            self.paths[name] = str(path)

    def server_context(self, *, mutual: bool) -> ssl.SSLContext:
        authority = self.paths["ca"] if mutual else None
        return tls.server_context(self.paths["server"], self.paths["server-key"], client_ca=authority)

    def client_context(self, *, certificate: bool) -> ssl.SSLContext:
        if not certificate:
            return tls.client_context(ca=self.paths["ca"])
        return tls.client_context(ca=self.paths["ca"], certificate=self.paths["client"], key=self.paths["client-key"])


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """Wait for what ends by itself, unheard: TLS has its own goodbyes after a server's and a channel's `close`."""
    yield
    transports = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]
    while any(each._sock is not None for each in [*transports.values()]):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def who(_: bytes, call: ServerCall) -> bytes:
    certificate = call.peer_certificate
    if certificate is None:
        return b"nobody"
    subject = dict(pair for part in certificate["subject"] for pair in part)
    return str(subject["commonName"]).encode()


async def serve(files: Files, *, mutual: bool) -> tuple[GrpcServer, int]:
    server = GrpcServer()
    server.unary("/t/who", who)
    _, port = await server.listen_tcp("127.0.0.1", 0, tls=files.server_context(mutual=mutual))
    return server, port


@pytest.mark.parametrize(("mutual", "name"), [(False, b"nobody"), (True, b"client-1")])
async def test_both_own_sides(files: Files, mutual: bool, name: bytes) -> None:
    server, port = await serve(files, mutual=mutual)
    channel = GrpcChannel("127.0.0.1", port, tls=files.client_context(certificate=mutual))
    assert await channel.unary("/t/who", b"") == name
    await channel.close()
    named = GrpcChannel("127.0.0.1", port, tls=files.client_context(certificate=mutual), server_name="localhost")
    assert await named.unary("/t/who", b"") == name
    await named.close()
    await server.close(0)


@pytest.mark.parametrize(("mutual", "name"), [(False, b"nobody"), (True, b"client-1")])
async def test_the_client_of_grpcio(files: Files, mutual: bool, name: bytes) -> None:
    server, port = await serve(files, mutual=mutual)
    pair = (files.client.key, files.client.certificate) if mutual else (None, None)
    credentials = grpc.ssl_channel_credentials(files.authority, *pair)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        assert await channel.unary_unary("/t/who")(b"", timeout=20) == name
    await server.close(0)


async def test_the_server_of_grpcio(files: Files) -> None:
    async def echo(message: bytes, _: object) -> bytes:
        return message

    server = grpc.aio.server()
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
    pairs = [(files.server.key, files.server.certificate)]
    credentials = grpc.ssl_server_credentials(pairs, files.authority, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    channel = GrpcChannel("127.0.0.1", port, tls=files.client_context(certificate=True))
    assert await channel.unary("/t/Echo", b"x" * 1_000_000, timeout=20) == b"x" * 1_000_000
    await channel.close()
    await server.stop(0)


async def test_a_client_without_the_certificate_asked_for_is_unavailable(files: Files) -> None:
    server, port = await serve(files, mutual=True)
    channel = GrpcChannel("127.0.0.1", port, tls=files.client_context(certificate=False))
    with pytest.raises(GrpcError) as caught:
        await channel.unary("/t/who", b"", timeout=20)
    assert caught.value.code is GrpcCode.UNAVAILABLE
    await channel.close()
    await server.close(0)


async def test_a_server_of_another_name_is_unavailable(files: Files) -> None:
    server, port = await serve(files, mutual=False)
    context = files.client_context(certificate=False)
    channel = GrpcChannel("127.0.0.1", port, tls=context, server_name="elsewhere")
    with pytest.raises(GrpcError, match="certificate"):
        await channel.unary("/t/who", b"", timeout=20)
    await channel.close()
    await server.close(0)
