"""TLS on either side, connections passed on as they are, upgraded ones, PROXY headers, health checks."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
import wsproto
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request, TextMessage

from pilothouse.foundation.tls import Credentials, issue, make_ca
from pilothouse.traffic.config import (
    BackendTls,
    Certificate,
    Configuration,
    HealthCheck,
    Listener,
    ListenerTls,
    StreamRoute,
    Weighted,
)
from support.planekit import Origin, Plane, Raw, configuration, free_port, head_of, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture(scope="module")
def ca() -> Credentials:
    return make_ca("test")


def certificate(ca: Credentials, *hosts: str, client: bool = False) -> Certificate:
    made = issue(ca, hosts[0], hosts=hosts, server=not client, client=client)
    return Certificate(chain=made.certificate, key=made.key)


def contexts(ca: Credentials, tmp_path: Path, pair: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.certificate.decode())
    if pair is not None:
        file = tmp_path / "pair.pem"
        file.write_bytes(pair.chain + pair.key)
        context.load_cert_chain(file)
    return context


def secured(origin: int, ca: Credentials, port: int, **tls: object) -> Configuration:
    given = ListenerTls(certificates=("one", "two"), **tls)  # type: ignore[arg-type]
    config = configuration(origin, port=port, listener={"protocol": "HTTPS", "tls": given})
    config.certificates.update(one=certificate(ca, "a.example"), two=certificate(ca, "*.b.example", "b.example"))
    return config


def wrapped(served: Plane, context: ssl.SSLContext, name: str, **more: object) -> Raw:
    sock = socket.create_connection(("127.0.0.1", served.port), timeout=20)
    return Raw(0, context.wrap_socket(sock, server_hostname=name, **more))  # type: ignore[arg-type]


class TestTermination:
    @pytest.fixture
    def origin(self) -> Iterator[Origin]:
        with Origin.answering(OK) as made:
            yield made

    def test_certificates_by_name(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        context = contexts(ca, tmp_path)
        with plane(secured(origin.port, ca, free_port())) as served:
            for name in ("a.example", "b.example", "www.b.example"):
                with wrapped(served, context, name) as client:
                    request = GET.replace(b"a.example", name.encode())
                    assert client.send(request).response()[2] == b"hello"
                    assert client.send(request).response()[2] == b"hello"
        assert b"x-forwarded-proto: https" in origin.heads[0]

    def test_large_bodies(self, ca: Credentials, tmp_path: Path) -> None:
        body = hashlib.sha256().digest() * 60_000
        with Origin.answering(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body) as origin:
            with (
                plane(secured(origin.port, ca, free_port())) as served,
                wrapped(served, contexts(ca, tmp_path), "a.example") as client,
            ):
                head = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: %d\r\n\r\n" % len(body)
                client.send(head + body)
                assert client.response()[2] == body
            assert origin.heads[0].endswith(body)

    def test_sessions_are_resumed(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        context = contexts(ca, tmp_path)
        with plane(secured(origin.port, ca, free_port())) as served:
            with wrapped(served, context, "a.example") as client:
                client.send(GET).response()
                assert isinstance(client.sock, ssl.SSLSocket)
                session = client.sock.session
            with wrapped(served, context, "a.example", session=session) as client:
                assert client.sock.session_reused  # type: ignore[attr-defined]

    def test_certificates_change_while_connections_go_on(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        other = make_ca("other")
        port = free_port()
        with (
            plane(secured(origin.port, ca, port)) as served,
            wrapped(served, contexts(ca, tmp_path), "a.example") as before,
        ):
            before.send(GET).response()
            served.take(secured(origin.port, other, port))
            with wrapped(served, contexts(other, tmp_path), "a.example") as after:
                assert after.send(GET).response()[0] == 200
            assert before.send(GET).response()[0] == 200
            with pytest.raises(ssl.SSLError):
                wrapped(served, contexts(ca, tmp_path), "a.example")

    def test_client_certificates(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        mine = certificate(ca, "me", client=True)
        with plane(secured(origin.port, ca, free_port(), client_ca=ca.certificate)) as served:
            with wrapped(served, contexts(ca, tmp_path, mine), "a.example") as client:
                assert client.send(GET).response()[0] == 200
            with (
                pytest.raises((ssl.SSLError, ConnectionError)),
                wrapped(served, contexts(ca, tmp_path), "a.example") as client,
            ):
                client.send(GET).response()

    def test_what_is_no_tls(self, ca: Credentials, origin: Origin) -> None:
        with plane(secured(origin.port, ca, free_port())) as served:
            with Raw(served.port) as client:
                assert client.send(GET).everything() == b""
            assert served.refused("tls greeting") == 1
            with Raw(served.port) as client:
                client.send(b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c" + b"a" * 44)
                client.everything()

    def test_other_hosts_of_a_connection_are_misdirected(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        config = secured(origin.port, ca, free_port())
        first = config.listeners[0]
        listeners = (
            Listener(
                name="web", port=first.port, address="127.0.0.1", protocol="HTTPS", hostname="a.example", tls=first.tls
            ),
            Listener(
                name="b", port=first.port, address="127.0.0.1", protocol="HTTPS", hostname="b.example", tls=first.tls
            ),
        )
        config = Configuration(
            listeners=listeners, routes=config.routes, backends=config.backends, certificates=config.certificates
        )
        with plane(config) as served, wrapped(served, contexts(ca, tmp_path), "a.example") as client:
            assert client.send(GET).response()[0] == 200
            assert client.send(GET.replace(b"a.example", b"b.example")).response()[0] == 421

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="wants Debian's openssl")
    def test_openssl(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        authorities = tmp_path / "ca.pem"
        authorities.write_bytes(ca.certificate)
        with plane(secured(origin.port, ca, free_port())) as served:
            for version in ("-tls1_2", "-tls1_3"):
                command = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-servername", "b.example"]
                command += ["-CAfile", str(authorities), "-verify_return_error", "-quiet", version]
                request = b"GET / HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n"
                done = subprocess.run(command, input=request, capture_output=True, timeout=20, check=False)
                assert done.stdout.endswith(b"hello"), done.stderr
            old = ["openssl", "s_client", "-connect", f"127.0.0.1:{served.port}", "-tls1_1"]
            assert subprocess.run(old, input=b"", capture_output=True, timeout=20, check=False).returncode != 0

    @pytest.mark.skipif(shutil.which("curl") is None, reason="wants Debian's curl")
    def test_curl(self, ca: Credentials, origin: Origin, tmp_path: Path) -> None:
        authorities = tmp_path / "ca.pem"
        authorities.write_bytes(ca.certificate)
        with plane(secured(origin.port, ca, free_port())) as served:
            port = served.port
            command = ["curl", "-sS", "--cacert", str(authorities), "--resolve", f"a.example:{port}:127.0.0.1"]
            urls = [f"https://a.example:{port}/"] * 2
            done = subprocess.run([*command, *urls], capture_output=True, timeout=20, check=False)
            assert done.stdout == b"hellohello", done.stderr


class TestBackendsByTls:
    def status(self, ca: Credentials, tmp_path: Path, tls: BackendTls, *hosts: str) -> int:
        pair = certificate(ca, *hosts)
        file = tmp_path / "server.pem"
        file.write_bytes(pair.chain + pair.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        with (
            Origin.answering(OK, context=context) as origin,
            plane(configuration(origin.port, port=free_port(), backend={"tls": tls})) as served,
            Raw(served.port) as client,
        ):
            statuses = [client.send(GET).response()[0] for _ in range(2)]
            assert statuses[0] == statuses[1]
            return statuses[0]

    def test_checked(self, ca: Credentials, tmp_path: Path) -> None:
        assert self.status(ca, tmp_path, BackendTls(hostname="back.example", ca=ca.certificate), "back.example") == 200
        assert self.status(ca, tmp_path, BackendTls(hostname="back.example", ca=ca.certificate), "other.example") == 503
        other = make_ca("other").certificate
        assert self.status(ca, tmp_path, BackendTls(hostname="back.example", ca=other), "back.example") == 503
        named = BackendTls(hostname="sni.example", ca=ca.certificate, names=("alt.example",))
        assert self.status(ca, tmp_path, named, "x.example", "alt.example") == 200
        assert self.status(ca, tmp_path, named, "sni.example") == 503


class TestStreams:
    def echo(self) -> Origin:
        def serve(sock: socket.socket, number: int) -> None:
            while data := sock.recv(1 << 18):
                sock.sendall(data)
            sock.sendall(b"bye")

        return Origin(serve)

    def config(self, port: int, protocol: str, *routes: StreamRoute, origins: dict[str, int]) -> Configuration:
        backends = {name: configuration(each).backends["b"] for name, each in origins.items()}
        listener = Listener(name="s", port=port, address="127.0.0.1", protocol=protocol)  # type: ignore[arg-type]
        return Configuration(listeners=(listener,), streams=routes, backends=backends)

    def test_tcp_with_half_closes(self) -> None:
        route = StreamRoute(name="d/s", listeners=("s",), backends=(Weighted(backend="e"),))
        data = hashlib.sha256().digest() * 100_000
        with self.echo() as origin, plane(self.config(free_port(), "TCP", route, origins={"e": origin.port})) as served:
            with Raw(served.port) as client:

                def send() -> None:
                    client.send(data)
                    client.sock.shutdown(socket.SHUT_WR)

                threading.Thread(target=send).start()
                assert client.everything() == data + b"bye"
            assert served.worker.counters.bytes_spliced >= 2 * len(data)
            until(lambda: served.do(lambda: len(served.worker.tunnels)) == 0)
            counted = served.do(lambda: served.worker.tally.take(0))[0].counted[0]
            assert (counted.route, counted.bytes_in, counted.bytes_out) == ("d/s", len(data), len(data) + 3)
            assert served.do(lambda: served.worker.pools["e"].active) == 0

    def test_tcp_to_nobody(self) -> None:
        route = StreamRoute(name="d/s", listeners=("s",), backends=(Weighted(backend="e"),))
        with plane(self.config(free_port(), "TCP", route, origins={"e": free_port()})) as served:
            with contextlib.suppress(ConnectionResetError), Raw(served.port) as client:
                assert client.everything() == b""
            until(lambda: served.refused("connect") == 1)

    def test_tls_passed_on_by_name(self, ca: Credentials, tmp_path: Path) -> None:
        origins = []
        for host in ("one.example", "two.example"):
            pair = certificate(ca, host)
            (tmp_path / "pair.pem").write_bytes(pair.chain + pair.key)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tmp_path / "pair.pem")
            origins.append(Origin.answering(OK.replace(b"hello", host[:5].encode().ljust(5)), context=context))
        routes = (
            StreamRoute(name="d/1", listeners=("s",), hostnames=("one.example",), backends=(Weighted(backend="1"),)),
            StreamRoute(name="d/2", listeners=("s",), hostnames=("*.example",), backends=(Weighted(backend="2"),)),
        )
        ports = {"1": origins[0].port, "2": origins[1].port}
        with plane(self.config(free_port(), "TLS", *routes, origins=ports)) as served:
            context = contexts(ca, tmp_path)
            for name in ("one.example", "two.example"):
                with wrapped(served, context, name) as client:
                    assert client.send(GET).response()[2] == name[:5].encode().ljust(5)
            with pytest.raises((ssl.SSLError, ConnectionError, OSError)):
                wrapped(served, context, "three.test")
        for origin in origins:
            origin.close()


class TestUpgrades:
    def serve(self, sock: socket.socket, number: int) -> None:
        connection = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        while data := sock.recv(65536):
            connection.receive_data(data)
            for event in connection.events():
                if isinstance(event, Request):
                    sock.sendall(connection.send(AcceptConnection()))
                elif isinstance(event, TextMessage):
                    sock.sendall(connection.send(TextMessage(str(event.data), message_finished=event.message_finished)))
                elif isinstance(event, BytesMessage):
                    data = bytes(event.data)
                    sock.sendall(connection.send(BytesMessage(data, message_finished=event.message_finished)))
                elif isinstance(event, CloseConnection):
                    sock.sendall(connection.send(event.response()))
                    return

    def test_websocket(self) -> None:
        with Origin(self.serve) as origin, plane(configuration(origin.port, port=free_port())) as served:
            client = websocket.create_connection(f"ws://127.0.0.1:{served.port}/chat", timeout=20)
            client.send("hello")
            assert client.recv() == "hello"
            big = hashlib.sha256().digest() * 30_000
            client.send_binary(big)
            received = b""
            while len(received) < len(big):
                came = client.recv()
                assert isinstance(came, bytes)
                received += came
            assert received == big
            client.close()
            until(lambda: served.do(lambda: len(served.worker.tunnels)) == 0)
            assert served.do(lambda: served.worker.pools["b"].active) == 0

    def test_websocket_by_tls(self, ca: Credentials, tmp_path: Path) -> None:
        with Origin(self.serve) as origin, plane(secured(origin.port, ca, free_port())) as served:
            sock = wrapped(served, contexts(ca, tmp_path), "a.example").sock
            client = websocket.create_connection("wss://a.example/chat", socket=sock, timeout=20)
            for size in (5, 100_000):
                client.send("x" * size)
                received = ""
                while len(received) < size:
                    received += str(client.recv())
                assert received == "x" * size
            client.close()
            until(lambda: served.do(lambda: len(served.worker.tunnels)) == 0)

    def test_refused_by_the_backend(self) -> None:
        no = b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n"
        with Origin.answering(no) as origin, plane(configuration(origin.port, port=free_port())) as served:
            with Raw(served.port) as client:
                ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                assert client.send(ask).response()[0] == 403
                assert client.send(GET).response()[0] == 403
            assert b"\r\nupgrade: websocket" in origin.heads[0]

    def test_unasked(self) -> None:
        answer = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        with (
            Origin.answering(answer) as origin,
            plane(configuration(origin.port, port=free_port())) as served,
            Raw(served.port) as client,
        ):
            assert client.send(GET).status() == 502


class TestProxyHeaders:
    def test_say_who_it_is(self, ca: Credentials, tmp_path: Path) -> None:
        with Origin.answering(OK) as origin:
            config = configuration(origin.port, port=free_port(), listener={"has_proxy_protocol": True})
            with plane(config) as served:
                with Raw(served.port) as client:
                    client.send(b"PROXY TCP4 9.8.7.6 1.1.1.1 5")
                    threading.Event().wait(0.05)
                    assert client.send(b"000 80\r\n" + GET).response()[0] == 200
                with Raw(served.port) as client:
                    assert client.send(GET).everything() == b""
                assert served.refused("proxy protocol") == 1
            assert b"x-forwarded-for: 9.8.7.6" in origin.heads[0]
            base = secured(origin.port, ca, free_port())
            first = base.listeners[0]
            listener = {"protocol": "HTTPS", "tls": first.tls, "has_proxy_protocol": True}
            config = configuration(origin.port, port=first.port, listener=listener)
            config.certificates.update(base.certificates)
            with plane(config) as served:
                sock = socket.create_connection(("127.0.0.1", first.port), timeout=20)
                sock.sendall(b"PROXY TCP4 5.5.5.5 1.1.1.1 5000 80\r\n")
                secure = contexts(ca, tmp_path).wrap_socket(sock, server_hostname="a.example")
                with Raw(0, secure) as client:
                    assert client.send(GET).response()[0] == 200
            assert b"x-forwarded-for: 5.5.5.5" in origin.heads[-1]


class TestHealth:
    def test_endpoints_that_are_ill_are_left_out(self) -> None:
        well = threading.Event()

        def serve(sock: socket.socket, number: int) -> None:
            while True:
                head, _ = head_of(sock)
                is_check = head.startswith(b"GET /health")
                status = b"503 No" if is_check and not well.is_set() else b"200 OK"
                sock.sendall(b"HTTP/1.1 " + status + b"\r\ncontent-length: 5\r\n\r\nhello")

        check = HealthCheck(path="/health", every=0.02, healthy=2, unhealthy=2)
        with (
            Origin(serve) as origin,
            plane(configuration(origin.port, port=free_port(), backend={"health": check})) as served,
        ):
            states = served.worker.pools["b"].balancer.states
            until(lambda: not states[0].is_healthy)
            with Raw(served.port) as client:
                assert client.send(GET).response()[0] == 503
                well.set()
                until(lambda: states[0].is_healthy)
                assert client.send(GET).response()[0] == 200
