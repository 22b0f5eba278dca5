"""The certificate by which nodes know this server, and the authorities by which it knows them."""

from __future__ import annotations

import os
import ssl

from pilothouse.foundation import tls

__all__ = ["NodeClient"]


class NodeClient:
    """TLS settings for nodes' own servers, out of three PEM files; taken up anew when one of them changes."""

    def __init__(self, certificate: str, key: str, ca: str) -> None:
        self._files = (certificate, key, ca)
        self._stamp: tuple[int, ...] = ()
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Return the settings; the same object while the files stay as they are. Raises TlsError, OSError."""
        stamp = tuple(os.stat(path).st_mtime_ns for path in self._files)
        if self._context is None or stamp != self._stamp:
            certificate, key, ca = self._files
            self._context = tls.client_context(ca=ca, certificate=certificate, key=key)
            self._stamp = stamp
        return self._context
