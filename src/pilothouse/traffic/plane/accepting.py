"""How connections begin: accepted within limits, their PROXY header and TLS greeting read, then given to a protocol."""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from pilothouse.traffic.plane import greeting, proxyprotocol
from pilothouse.traffic.plane.client1 import Client1
from pilothouse.traffic.plane.http import Refused
from pilothouse.traffic.plane.passing import StreamConnection
from pilothouse.traffic.plane.plan import Port
from pilothouse.traffic.plane.reactor import IN, OUT, Timed
from pilothouse.traffic.plane.wires import Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["Acceptor"]

_AT_ONCE: Final = 16
"""Accepted in one round: other workers get the rest, and open connections their turn."""

_PAUSE_SECONDS: Final = 0.1
_LOW_WATER: Final = socket.SO_RCVLOWAT
_PROXY, _GREETING, _HANDSHAKE, _DONE = range(4)


class Acceptor(Timed):
    """One listening socket, which other workers have too."""

    def __init__(self, worker: Worker, sock: socket.socket, port: Port) -> None:
        super().__init__()
        self._worker = worker
        self.sock = sock
        self.port = port
        self._is_watching = False

    def start(self) -> None:
        """Take connections."""
        if not self._is_watching:
            self._is_watching = True
            self._worker.reactor.register(self.sock.fileno(), self, IN | select.EPOLLEXCLUSIVE)

    def stop(self) -> None:
        """Take no more; the socket stays open."""
        self.deadline = math.inf
        if self._is_watching:
            self._is_watching = False
            self._worker.reactor.release(self.sock.fileno())

    def on_deadline(self) -> None:
        self.start()

    def on_crash(self) -> None:
        """One connection was lost, not the socket."""

    def on_event(self, events: int) -> None:
        del events
        worker = self._worker
        for _ in range(_AT_ONCE):
            try:
                sock, address = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    worker.refused(Refused(503, "descriptors", "no descriptors are left"), None)
                    self._pause()
                    return
                continue  # the client went away before it was taken
            if worker.is_full(self.port.scope):
                worker.refused(Refused(503, "connections", "as many connections are open as may be"), None)
                sock.close()
                continue
            self._begin(sock, address)

    def _pause(self) -> None:
        self.stop()
        self._worker.reactor.arm(self, self._worker.reactor.now + _PAUSE_SECONDS)

    def _begin(self, sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        worker, port = self._worker, self.port
        wire = Wire(worker.reactor, sock, worker.counters)
        wire.join(port.scope.crowd)
        host = address[0].removeprefix("::ffff:")
        if port.kind == "HTTP" and not port.has_proxy_protocol:
            client = Client1(worker, wire, worker.peer(host, address[1], "http", port))
            wire.attach(client)
            client.begin()
            client.on_event(IN)
            return
        _Beginning(worker, wire, port, host, address[1]).begin()


class _Beginning(Timed):
    """A connection of which it is not known yet what it is."""

    __slots__ = ("_address", "_listener", "_name", "_port", "_remote_port", "_seen", "_stage", "_wire", "_worker")

    def __init__(self, worker: Worker, wire: Wire, port: Port, address: str, remote_port: int) -> None:
        super().__init__()
        self._worker, self._wire, self._port = worker, wire, port
        self._address, self._remote_port = address, remote_port
        self._stage = _PROXY if port.has_proxy_protocol else _GREETING
        self._seen = 0
        self._listener = ""
        self._name = ""

    def begin(self) -> None:
        """Wait for the first bytes."""
        worker = self._worker
        worker.clients.add(self)
        worker.reactor.arm(self, worker.reactor.now + self._port.scope.limits.head_seconds)
        self._wire.attach(self)
        self.on_event(IN)

    def drain(self) -> None:
        """Give up what has not begun."""
        self._close()

    def on_deadline(self) -> None:
        if self._stage != _DONE:
            self._worker.refused(Refused(408, "slow client", "the connection begins too slowly"), None)
            self._close()

    def on_crash(self) -> None:
        self._close()

    def _close(self) -> None:
        self._leave()
        self._wire.abort()

    def _leave(self) -> None:
        self._stage = _DONE
        self.deadline = math.inf
        self._worker.clients.discard(self)

    def on_event(self, events: int) -> None:
        del events
        try:
            if self._stage == _PROXY:
                self._read_proxy_header()
            if self._stage == _GREETING:
                self._greet()
            elif self._stage == _HANDSHAKE:
                self._shake()
        except Refused as error:
            self._worker.refused(error, None)
            self._close()
        except ssl.SSLWantReadError:
            self._wire.want(IN)
        except ssl.SSLWantWriteError:
            self._wire.want(OUT)
        except BlockingIOError:
            pass
        except (OSError, ValueError) as error:
            self._worker.refused(Refused(400, "tls", f"TLS: {error}"), None)
            self._close()

    def _peek(self, most: int) -> bytes:
        data = self._wire.sock.recv(most, socket.MSG_PEEK)
        if len(data) == self._seen:
            raise Refused(400, "begin", "closed before it began")  # told that there is more, and there is not
        self._seen = len(data)
        return data

    def _wait_for(self, count: int) -> None:
        """Be told only once there is more than was seen: it is still in the kernel."""
        self._wire.sock.setsockopt(socket.SOL_SOCKET, _LOW_WATER, count)

    def _read_proxy_header(self) -> None:
        data = self._peek(proxyprotocol.MOST)
        found = proxyprotocol.read_proxy_header(data)
        if found is None:
            self._wait_for(len(data) + 1)
            return
        source, length = found
        self._wire.sock.recv(length)
        self._wait_for(1)
        self._seen = 0
        if source.address:
            self._address, self._remote_port = source
        self._stage = _GREETING

    def _greet(self) -> None:
        port = self._port
        if port.kind == "HTTP":
            self._speak_http("http")
            return
        if port.kind == "TCP":
            self._pass_on("")
            return
        data = self._peek(greeting.MOST)
        found = greeting.read_greeting(data)
        if found is None:
            if len(data) >= greeting.MOST:
                raise Refused(400, "tls greeting", "the TLS greeting is too long")
            self._wait_for(len(data) + 1)
            return
        self._wait_for(1)
        self._name = found.name
        listener = port.listener_for(found.name)
        if listener is None and not found.name:
            listener = port.listeners[0]
        if listener is None:
            raise Refused(421, "tls name", "no listener takes the name that is asked for")
        self._listener = listener.name
        terminator = self._worker.plan.terminators.get(listener.name)
        if terminator is None:
            self._pass_on(found.name)
            return
        context = terminator.context(found.name)
        sock = context.wrap_socket(
            self._wire.sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self._wire.secure(sock)
        self._stage = _HANDSHAKE
        self._shake()

    def _shake(self) -> None:
        sock = cast("ssl.SSLSocket", self._wire.sock)
        sock.do_handshake()
        self._wire.want(IN)
        if any(each.name == self._listener and each.protocol == "TLS" for each in self._port.listeners):
            self._pass_on(self._name)
            return
        self._speak_http("https", sock.selected_alpn_protocol() or "")

    def _speak_http(self, scheme: str, protocol: str = "") -> None:
        worker = self._worker
        self._leave()
        peer = worker.peer(self._address, self._remote_port, scheme, self._port)
        peer.server_name, peer.listener = self._name, self._listener
        if not self._wire.is_raw:
            peer.subject = subject_of(cast("ssl.SSLSocket", self._wire.sock))
        if protocol == "h2" and worker.speak_http2(self._wire, peer):
            return
        client = Client1(worker, self._wire, peer)
        worker.reactor.replace(self._wire.fd, client)
        client.begin()
        if scheme == "http":
            client.on_event(IN)

    def _pass_on(self, server_name: str) -> None:
        self._leave()
        found = self._worker.plan.stream_for(self._port, server_name)
        peer = self._worker.peer(self._address, self._remote_port, "tcp", self._port)
        StreamConnection(self._worker, self._wire, peer, found).begin()


def subject_of(sock: ssl.SSLSocket) -> str:
    """Return the subject of the client's certificate as RFC 4514 has it, empty where there is none."""
    with contextlib.suppress(ValueError):
        data = sock.getpeercert(binary_form=True)
        if data:
            from cryptography import x509  # noqa: PLC0415  # only where clients have certificates

            return x509.load_der_x509_certificate(data).subject.rfc4514_string()
    return ""
