"""Encryption at rest: what the store keeps of an object, readable only with a key.

The format is that of Kubernetes, `k8s:enc:aesgcm:v1:KEYNAME:` with nonce, ciphertext and tag behind it, and the
object's key in the store as associated data, so that a value moved elsewhere cannot be read there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pilothouse.foundation import logs

__all__ = ["Cipher", "EncryptionError", "Provider", "Transformer", "aes_cbc", "aes_gcm", "identity"]

_MARK: Final = b"k8s:enc:"
_NONCE = 12
_TAG = 16
_BLOCK = 16
_SHOWN = 100
_WRITES = 1 << 32
"""After so many random nonces of 96 bits one key should not be used any more (NIST SP 800-38D)."""

_log = logs.get_logger(__name__)


class EncryptionError(Exception):
    """A value cannot be encrypted or read, or a configuration cannot be used. Never holds key material."""


class Cipher(Protocol):
    """One way to encrypt with one key."""

    def encrypt(self, value: bytes, key: bytes) -> bytes:
        """Return the encrypted value; `key` is the object's, which is authenticated where the way can do so."""

    def decrypt(self, stored: bytes, key: bytes) -> bytes:
        """Return the value. Raises ValueError where it was not made with this key for this object."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A cipher and the prefix that tells its values: kind and key's name. `kind` is empty for plain values."""

    kind: str
    name: str
    cipher: Cipher = field(repr=False)

    @property
    def prefix(self) -> bytes:
        """What values of this key start with."""
        return f"k8s:enc:{self.kind}:v1:{self.name}:".encode() if self.kind else b""


class _AesGcm:
    def __init__(self, secret: bytes, warn: Callable[[], None]) -> None:
        # Here, since a server without encryption need not load OpenSSL's bindings for it.
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        self._cipher = AESGCM(secret)
        self._bad = InvalidTag
        self._left = _WRITES
        self._warn = warn

    def encrypt(self, value: bytes, key: bytes) -> bytes:
        self._left -= 1
        if self._left == 0:
            self._warn()
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value, key)

    def decrypt(self, stored: bytes, key: bytes) -> bytes:
        if len(stored) < _NONCE + _TAG:
            raise ValueError("the stored data was shorter than the required size")
        try:
            return self._cipher.decrypt(stored[:_NONCE], stored[_NONCE:], key)
        except self._bad as error:
            raise ValueError("message authentication failed") from error


class _AesCbc:
    def __init__(self, secret: bytes) -> None:
        from cryptography.hazmat.primitives import ciphers  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers import algorithms, modes  # noqa: PLC0415

        def make(iv: bytes) -> ciphers.Cipher[modes.CBC]:
            return ciphers.Cipher(algorithms.AES(secret), modes.CBC(iv))

        self._make = make

    def encrypt(self, value: bytes, key: bytes) -> bytes:
        iv = os.urandom(_BLOCK)
        padding = _BLOCK - len(value) % _BLOCK
        encryptor = self._make(iv).encryptor()
        return iv + encryptor.update(value + bytes([padding]) * padding) + encryptor.finalize()

    def decrypt(self, stored: bytes, key: bytes) -> bytes:
        if len(stored) < 2 * _BLOCK or len(stored) % _BLOCK:
            raise ValueError("the stored data is not a multiple of the block size")
        decryptor = self._make(stored[:_BLOCK]).decryptor()
        padded = decryptor.update(stored[_BLOCK:]) + decryptor.finalize()
        padding = padded[-1]
        if not 1 <= padding <= _BLOCK or padded[-padding:] != bytes([padding]) * padding:
            raise ValueError("invalid padding on input")
        return padded[:-padding]


class _Identity:
    def encrypt(self, value: bytes, key: bytes) -> bytes:
        return value

    def decrypt(self, stored: bytes, key: bytes) -> bytes:
        if stored.startswith(_MARK):
            raise ValueError("identity transformer tried to read encrypted data")
        return stored


def aes_gcm(name: str, secret: bytes) -> Provider:
    """Encrypt with AES-GCM, a random nonce for each value; the secret has 16, 24 or 32 bytes."""

    def warn() -> None:
        text = "an encryption key was used for 2^32 writes; rotate the encryption keys"
        _log.warning(text, key_name=name)

    return Provider("aesgcm", name, _AesGcm(secret, warn))


def aes_cbc(name: str, secret: bytes) -> Provider:
    """Encrypt with AES-CBC, which does not notice changes of what is stored; to read what was written before."""
    return Provider("aescbc", name, _AesCbc(secret))


def identity() -> Provider:
    """Keep values as they are."""
    return Provider("", "", _Identity())


class Transformer:
    """Encrypts the objects of one resource with the first provider and reads what any of them wrote.

    One object for the life of the server: `use` puts other providers in, while it is at work.
    """

    def __init__(self, resource: str, providers: Sequence[Provider]) -> None:
        self.resource = resource
        self._providers: tuple[tuple[bytes, Provider], ...] = ()
        self.use(providers)

    def use(self, providers: Sequence[Provider]) -> None:
        """Go by other providers from now on; the first one writes. Raises EncryptionError for none."""
        if not providers:
            raise EncryptionError(f"encryption of {self.resource}: at least one provider is required")
        self._providers = tuple((provider.prefix, provider) for provider in providers)

    def encrypt(self, key: bytes, value: bytes) -> bytes:
        """Return what is stored for a value under `key`."""
        prefix, provider = self._providers[0]
        return prefix + provider.cipher.encrypt(value, key)

    def decrypt(self, key: bytes, stored: bytes) -> tuple[bytes, bool]:
        """Return the value, and whether it is stale: not written with the newest key.

        Raises EncryptionError, which names the object and the keys tried.
        """
        failed: list[str] = []
        for position, (prefix, provider) in enumerate(self._providers):
            if not stored.startswith(prefix):
                continue
            try:
                return provider.cipher.decrypt(stored[len(prefix) :], key), position != 0
            except ValueError as error:
                if prefix:
                    failed.append(f"key {provider.name!r} of {provider.kind}: {error}")
        where = f"{self.resource} {key[:_SHOWN].decode(errors='replace')!r}"
        if failed:
            raise EncryptionError(f"cannot decrypt {where}: {'; '.join(failed)}")
        raise EncryptionError(
            f"cannot decrypt {where}: it was written with {_writer(stored)}, which is not configured; "
            "add that key (or `identity: {}` for plain values) to the providers of the resource"
        )

    def stale(self, stored: bytes) -> bool:
        """Whether a value should be written again; does not decrypt it."""
        prefix = self._providers[0][0]
        return not stored.startswith(prefix) if prefix else stored.startswith(_MARK)


def _writer(stored: bytes) -> str:
    """Say which key wrote a value, by its prefix, which is not secret."""
    if not stored.startswith(_MARK):
        return "no encryption"
    parts = stored[:_SHOWN].split(b":", 5)
    if len(parts) < 6:
        return "an unknown key"
    return f"key {parts[4].decode(errors='replace')!r} of {parts[2].decode(errors='replace')}"
