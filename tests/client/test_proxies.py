"""Proxies: CONNECT and SOCKS 5, with and without passwords, refusals, and what the environment says."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pilothouse.client import ClientConfig, ConfigError, ConnectFailed, HttpTransport
from pilothouse.client.httpproxy import environment_proxy, parse_proxy
from pilothouse.foundation.tls import issue, make_ca, server_context, write
from support.wireserver import Conversation, WireServer, answer_of, wire_server


async def always(talk: Conversation) -> None:
    while await talk.request():
        await talk.send(answer_of(200, b"through"))


async def carry(talk: Conversation, host: str, port: int) -> None:
    reader, writer = await asyncio.open_connection(host, port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pump(talk.reader, writer), pump(reader, talk.writer))
    finally:
        writer.transport.abort()


async def http_proxy(talk: Conversation) -> None:
    asked = await talk.request()
    assert asked is not None
    assert asked.method == "CONNECT"
    if asked.header("proxy-authorization") not in {"", "Basic bjpw"}:
        await talk.send(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        return
    await talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
    host, _, port = asked.target.rpartition(":")
    await carry(talk, host, int(port))


async def socks_proxy(talk: Conversation) -> None:
    read = talk.reader.readexactly
    _, count = await read(2)
    methods = await read(count)
    if 2 in methods:
        await talk.send(b"\x05\x02")
        await read(1)
        name = await read((await read(1))[0])
        password = await read((await read(1))[0])
        good = (name, password) == (b"n", b"p")
        await talk.send(b"\x01\x00" if good else b"\x01\x01")
        if not good:
            return
    else:
        await talk.send(b"\x05\x00")
    await read(4)
    host = (await read((await read(1))[0])).decode()
    (port,) = struct.unpack(">H", await read(2))
    if port == 1:
        await talk.send(b"\x05\x05\x00\x01" + bytes(6))
        return
    await talk.send(b"\x05\x00\x00\x01" + bytes(6))
    await carry(talk, host, port)


async def ask(url: str, proxy: str | None, ca: str = "") -> bytes:
    transport = HttpTransport(ClientConfig(server=url, proxy_url=proxy, ca_file=ca))
    try:
        return (await transport.request("GET", "/")).body
    finally:
        await transport.aclose()


@contextlib.asynccontextmanager
async def secure_server(tmp_path: Path) -> AsyncIterator[tuple[WireServer, str]]:
    authority = make_ca("ca")
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.certificate)
    certificate, key = str(tmp_path / "s.crt"), str(tmp_path / "s.key")
    write(issue(authority, "s", hosts=["127.0.0.1"], server=True), certificate, key)
    async with wire_server(always, tls=server_context(certificate, key)) as server:
        yield server, str(ca)


@pytest.mark.parametrize("login", ["", "n:p@"])
async def test_through_an_http_proxy(login: str, tmp_path: Path) -> None:
    async with secure_server(tmp_path) as (server, ca), wire_server(http_proxy) as proxy:
        assert await ask(server.url, f"http://{login}127.0.0.1:{proxy.port}", ca) == b"through"
        assert proxy.connections == 1


@pytest.mark.parametrize("login", ["", "n:p@"])
async def test_through_a_socks_proxy(login: str, tmp_path: Path) -> None:
    async with secure_server(tmp_path) as (server, ca), wire_server(socks_proxy) as proxy:
        assert await ask(server.url, f"socks5://{login}127.0.0.1:{proxy.port}", ca) == b"through"
        assert proxy.connections == 1


async def test_through_a_proxy_that_speaks_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = make_ca("proxy")
    certificate, key, ca_file = (str(tmp_path / name) for name in ("p.crt", "p.key", "p.ca"))
    write(issue(authority, "p", hosts=["127.0.0.1"], server=True), certificate, key)
    (tmp_path / "p.ca").write_bytes(authority.certificate)
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    async with (
        secure_server(tmp_path) as (server, ca),
        wire_server(http_proxy, tls=server_context(certificate, key)) as proxy,
    ):
        assert await ask(server.url, f"https://127.0.0.1:{proxy.port}", ca) == b"through"


@pytest.mark.parametrize(
    ("kind", "url", "why"),
    [
        ("http", "http://n:wrong@127.0.0.1:{}", r"refused to connect: 407.*put user and password into proxy-url"),
        ("socks", "socks5://n:wrong@127.0.0.1:{}", "refused the user or the password"),
        ("socks", "socks5://127.0.0.1:{}", "connection refused for 127.0.0.1:1"),
    ],
)
async def test_a_proxy_that_refuses(kind: str, url: str, why: str) -> None:
    async with wire_server(http_proxy if kind == "http" else socks_proxy) as proxy:
        with pytest.raises(ConnectFailed, match=why) as caught:
            await ask("http://127.0.0.1:1", url.format(proxy.port))
    assert "wrong" not in str(caught.value)


async def test_a_proxy_that_is_none() -> None:
    async def nonsense(talk: Conversation) -> None:
        await talk.send(b"SSH-2.0-x\r\n\r\n")

    async def nothing(talk: Conversation) -> None:
        return

    async with wire_server(nonsense) as proxy:
        with pytest.raises(ConnectFailed, match="refused to connect"):
            await ask("http://127.0.0.1:1", proxy.url)
    async with wire_server(nothing) as proxy:
        for url in (proxy.url, proxy.url.replace("http", "socks5")):
            with pytest.raises(ConnectFailed, match=r"closed the connection|cannot be reached"):
                await ask("http://127.0.0.1:1", url)
    with pytest.raises(ConnectFailed, match=r"through proxy http://127.0.0.1:1: |proxy http://127.0.0.1:1: "):
        await ask("http://127.0.0.1:2", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match="proxy: no URL of a proxy"):
        parse_proxy("ftp://x")


@pytest.mark.parametrize(
    ("url", "no_proxy", "used"),
    [
        ("https://api.example:6443", "", True),
        ("https://api.example:6443", "example", False),
        ("https://api.example:6443", ".example", False),
        ("https://api.example:6443", "xample", True),
        ("https://api.example:6443", "api.example:443", True),
        ("https://api.example:6443", "api.example:6443", False),
        ("https://api.example:6443", "other, *", False),
        ("https://10.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.4", True),
        ("https://127.0.0.1:6443", "", False),
        ("https://localhost:6443", "", False),
        ("http://api.example", "", False),
    ],
)
def test_the_environments_proxy(url: str, no_proxy: str, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert environment_proxy(urlsplit(url)) == ("http://proxy:3128" if used else "")
