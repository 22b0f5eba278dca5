"""Where webhook certificates come from: a Secret that all copies of an operator share, or a directory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from pilothouse.client import Client
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.tls import Credentials
from pilothouse.kinds.status import AlreadyExists, ApiStatus, Conflict, NotFound, Unauthorized
from pilothouse.kinds.status import Forbidden as ForbiddenStatus
from pilothouse.kinds.structs import ObjectMeta, Secret, replace

from .certificates import CertificateError, CertificatePolicy, Certificates, fault, plan, wait_seconds

__all__ = ["CertificateSource", "DirectoryCertificates", "Material", "SecretCertificates"]

_TRIES: Final = 8
_LOOK_SECONDS: Final = 10.0
_MAX_FILE: Final = 1 << 20
_LABELS: Final = {"app.kubernetes.io/managed-by": "pilothouse"}

_log = get_logger("pilothouse.operator.certificates")


class Material(NamedTuple):
    """What to serve with, what servers have to trust (empty where that is not known), and when to look again."""

    serving: Credentials
    bundle: bytes
    look_seconds: float


class CertificateSource(Protocol):
    """Gives certificates, renewed where that is ours to do."""

    async def refresh(self, *, trusted: bool) -> Material:
        """Return what to serve with now. trusted: whether servers have the bundle. Raises CertificateError."""


class SecretCertificates:
    """Certificates of our own in a Secret. Whoever writes first wins; the others read what was written."""

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        *,
        hosts: Sequence[str],
        policy: CertificatePolicy,
        clock: Clock,
        ids: Ids | None = None,
    ) -> None:
        self.namespace: Final = namespace
        self.name: Final = name
        self.writes = 0
        """How often this copy was the one that wrote."""
        self._client = client
        self._hosts = tuple(hosts)
        self._policy = policy
        self._clock = clock
        self._ids = ids

    async def refresh(self, *, trusted: bool) -> Material:
        for _ in range(_TRIES):
            with contextlib.suppress(Conflict, AlreadyExists, NotFound):
                found = await self._once(trusted=trusted)
                return Material(found.serving, found.bundle, wait_seconds(found, self._policy, self._clock.now()))
        raise CertificateError(f"{self}: others change it again and again; see who else writes it")

    def __str__(self) -> str:
        return f"Secret {self.namespace}/{self.name}"

    async def _once(self, *, trusted: bool) -> Certificates:
        secret = await self._read()
        try:
            found = None if secret is None else Certificates.of_secret(secret.data)
        except CertificateError as error:
            raise CertificateError(f"{self}: {error}") from None
        planned = plan(found, self._hosts, self._policy, self._clock, name=self.name, trusted=trusted, ids=self._ids)
        if planned.why or found is None:
            await self._write(secret, planned.certificates)
            self.writes += 1
            _log.info("webhook certificates written", secret=f"{self.namespace}/{self.name}", why=planned.why)
        return planned.certificates

    async def _read(self) -> Secret | None:
        try:
            return await self._client.get(Secret, self.name, self.namespace)
        except NotFound:
            return None
        except (ForbiddenStatus, Unauthorized) as error:
            raise self._not_allowed(error, "get, list and watch") from None

    async def _write(self, secret: Secret | None, made: Certificates) -> None:
        data = made.secret_data()
        try:
            if secret is None:
                metadata = ObjectMeta(name=self.name, namespace=self.namespace, labels=dict(_LABELS))
                await self._client.create(Secret(metadata=metadata, type="kubernetes.io/tls", data=data))
            else:
                # With the version that was read: where another copy was faster, this one reads what that wrote.
                await self._client.update(replace(secret, data={**secret.data, **data}))
        except (ForbiddenStatus, Unauthorized) as error:
            raise self._not_allowed(error, "create and update") from None
        except NotFound as error:
            if secret is None:
                raise CertificateError(f"{self}: cannot be created ({error.message}); create the namespace") from None
            raise

    def _not_allowed(self, error: ApiStatus, verbs: str) -> CertificateError:
        return CertificateError(
            f"{self}: {error.message}; grant {verbs} of secrets in namespace {self.namespace} to the operator, or give "
            "it certificates by certificate_dir"
        )


class DirectoryCertificates:
    """Certificates that somebody else puts into a directory and renews there, such as a mounted Secret."""

    def __init__(self, directory: str, *, hosts: Sequence[str], clock: Clock) -> None:
        self._directory = Path(directory)
        self._hosts = tuple(hosts)
        self._clock = clock

    def __str__(self) -> str:
        return f"certificate directory {self._directory}"

    async def refresh(self, *, trusted: bool) -> Material:
        certificate, key, bundle = await asyncio.to_thread(self._read_all)
        serving = Credentials(certificate, key)
        if problem := fault(serving, self._hosts, self._clock.now()):
            raise CertificateError(
                f"{self}: {problem}; renew tls.crt and tls.key there, both of one pair and for {', '.join(self._hosts)}"
            )
        return Material(serving, bundle, _LOOK_SECONDS)

    def _read_all(self) -> tuple[bytes, bytes, bytes]:
        return self._read("tls.crt"), self._read("tls.key"), self._read("ca.crt", needed=False)

    def _read(self, name: str, *, needed: bool = True) -> bytes:
        try:
            with open(self._directory / name, "rb") as file:
                return file.read(_MAX_FILE)
        except OSError as error:
            if not needed:
                return b""
            raise CertificateError(
                f"{self}: {name} cannot be read ({error.strerror}); mount the Secret with tls.crt and tls.key there, "
                "as cert-manager issues it, or leave out certificate_dir for certificates of the operator's own"
            ) from None
