"""What servers of one cluster share of its keys, as one file for a backup or a shared store."""

from __future__ import annotations

import os
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pilothouse.apiserver.access.pki import KEY_MODE, Pki, PkiError
from pilothouse.foundation.files import FileSystem, OsFileSystem, write_whole

__all__ = ["SHARED", "export_bundle", "import_bundle"]

SHARED: Final = ("ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub")
"""The files that all servers of a cluster need; certificates of one server are made by itself."""

_VERSION: Final = 1
_MAGIC: Final = b"pilothouse-pki-1\n"
_NONCE: Final = 12
_LARGEST: Final = 1 << 20
"""Bytes of the largest bundle that is read."""


def export_bundle(pki: Pki, key: bytes | None = None) -> bytes:
    """Return the shared files as one text of bytes.

    key: 16, 24 or 32 bytes to encrypt it with (AES-GCM); without one whoever reads it owns the cluster.
    Raises PkiError.
    """
    files = {name: pki.read(name).decode("ascii") for name in SHARED}
    text = msgspec.json.encode({"version": _VERSION, "files": files})
    if key is None:
        return text
    nonce = os.urandom(_NONCE)
    return _MAGIC + nonce + _cipher(key).encrypt(nonce, text, _MAGIC)


def import_bundle(
    directory: str, bundle: bytes, key: bytes | None = None, *, files: FileSystem | None = None
) -> list[str]:
    """Write the files of a bundle into a directory and return the names of those that were not there as they are.

    What is not of the bundle stays; certificates that the new CA did not sign are made anew by `Pki.ensure`. Raises
    PkiError, before anything is written, for a wrong key or a bundle that is damaged or of a newer version.
    """
    found = _read(bundle, key)
    files = files or OsFileSystem()
    changed = [name for name in SHARED if _held(files, os.path.join(directory, name)) != found[name]]
    try:
        files.makedirs(directory)
        # keys before certificates, as where they are made
        for name in sorted(changed, key=lambda name: not name.endswith(".key")):
            mode = KEY_MODE if name.endswith(".key") else 0o644
            write_whole(files, os.path.join(directory, name), found[name], mode)
    except OSError as error:
        raise PkiError(f"{error.filename or directory}: cannot be written: {error.strerror}") from error
    return changed


def _cipher(key: bytes) -> AESGCM:
    try:
        return AESGCM(key)
    except ValueError as error:
        raise PkiError(f"bundle key: has {len(key)} bytes; it needs 16, 24 or 32") from error


def _read(bundle: bytes, key: bytes | None) -> dict[str, bytes]:
    if len(bundle) > _LARGEST:
        raise PkiError(f"bundle: has {len(bundle)} bytes; at most {_LARGEST} are read")
    if bundle.startswith(_MAGIC):
        if key is None:
            raise PkiError("bundle: is encrypted; pass the key it was exported with")
        nonce, body = bundle[len(_MAGIC) :][:_NONCE], bundle[len(_MAGIC) + _NONCE :]
        try:
            bundle = _cipher(key).decrypt(nonce, body, _MAGIC)
        except (InvalidTag, ValueError) as error:
            raise PkiError("bundle: cannot be decrypted; the key is another one or the bundle is damaged") from error
    return _files(bundle)


def _files(text: bytes) -> dict[str, bytes]:
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise PkiError("bundle: is no bundle of keys; pass what export_bundle returned") from error
    version, files = found.get("version"), found.get("files")
    if version != _VERSION:
        raise PkiError(f"bundle: has version {version}; this program reads version {_VERSION}, use a newer one")
    if not isinstance(files, dict) or not all(isinstance(files.get(name), str) for name in SHARED):
        raise PkiError(f"bundle: is not whole; it needs {', '.join(SHARED)}")
    return {name: files[name].encode() for name in SHARED}


def _held(files: FileSystem, path: str) -> bytes | None:
    if not files.exists(path):
        return None
    fd = files.open(path, os.O_RDONLY)
    try:
        return files.pread(fd, files.size(fd), 0)
    finally:
        files.close(fd)
