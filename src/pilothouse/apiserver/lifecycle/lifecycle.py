"""The controllers of lives put together: garbage, namespaces, accounts, certificates."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pilothouse.apiserver.access.csr import CsrSigner
from pilothouse.apiserver.access.csrcontroller import CertificateSigning
from pilothouse.apiserver.lifecycle.accounts import Accounts
from pilothouse.apiserver.lifecycle.calls import caller
from pilothouse.apiserver.lifecycle.collector import GarbageCollector
from pilothouse.apiserver.lifecycle.foreign import ForeignContent
from pilothouse.apiserver.lifecycle.namespaces import NamespaceDeletion
from pilothouse.apiserver.lifecycle.resources import Resources
from pilothouse.foundation.tls import Credentials

if TYPE_CHECKING:
    from pilothouse.apiserver.server import ApiServer

__all__ = ["Lifecycle"]


class Lifecycle:
    """Garbage collection, namespace deletion, what every namespace has and signing, for a started server.

    ca: the cluster's CA, PEM, published into all namespaces and tokens; empty where there is none to publish.
    """

    def __init__(self, server: ApiServer, ca: bytes = b"") -> None:
        options, handler = server.options, server.handle
        clock, ids = options.clock, options.ids
        foreign = ForeignContent(server.view, handler, lambda: server.elsewhere.versions)
        self._resources = Resources(server.catalogue)
        self.collector = GarbageCollector(self._resources, caller(handler, "generic-garbage-collector"), clock, ids)
        self.namespaces = NamespaceDeletion(
            self._resources, server.view, server.cacher, caller(handler, "namespace-controller"), clock, foreign
        )
        self.accounts = Accounts(server.view, server.cacher, handler, server.accounts, ca, clock)
        self._clock = clock
        signer = CsrSigner(server.pki.authority(), clock=clock)
        self._signing = CertificateSigning(server.view, server.local, signer, clock=clock)
        self._signer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look at all that is there, and follow what changes. Needs nothing of the loop while nothing changes."""
        self.collector.start()
        self.namespaces.start()
        self.accounts.start()
        self._signer = asyncio.get_running_loop().create_task(self._signing.run(), name="signing of certificates")

    def publish(self, ca: bytes) -> None:
        """Have another CA (PEM) than before: in all namespaces and in secrets with tokens."""
        self.accounts.publish(ca)

    def sign_with(self, authority: Credentials) -> None:
        """Sign certificates with another authority than before."""
        self._signing.replace_signer(CsrSigner(authority, clock=self._clock))

    async def close(self) -> None:
        """Stop all of it."""
        if self._signer is not None:
            self._signer.cancel()
            await asyncio.gather(self._signer, return_exceptions=True)
        self._resources.close()
        await self.accounts.close()
        await self.namespaces.close()
        await self.collector.close()
