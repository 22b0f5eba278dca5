"""The files that browsers get: read once, with their type and a tag by which a browser knows its copy is good."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["Asset", "load_assets"]

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_DIRECTORY: Final = Path(__file__).with_name("static")


class Asset(NamedTuple):
    """A file, as it is and compressed."""

    body: bytes
    compressed: bytes
    content_type: str
    tag: str


def load_assets() -> dict[str, Asset]:
    """Return all files by their path below `/static/`."""
    found = {}
    for path in sorted(_DIRECTORY.rglob("*")):
        if path.suffix in _TYPES and path.is_file():
            body = path.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:20]}"'
            name = path.relative_to(_DIRECTORY).as_posix()
            found[name] = Asset(body, gzip.compress(body, 6, mtime=0), _TYPES[path.suffix], tag)
    return found
