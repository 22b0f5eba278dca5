"""The control plane over HTTPS on loopback, with the kubeconfig that leads there."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import tempfile

from pilothouse.apiserver.access.kubeconfig import write_kubeconfig
from pilothouse.apiserver.access.pki import KEY_MODE, Pki
from pilothouse.apiserver.http import HttpServer
from pilothouse.apiserver.model import Handler
from pilothouse.foundation import tls
from pilothouse.foundation.files import OsFileSystem, write_whole

__all__ = ["Serving"]

_HOST = "127.0.0.1"
_GRACE_SECONDS = 1.0


class Serving:
    """Listens from the moment it is made, on a free port; `close` ends it and removes its files.

    Needs a running loop. Connections that come before the loop turns wait in the socket's backlog.
    """

    def __init__(self, handler: Handler, pki: Pki, token: str) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="pilothouse-")
        try:
            self._http = HttpServer(handler, tls=self._context(pki))
            listening = socket.create_server((_HOST, 0), backlog=128)
        except BaseException:
            self._directory.cleanup()
            raise
        self.url = f"https://{_HOST}:{listening.getsockname()[1]}"
        self.kubeconfig = os.path.join(self._directory.name, "kubeconfig")
        write_kubeconfig(self.kubeconfig, self.url, pki.read("ca.crt"), token=token)
        self._starting = asyncio.get_running_loop().create_task(self._http.start(listening=listening))

    def _context(self, pki: Pki) -> ssl.SSLContext:
        # OpenSSL reads certificates from files only, and the keys may be in memory.
        files = OsFileSystem()
        paths = {
            name: os.path.join(self._directory.name, name) for name in ("apiserver.crt", "apiserver.key", "ca.crt")
        }
        for name, path in paths.items():
            write_whole(files, path, pki.read(name), KEY_MODE)
        return tls.server_context(
            paths["apiserver.crt"], paths["apiserver.key"], client_ca=paths["ca.crt"], client_required=False
        )

    async def close(self) -> None:
        """Let requests under way be answered, end connections and remove the files."""
        try:
            await asyncio.wait([self._starting])
            await self._http.close(_GRACE_SECONDS)
        finally:
            self._directory.cleanup()
