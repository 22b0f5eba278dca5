"""`pilothouse version`: the program, Python, the platform and the libraries that matter."""

from __future__ import annotations

import platform
import ssl
from importlib import metadata

import click

from pilothouse import __version__
from pilothouse.foundation.terminal import emit, examples, output_option

__all__ = ["version", "versions"]

_LIBRARIES = ("click", "cryptography", "google-crc32c", "msgspec", "ngh2", "protobuf", "sortedcontainers", "uvloop")


def versions() -> dict[str, str]:
    """Return name and version of the program, its surroundings and its libraries (`not installed` for an extra's)."""
    found = {
        "pilothouse": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "openssl": ssl.OPENSSL_VERSION,
    }
    return found | {name: _installed(name) for name in _LIBRARIES}


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


@click.command(epilog=examples("pilothouse version", "pilothouse version -o json"))
@output_option
def version(output: str) -> None:
    """Show the versions of the program and its libraries."""
    emit(versions(), output)
