"""TLS for every server and client: a small certificate authority, contexts with safe settings, and reload."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.files import FileSystem, OsFileSystem, write_whole
from pilothouse.foundation.ids import Ids, SystemIds

__all__ = [
    "Credentials",
    "ReloadingContext",
    "TlsError",
    "client_context",
    "issue",
    "make_ca",
    "server_context",
    "write",
]

_SKEW = timedelta(minutes=5)


class TlsError(Exception):
    """A certificate, key or CA cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A certificate (for an issued one without its CA's) and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Credentials({len(self.certificate)} bytes of certificate, key=***)"


def make_ca(name: str, *, days: int = 3650, clock: Clock | None = None, ids: Ids | None = None) -> Credentials:
    """Make a self-signed certificate authority (ECDSA P-256) that signs end certificates only."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = _key_usage(certificates=True)
    builder = _builder(subject, subject, key.public_key(), days, clock, ids)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Credentials(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key))


def issue(  # noqa: PLR0913  # a certificate has this many fields, and all but two have a default
    ca: Credentials,
    name: str,
    *,
    hosts: Sequence[str] = (),
    organizations: Sequence[str] = (),
    server: bool = False,
    client: bool = False,
    days: int = 365,
    clock: Clock | None = None,
    ids: Ids | None = None,
) -> Credentials:
    """Issue a certificate signed by `ca` for a server, a client or both.

    `hosts` are the DNS names and IP addresses of the subject alternative name; a server needs at least one.
    `organizations` become the subject's O fields, which Kubernetes reads as groups. It is valid for `days`, never
    longer than the CA. Raises `TlsError` for a wrong CA or field. Follows RFC 5280.
    """
    if not (server or client):
        raise TlsError(f"certificate '{name}': no usage; pass server=True, client=True or both")
    if server and not hosts:
        raise TlsError(f"certificate '{name}': hosts is empty; a server certificate needs its DNS names or addresses")
    ca_certificate, ca_key = _load_ca(ca)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization) for organization in organizations]
        + [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    )
    builder = _builder(subject, ca_certificate.subject, key.public_key(), days, clock, ids, ca_certificate)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(certificates=False), critical=True)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
    builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
    )
    if hosts:
        names = [_general_name(host) for host in hosts]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Credentials(_pem(builder.sign(ca_key, hashes.SHA256())), _key_pem(key))


def write(credentials: Credentials, certificate: str, key: str, files: FileSystem | None = None) -> None:
    """Write both files whole or not at all, durably; the key (0600) first, so a certificate never lacks its key."""
    files = files or OsFileSystem()
    _write_whole(files, key, credentials.key, 0o600)
    _write_whole(files, certificate, credentials.certificate, 0o644)


def server_context(
    certificate: str,
    key: str,
    *,
    client_ca: str | None = None,
    client_required: bool = True,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """Return a server's context: TLS 1.2 or newer, the protocols `alpn` in order of preference.

    With `client_ca` (a file) clients must show a certificate of it, or may where `client_required` is False.
    Raises `TlsError`.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, alpn)
    _load_pair(context, certificate, key)
    if client_ca is not None:
        _load_authorities(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED if client_required else ssl.CERT_OPTIONAL
    return context


def client_context(
    *,
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    alpn: Sequence[str] = (),
) -> ssl.SSLContext:
    """Return a client's context: TLS 1.2 or newer, host names checked, authorities from `ca` or the system.

    Pass the name to check as `server_hostname` of the connection. Raises `TlsError`.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, alpn)
    if ca is None:
        context.load_default_certs()
    else:
        _load_authorities(context, ca)
    if (certificate is None) != (key is None):
        missing = "key" if key is None else "certificate"
        raise TlsError(f"{missing}: not given; a client certificate needs both its certificate and its key file")
    if certificate is not None and key is not None:
        _load_pair(context, certificate, key)
    return context


class ReloadingContext:
    """A server context that takes up renewed files; connections made before keep what they have.

    New authorities are added to `client_ca`'s; to distrust an old one, restart.
    """

    def __init__(
        self,
        certificate: str,
        key: str,
        *,
        client_ca: str | None = None,
        client_required: bool = True,
        alpn: Sequence[str] = (),
    ) -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._seen = self._stamp()
        self.context = server_context(certificate, key, client_ca=client_ca, client_required=client_required, alpn=alpn)

    def reload_if_changed(self) -> bool:
        """Load the files if they changed; return whether they did.

        Raises `TlsError` where they cannot be used; the context then goes on with the old ones, and the next call
        tries again.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        # A pair that does not match would leave the live context half loaded, so it is tried elsewhere first.
        server_context(self._certificate, self._key, client_ca=self._client_ca)
        _load_pair(self.context, self._certificate, self._key)
        if self._client_ca is not None:
            _load_authorities(self.context, self._client_ca)
        self._seen = stamp
        return True

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_file_stamp(path) for path in (self._certificate, self._key, self._client_ca))


def _file_stamp(path: str | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _context(protocol: int, alpn: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _no_passphrase() -> str:
    raise TlsError("is encrypted; decrypt it first, e.g. `openssl pkey -in KEY -out PLAIN`")


def _load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    _readable("certificate", certificate)
    _readable("key", key)
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except TlsError as error:
        raise TlsError(f"key file {key}: {error}") from None
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(_blame(certificate, key, error)) from error


def _blame(certificate: str, key: str, error: Exception) -> str:
    if "KEY_VALUES_MISMATCH" in str(error):
        return f"key file {key}: does not belong to certificate file {certificate}"
    with open(certificate, "rb") as file:
        try:
            x509.load_pem_x509_certificates(file.read())
        except ValueError:
            return f"certificate file {certificate}: holds no valid PEM certificate"
    return f"key file {key}: cannot be used with certificate file {certificate}: {error}"


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    _readable("ca", path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise TlsError(f"ca file {path}: holds no valid PEM certificate") from error


def _readable(field: str, path: str) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise TlsError(f"{field} file {path}: {error.strerror}") from error


def _load_ca(ca: Credentials) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(ca.certificate)
        key = serialization.load_pem_private_key(ca.key, None)
    except (ValueError, TypeError) as error:
        raise TlsError(f"ca: certificate or key is not valid PEM: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TlsError("ca: the key is not an elliptic-curve key; make the CA with make_ca")
    if key.public_key() != certificate.public_key():
        raise TlsError("ca: the key does not belong to the certificate")
    return certificate, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    clock: Clock | None,
    ids: Ids | None,
    ca: x509.Certificate | None = None,
) -> x509.CertificateBuilder:
    now = (clock or SystemClock()).now().replace(microsecond=0)
    start, end = now - _SKEW, now + timedelta(days=days)
    if ca is not None:
        start, end = max(start, ca.not_valid_before_utc), min(end, ca.not_valid_after_utc)
    if end <= start:
        raise TlsError(f"certificate for {subject.rfc4514_string()}: would end {end} before it starts; renew the CA")
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public_key)
    return builder.serial_number((ids or SystemIds()).int63()).not_valid_before(start).not_valid_after(end)


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=certificates,
        crl_sign=certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise TlsError(f"hosts: '{host}' is neither an address nor an ASCII DNS name") from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_whole(files: FileSystem, path: str, data: bytes, mode: int) -> None:
    try:
        write_whole(files, path, data, mode)
    except OSError as error:
        raise TlsError(f"file {path}: cannot be written: {error.strerror}") from error
