"""The cluster's keys: made on first start, renewed before they end, exchanged without an interruption."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pilothouse.apiserver.access.signing import KeyRing, SigningKeyError, new_key
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.files import FileSystem, OsFileSystem, write_whole
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.logs import get_logger

__all__ = ["ADMIN", "KEY_MODE", "SERVICE_ADDRESS", "SERVICE_NAMES", "ClientName", "Pki", "PkiError"]

_log = get_logger(__name__)

SERVICE_ADDRESS: Final = "10.96.0.1"
"""Where the service `kubernetes` is in the cluster."""
SERVICE_NAMES: Final = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
KEY_MODE: Final = 0o600
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_PUBLIC_MODE: Final = 0o644
_DIRECTORY_MODE: Final = 0o700
_RENEW_AT: Final = 1 / 3
"""What is left of a certificate's life when it is renewed."""
_CHECK_EVERY: Final = 6 * 3600.0
"""Seconds between looks at what ends soon."""
_WARN_DAYS: Final = 180
"""Days before the end of an authority from which on each start warns of it."""


class PkiError(Exception):
    """The cluster's keys cannot be used; the message names the file, what is wrong and the way out."""


@dataclass(frozen=True, slots=True)
class ClientName:
    """A client that has a certificate of its own: the file's name without `.crt`, its user and its groups."""

    file: str
    common_name: str
    organizations: tuple[str, ...] = ()


ADMIN: Final = ClientName("admin", "kubernetes-admin", ("system:masters",))


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A certificate that is made here: of which authority, for whom."""

    file: str
    authority: str
    common_name: str
    organizations: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    optional: bool = False
    """Whether a server works without it, as where somebody else has the CA's key and made none."""
    exact: bool = False
    """Whether one of another name is made anew: what this machine is called may change."""


class Pki:
    """The keys in a directory, by the names that kubeadm gives them.

    `ca` signs the serving certificate `apiserver`, the clients' `admin` and `apiserver-kubelet-client`, by which nodes
    know this server; `front-proxy-ca` signs `front-proxy-client`; `sa.key` signs tokens and `sa.pub` has all keys whose
    tokens are good. `*.crt` of an authority may hold several, the signing one among them. A CA without its key is
    somebody else's: what it signed is used and not renewed here.

    hosts: names and addresses under which the server is reached, besides those of the service and this machine.
    service_address: where the service `kubernetes` is in the cluster. clients: programs of the platform itself that
    have certificates here too; a server whose CA is somebody else's works without them.
    """

    def __init__(
        self,
        directory: str,
        hosts: Sequence[str] = (),
        *,
        service_address: str = SERVICE_ADDRESS,
        clients: Sequence[ClientName] = (),
        clock: Clock | None = None,
        ids: Ids | None = None,
        files: FileSystem | None = None,
    ) -> None:
        self.directory: Final = directory
        self._clock = clock or SystemClock()
        self._ids = ids or SystemIds()
        self._files = files or OsFileSystem()
        names = dict.fromkeys(map(_canonical, (*hosts, *_LOCAL, *SERVICE_NAMES, service_address)))
        self._leaves = (
            _Leaf("apiserver", "ca", "kube-apiserver", hosts=tuple(names)),
            _Leaf(ADMIN.file, "ca", ADMIN.common_name, ADMIN.organizations),
            _Leaf("front-proxy-client", "front-proxy-ca", "front-proxy-client"),
            _Leaf(
                "apiserver-kubelet-client", "ca", "kube-apiserver-kubelet-client", ("system:masters",), optional=True
            ),
            *(
                _Leaf(each.file, "ca", each.common_name, each.organizations, optional=True, exact=True)
                for each in clients
            ),
        )

    def path(self, name: str) -> str:
        """Return the path of a file of the directory (`ca.crt`, `apiserver.key`, `sa.pub`)."""
        return os.path.join(self.directory, name)

    def read(self, name: str) -> bytes:
        """Return a file of the directory. Raises PkiError."""
        found = self._read(name)
        if found is None:
            raise PkiError(
                f"{self.path(name)}: is missing; start the server once, or copy the file from another server"
            )
        return found

    def ensure(self) -> list[str]:
        """Make what is missing and renew what ends soon; return the names of certificates and keys that are new.

        Raises PkiError.
        """
        try:
            self._files.makedirs(self.directory, _DIRECTORY_MODE)
            made = [name for name in ("ca", "front-proxy-ca") if self._ensure_authority(name)]
            made += self._ensure_signing()
            made += [leaf.file for leaf in self._leaves if self._ensure_leaf(leaf)]
        except tls.TlsError as error:
            raise PkiError(f"{self.directory}: {error}") from error
        except OSError as error:
            raise PkiError(f"{error.filename or self.directory}: {error.strerror}") from error
        return made

    def key_ring(self) -> KeyRing:
        """Return the keys of service-account tokens. Raises PkiError."""
        try:
            return KeyRing(self.read("sa.key"), [self.read("sa.pub")])
        except SigningKeyError as error:
            raise PkiError(f"{self.path('sa.key')}: {error}") from error

    def client(self, name: str) -> tls.Credentials:
        """Return the certificate and key of a client (`admin`, or one of `clients`). Raises PkiError."""
        return tls.Credentials(self.read(f"{name}.crt"), self.read(f"{name}.key"))

    def authority(self, name: str = "ca") -> tls.Credentials:
        """Return the certificate of an authority that belongs to its key, and the key. Raises PkiError."""
        found = self._authority(name)
        if found is None:
            raise PkiError(f"{self.path(name + '.key')}: is missing; what this CA signs cannot be signed here")
        return found

    async def run(self, renewed: Callable[[Sequence[str]], None]) -> None:
        """Renew what ends soon, until cancelled, and tell the names of what is new.

        `renewed` has the serving contexts look for new files (`ReloadingContext`), and kubeconfigs written.
        """
        while True:
            await self._clock.sleep(_CHECK_EVERY)
            try:
                made = self.ensure()
            except PkiError as error:
                _log.error("certificates could not be renewed; it is tried again", error=str(error))
                continue
            if made:
                _log.info("certificates were renewed", names=made)
                renewed(made)

    def rotate_ca(self, name: str = "ca") -> str:
        """Take the next step of exchanging an authority, and return what it was: `announced`, `switched`.

        The first call makes the next authority and has it trusted beside the present one. When all clients have the
        new `ca.crt` (kubeconfigs, `kube-root-ca.crt`), the second has it sign: all certificates made here are made
        anew, those signed before stay good. When those of others have been renewed too, `retire_ca` ends the trust.
        A step that is interrupted is taken again by the next call or start. Raises PkiError.
        """
        present, upcoming = self.authority(name), self._read(f"{name}-next.crt")
        bundle = self.read(f"{name}.crt")
        if upcoming is None or self._read(f"{name}-next.key") is None:
            fresh = tls.make_ca(_title(name), clock=self._clock, ids=self._ids)
            tls.write(fresh, self.path(f"{name}-next.crt"), self.path(f"{name}-next.key"), self._files)
            upcoming = fresh.certificate
        if upcoming not in bundle:
            self._write(f"{name}.crt", _joined(present.certificate, upcoming, bundle), _PUBLIC_MODE)
            return "announced"
        key = self.read(f"{name}-next.key")
        # the new certificate is trusted already, so that either key finds its own in the bundle
        self._write(f"{name}.crt", _joined(upcoming, bundle), _PUBLIC_MODE)
        self._write(f"{name}.key", key, KEY_MODE)
        for suffix in (".crt", ".key"):
            self._files.unlink(self.path(f"{name}-next{suffix}"))
        self.ensure()
        return "switched"

    def retire_ca(self, name: str = "ca") -> None:
        """End the trust in all authorities but the one that signs. Raises PkiError while the next one is announced."""
        if self._read(f"{name}-next.crt") is not None:
            raise PkiError(f"{self.path(name + '-next.crt')}: is announced and does not sign yet; call rotate_ca first")
        self._write(f"{name}.crt", self.authority(name).certificate, _PUBLIC_MODE)

    def rotate_signing_key(self) -> None:
        """Have another key sign tokens; those signed before stay good until `retire_signing_keys`.

        Other servers of the cluster need the new `sa.pub` before they see such tokens. Raises PkiError.
        """
        key = new_key()
        self._write("sa.pub", _public(key) + self.read("sa.pub"), _PUBLIC_MODE)
        self._write("sa.key", key, KEY_MODE)

    def retire_signing_keys(self) -> None:
        """Make all tokens bad that other keys than the present one signed. Raises PkiError."""
        self._write("sa.pub", _public(self.read("sa.key")), _PUBLIC_MODE)

    def _ensure_authority(self, name: str) -> bool:
        certificate, key = self._read(f"{name}.crt"), self._read(f"{name}.key")
        if certificate is None:
            # without certificate nothing can have been signed yet
            self._check_unused(name)
            fresh = tls.make_ca(_title(name), clock=self._clock, ids=self._ids)
            tls.write(fresh, self.path(f"{name}.crt"), self.path(f"{name}.key"), self._files)
            return True
        if key is not None:
            self._warn_of_end(name, _load(self.authority(name).certificate, self.path(f"{name}.crt")))
        return False

    def _check_unused(self, name: str) -> None:
        orphans = [leaf.file for leaf in self._leaves if leaf.authority == name and self._read(f"{leaf.file}.crt")]
        if orphans:
            raise PkiError(
                f"{self.path(name + '.crt')}: is missing, but {orphans[0]}.crt is there, which it signed; "
                "restore it, or remove the whole directory to begin anew"
            )

    def _warn_of_end(self, name: str, certificate: x509.Certificate) -> None:
        left = (certificate.not_valid_after_utc - self._clock.now()).days
        if left < _WARN_DAYS:
            _log.warning("an authority ends soon; rotate it", authority=name, days_left=left)

    def _ensure_signing(self) -> list[str]:
        key, public = self._read("sa.key"), self._read("sa.pub")
        fresh = key is None
        if key is None:
            if public is not None:
                raise PkiError(f"{self.path('sa.key')}: is missing, but not sa.pub; restore it, or remove sa.pub too")
            key = new_key()
            self._write("sa.key", key, KEY_MODE)
        own = _public(key)
        if public is None or own.strip() not in public:
            self._write("sa.pub", own + (public or b""), _PUBLIC_MODE)
        return ["sa"] if fresh else []

    def _ensure_leaf(self, leaf: _Leaf) -> bool:
        authority = self._authority(leaf.authority)
        why = self._outdated(leaf, authority)
        if not why:
            return False
        if authority is None:
            if self._read(f"{leaf.file}.crt") is not None:
                _log.warning("a certificate is to be renewed by those who have the CA's key", file=leaf.file, why=why)
                return False
            if leaf.optional:
                return False
            raise PkiError(
                f"{self.path(leaf.file + '.crt')}: {why}, and without {leaf.authority}.key it cannot be made here; "
                "copy certificate and key from where the CA is"
            )
        server = bool(leaf.hosts)
        made = tls.issue(
            authority,
            leaf.common_name,
            hosts=leaf.hosts,
            organizations=leaf.organizations,
            server=server,
            client=not server,
            clock=self._clock,
            ids=self._ids,
        )
        tls.write(made, self.path(f"{leaf.file}.crt"), self.path(f"{leaf.file}.key"), self._files)
        return True

    def _outdated(self, leaf: _Leaf, authority: tls.Credentials | None) -> str:
        """Say why a certificate has to be made, empty where it need not be."""
        pem, key = self._read(f"{leaf.file}.crt"), self._read(f"{leaf.file}.key")
        if pem is None or key is None:
            return "is missing"
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            belongs = serialization.load_pem_private_key(key, None).public_key() == certificate.public_key()
        except (ValueError, TypeError):
            return "cannot be read"
        if not belongs:
            return "does not belong to its key"
        if _ending(certificate, self._clock.now()):
            return "ends soon"
        if authority is not None and not _issued(certificate, authority):
            return "is signed by another CA"
        if leaf.exact and _common_name(certificate) != leaf.common_name:
            return "is of another name"
        missing = set(leaf.hosts) - _hosts(certificate)
        return f"lacks the name {min(missing)}" if missing else ""

    def _authority(self, name: str) -> tls.Credentials | None:
        """Return the certificate of a bundle that belongs to the key, None where there is no key."""
        key = self._read(f"{name}.key")
        if key is None:
            return None
        path = self.path(f"{name}.crt")
        try:
            public = serialization.load_pem_private_key(key, None).public_key()
        except (ValueError, TypeError) as error:
            raise PkiError(f"{self.path(name + '.key')}: is no unencrypted PEM private key") from error
        for certificate in _load_all(self.read(f"{name}.crt"), path):
            if certificate.public_key() == public:
                return tls.Credentials(certificate.public_bytes(serialization.Encoding.PEM), key)
        raise PkiError(f"{path}: no certificate in it belongs to {name}.key; restore both from one backup")

    def _read(self, name: str) -> bytes | None:
        path = self.path(name)
        if not self._files.exists(path):
            return None
        fd = self._files.open(path, os.O_RDONLY)
        try:
            return self._files.pread(fd, self._files.size(fd), 0)
        finally:
            self._files.close(fd)

    def _write(self, name: str, data: bytes, mode: int) -> None:
        try:
            write_whole(self._files, self.path(name), data, mode)
        except OSError as error:
            raise PkiError(f"{self.path(name)}: cannot be written: {error.strerror}") from error


def _canonical(host: str) -> str:
    """Write an address as certificates tell it, and a name in lower case, so that both can be compared."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _title(name: str) -> str:
    return "kubernetes" if name == "ca" else name


def _load_all(pem: bytes, path: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise PkiError(f"{path}: holds no valid PEM certificate; restore it from a backup") from error


def _load(pem: bytes, path: str) -> x509.Certificate:
    return _load_all(pem, path)[0]


def _joined(*bundles: bytes) -> bytes:
    """Join certificates, each once, the first of them first."""
    pems = (
        certificate.public_bytes(serialization.Encoding.PEM)
        for bundle in bundles
        for certificate in x509.load_pem_x509_certificates(bundle)
    )
    return b"".join(dict.fromkeys(pems))


def _public(key: bytes) -> bytes:
    try:
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError) as error:
        raise PkiError("sa.key: is no unencrypted PEM private key; restore it from a backup") from error
    return private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _ending(certificate: x509.Certificate, now: datetime) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life * _RENEW_AT


def _issued(certificate: x509.Certificate, authority: tls.Credentials) -> bool:
    try:
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate))
    except Exception:  # noqa: BLE001  # whatever is wrong with it, another one is made
        return False
    return True


def _common_name(certificate: x509.Certificate) -> str:
    return "".join(str(each.value) for each in certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))


def _hosts(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
