"""TLS contexts for a client: from files or from data, made anew when files or credentials change."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence

from .config import ClientConfig
from .credentials import Shown
from .errors import ConfigError

__all__ = ["TlsSource"]


class TlsSource:
    """Makes the context for new connections and keeps it while nothing changes."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._made: tuple[object, ssl.SSLContext] | None = None

    def context(self, shown: Shown) -> ssl.SSLContext:
        """Return the context, with the certificate that is shown or the configuration's. Raises ConfigError."""
        config = self._config
        files = (config.ca_file, config.certificate_file, config.key_file)
        state = (shown.certificate, shown.key, [_stamp(path) for path in files])
        if self._made is None or self._made[0] != state:
            self._made = state, self._make(shown)
        return self._made[1]

    def _make(self, shown: Shown) -> ssl.SSLContext:
        import tempfile  # noqa: PLC0415  # takes its time, and plain connections do without

        config = self._config
        certificate = shown.certificate or config.certificate_data
        key = shown.key or config.key_data
        # OpenSSL reads certificates of its own from files only; these are gone again before this returns.
        with tempfile.TemporaryDirectory(prefix="pilothouse-") as directory:
            labels: dict[str, str] = {}

            def path_of(file: str, data: bytes, label: str) -> str | None:
                if not data:
                    return file or None
                path = os.path.join(directory, label)
                with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as out:
                    out.write(data)
                labels[path] = f"{label}-data"
                return path

            return self._build(
                labels,
                path_of(config.ca_file, config.ca_data, "certificate-authority"),
                path_of("" if shown.certificate else config.certificate_file, certificate, "client-certificate"),
                path_of("" if shown.key else config.key_file, key, "client-key"),
            )

    def _build(
        self, labels: dict[str, str], ca: str | None, certificate: str | None, key: str | None
    ) -> ssl.SSLContext:
        from pilothouse.foundation import tls  # noqa: PLC0415  # loads cryptography

        try:
            context = tls.client_context(ca=ca, certificate=certificate, key=key)
        except tls.TlsError as error:
            text = str(error)
            for path, label in labels.items():
                text = text.replace(f"file {path}", label).replace(path, label)
            raise ConfigError(f"{self._config.source or self._config.server}: {text}") from None
        if self._config.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _stamp(path: str) -> Sequence[int]:
    if not path:
        return ()
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
