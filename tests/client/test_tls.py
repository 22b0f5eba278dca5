"""TLS: certificates of the server, of the client and of programs, in files and as data, and wrong ones."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import ClientConfig, ConfigError, ConnectFailed, ExecConfig, HttpTransport, TransportError
from pilothouse.foundation.tls import Credentials, issue, make_ca, server_context, write
from support.wireserver import Conversation, WireServer, answer_of, wire_server

V1 = "client.authentication.k8s.io/v1"


class Files:
    """An authority, a server's and a client's certificate."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = make_ca("ca")
        (directory / "ca.crt").write_bytes(self.authority.certificate)
        self.server = issue(self.authority, "server", hosts=["127.0.0.1", "api.example"], server=True)
        self.client = issue(self.authority, "client", client=True)
        self.save("server", self.server)
        self.save("client", self.client)

    def save(self, name: str, credentials: Credentials) -> None:
        write(credentials, self.path(f"{name}.crt"), self.path(f"{name}.key"))

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def context(self, *, mutual: bool = False) -> ssl.SSLContext:
        client_ca = self.path("ca.crt") if mutual else None
        return server_context(self.path("server.crt"), self.path("server.key"), client_ca=client_ca)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


async def name_peer(talk: Conversation) -> None:
    certificate = talk.writer.get_extra_info("peercert") or {}
    names = [value for pairs in certificate.get("subject", ()) for name, value in pairs if name == "commonName"]
    while await talk.request():
        await talk.send(answer_of(200, " ".join(names).encode()))


@pytest.fixture
async def server(files: Files) -> AsyncIterator[WireServer]:
    async with wire_server(name_peer, tls=files.context()) as found:
        yield found


async def ask(url: str, **config: Any) -> bytes:
    transport = HttpTransport(ClientConfig(server=url, **config))
    try:
        return (await transport.request("GET", "/")).body
    finally:
        await transport.aclose()


async def test_the_authority_as_file_and_as_data(files: Files, server: WireServer) -> None:
    assert await ask(server.url, ca_file=files.path("ca.crt")) == b""
    assert await ask(server.url, ca_data=files.authority.certificate) == b""


async def test_an_unknown_authority(files: Files, server: WireServer) -> None:
    with pytest.raises(ConnectFailed, match=r"of an unknown authority.*set certificate-authority-data"):
        await ask(server.url)
    with pytest.raises(ConnectFailed, match="is it of another cluster"):
        await ask(server.url, ca_data=make_ca("other").certificate)
    assert await ask(server.url, insecure=True) == b""


async def test_the_name_that_is_checked(files: Files, server: WireServer) -> None:
    url = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConnectFailed, match=r"is not for 'localhost'.*set tls-server-name"):
        await ask(url, ca_file=files.path("ca.crt"))
    assert await ask(url, ca_file=files.path("ca.crt"), tls_server_name="api.example") == b""


async def test_a_server_that_speaks_no_tls(files: Files) -> None:
    async def refuse(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with wire_server(refuse) as plain:
        with pytest.raises(ConnectFailed, match=r"TLS: .*; does the server speak TLS at this port"):
            await ask(plain.url.replace("http", "https"), ca_file=files.path("ca.crt"))


async def test_a_peer_that_hangs_up_before_tls_has_begun(files: Files) -> None:
    """As a relay does whose server is not there; asyncio's own error says nothing."""
    listening = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ConnectFailed, match=r"cannot be reached: \w.*"):
            await ask(f"https://127.0.0.1:{port}", ca_file=files.path("ca.crt"))
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ConnectFailed, match=r"cannot be reached: \w.*|TLS: \w.*"):
            await ask(f"https://127.0.0.1:{port}", ca_file=files.path("ca.crt"))


async def test_client_certificates(files: Files) -> None:
    async with wire_server(name_peer, tls=files.context(mutual=True)) as server:
        known = {"ca_file": files.path("ca.crt")}
        pair = {"certificate_file": files.path("client.crt"), "key_file": files.path("client.key")}
        assert await ask(server.url, **known, **pair) == b"client"
        data = {"certificate_data": files.client.certificate, "key_data": files.client.key}
        assert await ask(server.url, **known, **data) == b"client"
        with pytest.raises(TransportError):
            await ask(server.url, **known)


async def test_nothing_of_the_key_stays_behind(files: Files, server: WireServer, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(files.directory))
    before = set(os.listdir(files.directory))
    data = {"certificate_data": files.client.certificate, "key_data": files.client.key}
    await ask(server.url, ca_data=files.authority.certificate, **data)
    assert set(os.listdir(files.directory)) == before


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"ca_data": b"nothing"}, "SOURCE: ca certificate-authority-data: holds no valid PEM certificate"),
        ({"certificate_data": b"x", "key_data": b"y"}, "client-certificate-data: holds no valid PEM"),
        ({"certificate_data": b"x"}, "key: not given"),
        ({"ca_file": "no-such-file"}, "ca file no-such-file: No such file"),
    ],
)
async def test_certificates_that_are_none(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        await ask("https://127.0.0.1:1", source="SOURCE", **config)


async def test_a_key_of_another_certificate(files: Files) -> None:
    other = issue(files.authority, "other", client=True)
    with pytest.raises(ConfigError, match="client-key-data: does not belong to certificate client-certificate-data"):
        await ask("https://127.0.0.1:1", certificate_data=files.client.certificate, key_data=other.key)


async def test_renewed_files_are_taken_up_by_new_connections(files: Files) -> None:
    async def once(talk: Conversation) -> None:
        certificate = talk.writer.get_extra_info("peercert")
        await talk.request()
        await talk.send(answer_of(200, certificate["subject"][0][0][1].encode(), Connection="close"))

    async with wire_server(once, tls=files.context(mutual=True)) as server:
        config = ClientConfig(
            server=server.url,
            ca_file=files.path("ca.crt"),
            certificate_file=files.path("client.crt"),
            key_file=files.path("client.key"),
        )
        transport = HttpTransport(config)
        assert (await transport.request("GET", "/")).body == b"client"
        files.save("client", issue(files.authority, "renewed", client=True))
        assert (await transport.request("GET", "/")).body == b"renewed"
        await transport.aclose()


async def test_certificates_of_a_program(files: Files) -> None:
    status = {
        "clientCertificateData": files.client.certificate.decode(),
        "clientKeyData": files.client.key.decode(),
    }
    answer = files.directory / "answer"
    answer.write_text(json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status}), encoding="utf-8")
    plugin = ExecConfig(api_version=V1, command="cat", args=(str(answer),))
    async with wire_server(name_peer, tls=files.context(mutual=True)) as server:
        assert await ask(server.url, ca_file=files.path("ca.crt"), exec=plugin) == b"client"
