"""Listeners that ask clients for a certificate and take them without a valid one."""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from pilothouse.foundation.tls import Credentials, issue, make_ca
from pilothouse.traffic.config import Certificate, Configuration, ListenerTls
from pilothouse.traffic.plane.client1 import Client1
from pilothouse.traffic.plane.plan import BadConfiguration, Plan
from support.planekit import PATIENCE, Origin, Plane, Raw, configuration, free_port, plane, until
from support.tunnelkit import Http2

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture(scope="module")
def ca() -> Credentials:
    return make_ca("mine")


def asking(origin: int, ca: Credentials, **changes: Certificate) -> Configuration:
    pair = issue(ca, "a.example", hosts=["a.example"], server=True)
    certificate = Certificate(chain=pair.certificate, key=pair.key)
    tls = ListenerTls(
        certificates=("one",), client_ca=ca.certificate, is_client_required=False, is_client_checked=False
    )
    certificates = {"one": certificate} | changes
    return configuration(
        origin, port=free_port(), listener={"protocol": "HTTPS", "tls": tls}, certificates=certificates
    )


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin.answering(OK) as made:
        yield made


@pytest.fixture
def served(origin: Origin, ca: Credentials) -> Iterator[Plane]:
    with plane(asking(origin.port, ca)) as made:
        yield made


def connected(
    served: Plane, ca: Credentials, tmp_path: Path, who: str, *alpn: str, version: ssl.TLSVersion | None = None
) -> ssl.SSLSocket:
    """Connect with a certificate that is valid, one that is not (of another authority), or none."""
    context = ssl.create_default_context(cadata=ca.certificate.decode())
    if who:
        pair = issue(ca if who == "valid" else make_ca("other"), who, hosts=[who], client=True, server=False)
        file = tmp_path / f"{who}.pem"
        file.write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(file)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if alpn:
        context.set_alpn_protocols(alpn)
    sock = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE)
    return context.wrap_socket(sock, server_hostname="a.example")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(("who", "subject"), [("", ""), ("valid", "CN=valid"), ("bad", "")])
def test_whoever_comes_is_served(
    who: str, subject: str, version: ssl.TLSVersion, served: Plane, ca: Credentials, tmp_path: Path
) -> None:
    with Raw(0, connected(served, ca, tmp_path, who, version=version)) as client:
        for _ in range(2):
            assert client.send(GET).response()[2] == b"hello"
        known = served.do(lambda: [cast("Client1", each).peer.subject for each in served.worker.clients])
        assert [subject in each for each in known] == [True]
        assert bool(known[0]) == bool(subject)
    until(lambda: served.do(lambda: len(served.worker.clients)) == 0)


@pytest.mark.parametrize("who", ["", "valid", "bad"])
def test_http2(who: str, served: Plane, ca: Credentials, tmp_path: Path) -> None:
    sock = connected(served, ca, tmp_path, who, "h2", "http/1.1")
    assert sock.selected_alpn_protocol() == "h2"
    with Http2(sock) as client:
        streams = [client.ask(scheme="https") for _ in range(20)]
        assert [client.status(stream) for stream in streams] == [200] * 20


def test_large_bodies(ca: Credentials, tmp_path: Path) -> None:
    body = hashlib.sha256().digest() * 100_000
    with (
        Origin.answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as origin,
        plane(asking(origin.port, ca)) as served,
        Raw(0, connected(served, ca, tmp_path, "bad")) as client,
    ):
        data = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        # Not from two threads: OpenSSL's connections cannot be read and written at once. The origin reads all first.
        assert client.send(data).response()[2] == body
        assert origin.heads[0].endswith(body)


def test_ends(served: Plane, ca: Credentials, tmp_path: Path) -> None:
    with Raw(0, connected(served, ca, tmp_path, "valid")) as client:
        assert client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).everything().endswith(b"hello")
    cut = connected(served, ca, tmp_path, "")
    socket.socket.shutdown(cut, socket.SHUT_RDWR)  # without a word of TLS
    cut.close()
    with Raw(served.port) as client:
        client.send(b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c" + b"a" * 44)
        client.everything()
    until(lambda: served.do(lambda: len(served.worker.clients)) == 0)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="wants Debian's openssl")
def test_they_are_asked(served: Plane) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-servername", "a.example"]
    done = subprocess.run(command, input=b"", capture_output=True, timeout=PATIENCE, check=False)
    assert b"Acceptable client certificate CA names" in done.stdout
    assert b"CN = mine" in done.stdout.partition(b"Acceptable")[2]


def test_pairs_that_do_not_fit(ca: Credentials) -> None:
    one, two = (issue(ca, "a.example", hosts=["a.example"], server=True) for _ in range(2))
    with pytest.raises(BadConfiguration, match="certificate 'one': chain and key cannot be used together"):
        Plan(asking(1, ca, one=Certificate(chain=one.certificate, key=two.key)))
    with pytest.raises(BadConfiguration, match="certificate 'one'"):
        Plan(asking(1, ca, one=Certificate(chain=one.certificate, key=b"none")))
