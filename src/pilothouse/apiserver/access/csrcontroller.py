"""Signs certificate requests as soon as they are approved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from pilothouse.apiserver.access.csr import CsrSigner
from pilothouse.apiserver.ports import Local, View
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import ApiStatus, NotFound

__all__ = ["RESOURCE", "CertificateSigning"]

_log = get_logger(__name__)

RESOURCE: Final = "certificatesigningrequests.certificates.k8s.io"
_PATH: Final = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_RETRY: Final = 1.0
"""Seconds after which what could not be written is tried again."""


class CertificateSigning:
    """Follows CertificateSigningRequests for as long as `run` runs, and writes what the signer makes of them.

    replace_signer: signs with another CA from then on, as after one was exchanged.
    """

    def __init__(self, view: View, local: Local, signer: CsrSigner, *, clock: Clock | None = None) -> None:
        self._view = view
        self._local = local
        self._signer = signer
        self._clock = clock or SystemClock()
        self._due: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._stop: Callable[[], None] = view.notify(RESOURCE, self._note)
        for request in view.list(RESOURCE):
            self._note("", request["metadata"]["name"])

    def replace_signer(self, signer: CsrSigner) -> None:
        """Sign with another CA."""
        self._signer = signer

    def _note(self, namespace: str, name: str) -> None:
        self._due[name] = None
        self._woken.set()

    async def run(self) -> None:
        """Sign what is approved, now and as it comes, until cancelled."""
        try:
            while True:
                await self._woken.wait()
                self._woken.clear()
                if not await self.step():
                    await self._clock.sleep(_RETRY)
                    self._woken.set()
        finally:
            self._stop()

    async def step(self) -> bool:
        """Look at all requests that changed; return whether all writes went well."""
        due, self._due = self._due, {}
        well = True
        for name in due:
            try:
                await self._sign(name)
            except ApiStatus as error:
                well = False
                self._due[name] = None
                _log.info("a certificate request is to be signed again", request=name, error=error.message)
        return well

    async def _sign(self, name: str) -> None:
        request = self._view.get(RESOURCE, "", name)
        answer = None if request is None else self._signer.handle(request)
        if answer is None:
            return
        try:
            await self._local.call("PUT", f"{_PATH}/{name}/status", answer)
        except NotFound:
            return
