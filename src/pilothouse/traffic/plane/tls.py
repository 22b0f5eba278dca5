"""TLS on both sides: certificates chosen by name and exchanged while connections go on, contexts from PEM in memory."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID

from pilothouse.traffic.config import BackendTls, Certificate, ListenerTls
from pilothouse.traffic.plane.pools import BackendConnector

if TYPE_CHECKING:
    from pilothouse.traffic.plane.asking import AskingContext

__all__ = ["BadTls", "Terminator", "connector", "names_of"]

_KTLS: Final = getattr(ssl, "OP_ENABLE_KTLS", 0)

ServerContext: TypeAlias = "ssl.SSLContext | AskingContext"


class BadTls(ValueError):
    """A certificate, key or authority that cannot be used; the message does not hold the key."""


def names_of(chain: bytes) -> tuple[str, ...]:
    """Return the DNS names of a chain's first certificate, lower case. Raises BadTls."""
    try:
        certificate = x509.load_pem_x509_certificate(chain)
    except ValueError as error:
        raise BadTls(f"holds no valid PEM certificate: {error}") from None
    try:
        extension = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(each.value).lower() for each in common)
    assert isinstance(extension, x509.SubjectAlternativeName)  # noqa: S101
    return tuple(name.lower() for name in extension.get_values_for_type(x509.DNSName))


def _base(protocol: int, alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | _KTLS
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _load(context: ssl.SSLContext, certificate: Certificate) -> None:
    """Load a pair; OpenSSL reads files only, so it is given one in memory."""
    fd = _memory_file()
    try:
        os.write(fd, certificate.chain + b"\n" + certificate.key)
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_passphrase)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or "not valid PEM"
        raise BadTls(f"chain and key cannot be used together: {reason}") from None
    finally:
        os.close(fd)


def _memory_file() -> int:
    try:
        return os.memfd_create("pilothouse-certificate", os.MFD_CLOEXEC)
    except (OSError, AttributeError):
        fd, path = tempfile.mkstemp()
        os.unlink(path)
        return fd


def _no_passphrase() -> str:
    raise BadTls("the key is encrypted; decrypt it first")


def _trust(context: ssl.SSLContext, authorities: bytes) -> None:
    try:
        context.load_verify_locations(cadata=authorities.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise BadTls("the authorities are no valid PEM certificates") from None


class Terminator:
    """A listener's server contexts, one a certificate."""

    def __init__(self, tls: ListenerTls, certificates: Iterable[tuple[str, Certificate]], alpn: Sequence[str]) -> None:
        self._exact: dict[str, ServerContext] = {}
        self._wild: dict[str, ServerContext] = {}
        self._first: ServerContext | None = None
        for name, certificate in certificates:
            try:
                self._add(_server(tls, certificate, alpn), names_of(certificate.chain))
            except BadTls as error:
                raise BadTls(f"certificate '{name}': {error}") from None
        if self._first is None:
            raise BadTls("tls: no certificate is given")

    def _add(self, context: ServerContext, names: Sequence[str]) -> None:
        self._first = self._first or context
        for name in names:
            if name.startswith("*."):
                self._wild.setdefault(name[1:], context)
            else:
                self._exact.setdefault(name, context)

    def context(self, server_name: str) -> ServerContext:
        """Return the context for the name that a client asks for, the first where none fits."""
        found = self._exact.get(server_name)
        if found is None:
            dot = server_name.find(".")
            found = self._wild.get(server_name[dot:]) if dot > 0 else None
        found = found or self._first
        assert found is not None  # noqa: S101
        return found


def _server(tls: ListenerTls, certificate: Certificate, alpn: Sequence[str]) -> ServerContext:
    if tls.client_ca and not tls.is_client_checked:
        from pilothouse.traffic.plane.asking import AskingContext  # noqa: PLC0415  # pyOpenSSL only where it is needed

        try:
            return AskingContext(certificate, tls.client_ca, alpn)
        except (ValueError, TypeError) as error:
            raise BadTls(str(error)) from None
    context = _base(ssl.PROTOCOL_TLS_SERVER, alpn)
    _load(context, certificate)
    if tls.client_ca:
        _trust(context, tls.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if tls.is_client_required else ssl.CERT_OPTIONAL
    return context


def connector(tls: BackendTls, certificate: Certificate | None, alpn: Sequence[str]) -> BackendConnector:
    """Return how a backend is reached by TLS. Raises BadTls."""
    context = _base(ssl.PROTOCOL_TLS_CLIENT, alpn)
    if tls.ca:
        _trust(context, tls.ca)
    else:
        context.load_default_certs()
    if certificate is not None:
        _load(context, certificate)
    return BackendConnector(context, tls.hostname, tls.names)
