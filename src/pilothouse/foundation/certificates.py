"""A server's own certificate, kept in a directory: made where there is none, and anew when it is old or elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from . import tls
from .addresses import own_addresses

__all__ = ["kept_certificate"]

_DAYS: Final = 365
_RENEW_SECONDS: Final = 300 * 86_400.0


def kept_certificate(directory: Path, name: str, host: str, pki: Path | None = None) -> tuple[str, str]:
    """Return the files of a server's certificate and key, NAME.crt and NAME.key, for all addresses of this machine.

    host: where the server listens, which is among them. pki: a directory with `ca.crt` and `ca.key` of the cluster,
    which sign it; where they are not, an authority of its own does, `NAME-ca.crt`, which clients can be told to trust.
    Raises TlsError, and OSError.
    """
    certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
    stamp = directory / f"{name}.hosts"
    hosts = sorted({"localhost", "127.0.0.1", "::1", *own_addresses(), *([host] if host not in {"", "::"} else [])})
    hosts = [each for each in hosts if each != "0.0.0.0"]  # noqa: S104  # left out
    known = stamp.read_text(encoding="utf-8").split() if stamp.is_file() and key.is_file() else []
    if known != hosts or not _is_young(certificate):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _authority(directory, name, pki)
        issued = tls.issue(authority, f"pilothouse-{name}", hosts=hosts, server=True, days=_DAYS)
        chained = tls.Credentials(issued.certificate + authority.certificate, issued.key)
        tls.write(chained, str(certificate), str(key))
        stamp.write_text("\n".join(hosts), encoding="utf-8")
    return str(certificate), str(key)


def _is_young(path: Path) -> bool:
    import time  # noqa: PLC0415  # a file's age is the machine's time

    try:
        return time.time() - path.stat().st_mtime < _RENEW_SECONDS
    except OSError:
        return False


def _authority(directory: Path, name: str, pki: Path | None) -> tls.Credentials:
    own = directory / f"{name}-ca.crt", directory / f"{name}-ca.key"
    given = (pki / "ca.crt", pki / "ca.key") if pki is not None else own
    pair = given if all(os.access(each, os.R_OK) for each in given) else own
    if pair == own and not all(each.is_file() for each in own):
        tls.write(tls.make_ca(f"pilothouse-{name}-ca"), str(own[0]), str(own[1]))
    return tls.Credentials(pair[0].read_bytes(), pair[1].read_bytes())
