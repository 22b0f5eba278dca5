"""TLS whose clients are asked for a certificate and taken without a valid one, which Python's own module cannot do.

It ends a handshake with whatever certificate its authorities did not sign; pyOpenSSL lets a function decide. Gateway
API calls this AllowInsecureFallback.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from pilothouse.traffic.config import Certificate

if TYPE_CHECKING:
    from OpenSSL import SSL

__all__ = ["AskingContext", "AskingSocket"]

_UNCHECKED: Final = "no certificate"


class AskingContext:
    """What one certificate's connections have in common. Raises ValueError for what cannot be used."""

    def __init__(self, certificate: Certificate, authorities: bytes, alpn: Sequence[str]) -> None:
        from OpenSSL import SSL  # noqa: PLC0415  # only where a listener has it

        context = self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        # A session that is taken up again says nothing of how its certificate was judged, so there are none.
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        try:
            self._load(certificate, authorities)
        except SSL.Error as error:
            raise ValueError(f"chain and key cannot be used together: {error}") from None
        context.set_verify(SSL.VERIFY_PEER, _judge)
        self._alpn = [each.encode() for each in alpn]
        if alpn:
            context.set_alpn_select_callback(self._chosen)

    def _load(self, certificate: Certificate, authorities: bytes) -> None:
        from OpenSSL import crypto  # noqa: PLC0415

        context = self._context
        first, *others = x509.load_pem_x509_certificates(certificate.chain)
        context.use_certificate(first)
        for other in others:
            context.add_extra_chain_cert(other)
        context.use_privatekey(load_pem_private_key(certificate.key, None))  # type: ignore[arg-type]
        context.check_privatekey()
        store = context.get_cert_store()
        assert store is not None  # noqa: S101
        for each in x509.load_pem_x509_certificates(authorities):
            store.add_cert(crypto.X509.from_cryptography(each))
            context.add_client_ca(each)

    def _chosen(self, connection: SSL.Connection, offered: list[bytes]) -> Any:
        from OpenSSL import SSL  # noqa: PLC0415

        del connection
        return next((each for each in self._alpn if each in offered), SSL.NO_OVERLAPPING_PROTOCOLS)

    def wrap_socket(self, sock: socket.socket, **given: object) -> AskingSocket:
        """Return the socket with TLS on it, before its handshake."""
        del given
        return AskingSocket(sock, self._context)


def _judge(connection: SSL.Connection, certificate: object, error: int, depth: int, is_valid: int) -> bool:
    """Take any certificate, and take note of one that is not valid."""
    del certificate
    if not is_valid:
        connection.set_app_data(f"error {error} at depth {depth}")
    elif connection.get_app_data() == _UNCHECKED:
        connection.set_app_data("")
    return True


class AskingSocket(socket.socket):
    """Does what a worker needs of an SSLSocket, and raises what that raises."""

    def __init__(self, sock: socket.socket, context: SSL.Context) -> None:
        from OpenSSL import SSL  # noqa: PLC0415

        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.setblocking(False)
        self._ssl = SSL
        self._connection = SSL.Connection(context, _Described(self))  # type: ignore[arg-type]
        self._connection.set_accept_state()
        self._connection.set_app_data(_UNCHECKED)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        module = self._ssl
        try:
            yield
        except module.WantReadError:
            raise ssl.SSLWantReadError from None
        except module.WantWriteError:
            raise ssl.SSLWantWriteError from None
        except module.ZeroReturnError:
            raise ssl.SSLZeroReturnError from None
        except module.SysCallError as error:
            if error.args[0] == -1:
                raise ssl.SSLEOFError(*error.args) from None
            raise ConnectionError(*error.args) from None
        except module.Error as error:
            raise ssl.SSLError(str(error)) from None

    def do_handshake(self) -> None:
        """Go on with the handshake. Raises ssl.SSLError."""
        with self._translated():
            self._connection.do_handshake()

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        try:
            with self._translated():
                return int(self._connection.recv_into(buffer, nbytes or None, flags))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0

    def send(self, data: Any, flags: int = 0) -> int:
        with self._translated():
            return int(self._connection.send(data, flags))

    def pending(self) -> int:
        """Return how many bytes can be read without asking the kernel."""
        return int(self._connection.pending())

    def unwrap(self) -> None:
        """Say that nothing more comes. Raises ssl.SSLError."""
        with self._translated():
            self._connection.shutdown()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that was agreed on."""
        return self._connection.get_alpn_proto_negotiated().decode() or None

    def getpeercert(self, binary_form: bool = False) -> bytes | None:
        """Return the client's certificate as DER, None where there is none or it is not valid."""
        del binary_form
        found = self._connection.get_peer_certificate(as_cryptography=True)
        if found is None or self._connection.get_app_data():
            return None
        return found.public_bytes(Encoding.DER)


class _Described:
    """The descriptor of a socket, which is all that OpenSSL wants of it: the socket itself would be a circle."""

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()

    def fileno(self) -> int:
        return self._fd
