"""The certificate of a node's server: made with the cluster's CA where that is at hand, else asked for; renewed."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pilothouse.client import Client, ClientError
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.files import OsFileSystem, write_whole
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import CertificateSigningRequest, ObjectMeta, to_dict
from pilothouse.kinds.structs.certificates import CertificateSigningRequestSpec

__all__ = ["NodeKeys"]

_log = get_logger(__name__)
_SIGNER: Final = "kubernetes.io/kubelet-serving"
_WAIT_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.2
_CHECK_SECONDS: Final = 600.0
_RENEW_AT: Final = 1 / 3


class NodeKeys:
    """The keys of one node in a directory: `kubelet.crt`, `kubelet.key`, `client-ca.crt`.

    hosts: the node's names and addresses. client_ca: authorities of those who may show certificates, PEM. authority:
    the cluster's CA with its key, None where it is elsewhere: then the server begins with a certificate that nobody
    signed, and `run` asks for one by a CertificateSigningRequest. Clusters approve those of the node's own user by
    themselves; approve: do it with this client's rights, for an agent that an administrator runs.
    """

    def __init__(  # noqa: PLR0913  # what a certificate needs
        self,
        client: Client,
        node: str,
        hosts: Sequence[str],
        directory: str,
        *,
        client_ca: bytes,
        authority: tls.Credentials | None = None,
        approve: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._client = client
        self._node = node
        self._hosts = list(dict.fromkeys((*hosts, node)))
        self._authority = authority
        self._approve = approve
        self._clock = clock or SystemClock()
        self._paths = {name: os.path.join(directory, name) for name in ("kubelet.crt", "kubelet.key", "client-ca.crt")}
        files = OsFileSystem()
        files.makedirs(directory, 0o700)
        write_whole(files, self._paths["client-ca.crt"], client_ca, 0o644)
        self._context: tls.ReloadingContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Make what is missing and return the server's settings. Raises TlsError, OSError."""
        if not self._is_good():
            self._make()
        self._context = tls.ReloadingContext(
            self._paths["kubelet.crt"],
            self._paths["kubelet.key"],
            client_ca=self._paths["client-ca.crt"],
            client_required=False,
        )
        return self._context.context

    async def run(self) -> None:
        """Renew what ends soon, until cancelled."""
        while True:
            try:
                await self._renew()
            except (tls.TlsError, OSError) as error:
                _log.warning("the node's certificate is not renewed yet", reason=str(error))
            await self._clock.sleep(_CHECK_SECONDS)

    async def _renew(self) -> None:
        if self._authority is None and (not self._is_good() or self._is_own()):
            made = await self._asked(f"system:node:{self._node}")
            if made is not None:
                self._write(made)
            else:
                _log.warning(
                    "nobody signed this node's certificate: an API server that verifies it gets no logs from here",
                    node=self._node,
                    way_out="approve its CertificateSigningRequest, and run the agent as the node's own user",
                )
        if not self._is_good():
            self._make()
        if self._context is not None:
            self._context.reload_if_changed()

    def _is_good(self) -> bool:
        try:
            with open(self._paths["kubelet.crt"], "rb") as file:
                found = x509.load_pem_x509_certificate(file.read())
            with open(self._paths["kubelet.key"], "rb") as file:
                key = serialization.load_pem_private_key(file.read(), None)
            names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
            return False
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
        known = {str(name.value) for name in names}
        return (
            set(self._hosts) <= known
            and key.public_key() == found.public_key()
            and self._is_young(begins, ends)
            and (self._authority is None or not self._is_own())
        )

    def _is_young(self, begins: datetime, ends: datetime) -> bool:
        return ends - self._clock.now() > (ends - begins) * _RENEW_AT

    def _is_own(self) -> bool:
        with open(self._paths["kubelet.crt"], "rb") as file:
            issuer = x509.load_pem_x509_certificate(file.read()).issuer
        return any(each.value == self._own_ca for each in issuer.get_attributes_for_oid(NameOID.COMMON_NAME))

    @property
    def _own_ca(self) -> str:
        return f"{self._node}-ca"

    def _make(self) -> None:
        self._write(
            tls.issue(
                self._authority or tls.make_ca(self._own_ca),
                f"system:node:{self._node}",
                hosts=self._hosts,
                organizations=["system:nodes"],
                server=True,
                clock=self._clock,
            )
        )

    def _write(self, made: tls.Credentials) -> None:
        tls.write(made, self._paths["kubelet.crt"], self._paths["kubelet.key"])

    async def _asked(self, name: str) -> tls.Credentials | None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        names = x509.SubjectAlternativeName([_general_name(host) for host in self._hosts])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        request = CertificateSigningRequest(
            metadata=ObjectMeta(generate_name="csr-"),
            spec=CertificateSigningRequestSpec(
                request=pem, signer_name=_SIGNER, usages=("digital signature", "server auth")
            ),
        )
        try:
            made = await self._client.create(request)
            if self._approve:
                await self._approved(made)
            certificate = await self._signed(made.metadata.name)
        except (ApiStatus, ClientError, OSError) as error:
            _log.info("the node's certificate could not be asked for", reason=str(error))
            return None
        if not certificate:
            return None
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return tls.Credentials(certificate, private)

    async def _approved(self, request: CertificateSigningRequest) -> None:
        name = request.metadata.name
        reason = {"reason": "NodeAgent", "message": "The node's agent may approve it, and asked for it itself."}
        body = to_dict(request) | {"status": {"conditions": [{"type": "Approved", "status": "True", **reason}]}}
        path = f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{name}/approval"
        try:
            await self._client.request("PUT", path, msgspec.json.encode(body))
        except ApiStatus as error:
            _log.info("the node's request for a certificate waits for somebody's approval", reason=error.message)

    async def _signed(self, name: str) -> bytes:
        end = self._clock.monotonic() + _WAIT_SECONDS
        while self._clock.monotonic() < end:
            found = await self._client.get(CertificateSigningRequest, name)
            if found.status.certificate:
                return bytes(found.status.certificate)
            if any(each.type in {"Denied", "Failed"} for each in found.status.conditions):
                return b""
            await self._clock.sleep(_LOOK_SECONDS)
        return b""


def _general_name(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)
