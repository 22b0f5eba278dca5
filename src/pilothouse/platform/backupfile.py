"""The file of a backup: a tar whose last member says what all others are, and so that it is whole."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Iterator
from typing import IO, Final

import msgspec

__all__ = ["FORMAT", "KEYS", "MANIFEST", "STORE", "VOLUMES", "BackupError", "Entry", "Manifest", "read_manifest"]

FORMAT: Final = 1
"""Raised when an older program could not restore what is written; a newer one reads all former ones."""
MANIFEST: Final = "manifest.json"
STORE: Final = "store.db"
KEYS: Final = ("pki/", "keys.key", "encryption-provider-config")
"""What of the data directory is needed to read the store: certificates, keys, and what secrets are encrypted with."""
VOLUMES: Final = "volumes"
_MOST_MANIFEST: Final = 256 << 20
_CHUNK: Final = 1 << 20


class BackupError(Exception):
    """A backup cannot be written or restored; the message names the file and what is wrong.

    hint: the way out. is_damaged: whether it is the file that is not whole.
    """

    def __init__(self, message: str, hint: str = "", *, is_damaged: bool = False) -> None:
        super().__init__(message)
        self.hint = hint
        self.is_damaged = is_damaged


class Entry(msgspec.Struct, frozen=True):
    """A file of the backup: its size in bytes and its SHA-256."""

    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is. made: when, in UTC (RFC 3339). data_dir: of the platform that was saved.

    store: embedded, or "external" where objects are in an etcd cluster and not in the backup. volumes: where the
    directories of volumes were, empty where they are left out. entries: each regular file by its name.
    """

    format: int
    program: str
    made: str
    data_dir: str
    store: str = "embedded"
    volumes: str = ""
    entries: dict[str, Entry]


class _Format(msgspec.Struct):
    format: int


def read_manifest(path: str) -> Manifest:
    """Verify a backup from its first byte to its last, and return what it is. Raises BackupError, OSError."""
    found: dict[str, Entry] = {}
    manifest: bytes | None = None
    links: set[str] = set()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if manifest is not None:
                    raise _damaged(path, f"{member.name} stands behind its end")
                _check(path, member, links)
                if member.name == MANIFEST:
                    manifest = _content(path, tar, member)
                elif member.isreg():
                    found[member.name] = Entry(member.size, _digest(tar.extractfile(member)))
    except (tarfile.TarError, EOFError, UnicodeError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if manifest is None:
        raise _damaged(path, "its end is missing")
    return _decoded(path, manifest, found)


def _damaged(path: str, what: str) -> BackupError:
    hint = "take another backup; nothing was changed"
    return BackupError(f"{path}: is no backup that is whole: {what}", hint, is_damaged=True)


def _check(path: str, member: tarfile.TarInfo, links: set[str]) -> None:
    """Refuse members that would be written elsewhere than where a backup's are. A member's name says where it goes."""
    name = member.name
    parts = name.split("/")
    is_ours = name in {MANIFEST, STORE, *KEYS} or parts[0] in {"pki", VOLUMES}
    if not is_ours or ".." in parts or "" in parts or any(parent in links for parent in _parents(name)):
        raise _damaged(path, f"{name!r} does not belong to one")
    if parts[0] != VOLUMES and not (member.isreg() or name == "pki"):
        raise _damaged(path, f"{name!r} is no file")
    if member.islnk() and not (member.linkname.startswith(f"{VOLUMES}/") and ".." not in member.linkname.split("/")):
        raise _damaged(path, f"{name!r} leads out of it")
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise _damaged(path, f"{name!r} is a device")
    if member.issym():
        links.add(name)


def _parents(name: str) -> Iterator[str]:
    while name := posixpath.dirname(name):
        yield name


def _content(path: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    if file is None or member.size > _MOST_MANIFEST:
        raise _damaged(path, f"{member.name} cannot be read")
    return file.read()


def _digest(file: IO[bytes] | None) -> str:
    digest = hashlib.sha256()
    while file is not None and (data := file.read(_CHUNK)):
        digest.update(data)
    return digest.hexdigest()


def _decoded(path: str, data: bytes, found: dict[str, Entry]) -> Manifest:
    try:
        written = msgspec.json.decode(data, type=_Format).format
        if written > FORMAT:
            raise BackupError(
                f"{path}: has format {written}, of a newer program; this one reads up to {FORMAT}",
                "restore it with the program that wrote it, or a newer one",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.MsgspecError as error:
        raise _damaged(path, f"{MANIFEST}: {error}") from error
    wrong = sorted(name for name in {*found, *manifest.entries} if found.get(name) != manifest.entries.get(name))
    if wrong:
        raise _damaged(path, f"{wrong[0]} is missing or not as it was written")
    return manifest
