"""TLS between a socket and a connection, in memory.

The loops' own layers are passed by for two reasons: what they buffer cannot be counted exactly, and a request and its
answer cost a third more in them (`bench/apiserver_http.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any, Final, cast

from pilothouse.apiserver.http.answering import Shared
from pilothouse.apiserver.http.connection import HttpConnection, peer_of

__all__ = ["TlsConnection"]

_RECORD_BYTES: Final = 16 << 10
_PART_BYTES: Final = 32 << 10
"""What goes through OpenSSL's buffers at once: they keep the size they once had, for as long as the connection."""


class TlsConnection(asyncio.Protocol):
    """The protocol of the socket, and the transport of the `HttpConnection` that it makes after the handshake."""

    def __init__(self, shared: Shared, context: ssl.SSLContext) -> None:
        self._shared = shared
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw: Any = None
        self._inner: asyncio.Protocol | None = None
        self._closing = False
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        self._raw = transport
        if len(shared.connections) >= shared.limits.max_connections or shared.closing:
            self._raw.abort()
            return
        self.deadline = shared.monotonic() + shared.limits.handshake_seconds
        shared.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._shared.leave(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if len(data) <= _PART_BYTES:
            self._take(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), _PART_BYTES):
            self._take(view[start : start + _PART_BYTES])

    def _take(self, data: bytes | memoryview) -> None:
        if self._closing:
            return
        self._incoming.write(data)
        if self._inner is not None or self._shake_hands():
            self._receive()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return False
        except (ssl.SSLError, ssl.CertificateError):
            self._send()  # the alert that says why
            self._closing = True
            self._raw.close()
            return False
        self._send()
        shared = self._shared
        shared.connections.discard(self)  # its place is the HttpConnection's from now on
        if self._tls.selected_alpn_protocol() == "h2":
            from pilothouse.apiserver.http.h2 import Http2Connection  # noqa: PLC0415  # only where it is spoken

            self._inner = inner = Http2Connection(shared)
            inner.begin(self, peer_of(cast("asyncio.Transport", self)))
            return True
        self._inner = HttpConnection(shared)
        self._inner.connection_made(cast("asyncio.Transport", self))
        return True

    def _receive(self) -> None:
        """Decrypt what has come; asked for only where there is something, as the refusal of an empty read is dear."""
        tls, incoming, inner = self._tls, self._incoming, self._inner
        if inner is None:
            return
        while not self._closing and (incoming.pending or tls.pending()):
            try:
                data = tls.read(_RECORD_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLError:
                self.abort()
                return
            if not data:
                inner.eof_received()
                self.close()
                return
            inner.data_received(data)
        if self._outgoing.pending:
            self._send()  # answers to key updates

    def _send(self) -> None:
        data = self._outgoing.read()
        if data:
            self._raw.write(data)

    def eof_received(self) -> bool:
        if self._inner is not None:
            self._inner.eof_received()
        return False

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def expire(self, now: float) -> None:
        """Drop a peer that does not finish the handshake."""
        del now
        self.abort()

    def shut_down(self) -> None:
        """Drop a peer in its handshake."""
        self.abort()

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt and send."""
        if self._closing or self._raw.is_closing():
            return
        if len(data) <= _PART_BYTES:
            self._tls.write(data)
            self._raw.write(self._outgoing.read())
            return
        view = memoryview(data)
        for start in range(0, len(data), _PART_BYTES):
            self._tls.write(view[start : start + _PART_BYTES])
            self._raw.write(self._outgoing.read())

    def close(self) -> None:
        """Say goodbye, send what is buffered and close."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(ssl.SSLError):  # the peer's own goodbye is not waited for
            self._tls.unwrap()
        self._send()
        self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Return bytes, encrypted, that the socket has not taken."""
        return cast("int", self._raw.get_write_buffer_size())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when writing is paused and resumed, in bytes."""
        self._raw.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        """Leave what comes to the peer's socket."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._raw.resume_reading()

    def can_write_eof(self) -> bool:
        """Return that TLS has no half-closed connections."""
        return False

    def write_eof(self) -> None:
        """Refuse."""
        raise NotImplementedError("TLS has no half-closed connections")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return the TLS state as `ssl_object`, else what the socket's transport says."""
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)
