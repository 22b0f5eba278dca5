"""Identity as a dependency: random ids for programs, replayable ones for tests."""

from __future__ import annotations

import base64
import os
import random
import secrets
import uuid
from typing import Protocol

__all__ = ["NAME_ALPHABET", "Ids", "SeededIds", "SystemIds"]

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of Kubernetes' generated names: no vowels and no look-alikes, so that no words arise."""


class Ids(Protocol):
    """Where new identities come from."""

    def uuid(self) -> str:
        """Return a random UUID (RFC 9562, version 4) in lower case."""

    def token(self, size: int = 32) -> str:
        """Return `size` random bytes as URL-safe base64 without padding."""

    def int63(self) -> int:
        """Return an integer in [1, 2**63)."""

    def name_suffix(self, length: int = 5) -> str:
        """Return letters of `NAME_ALPHABET` for a generated name."""


class SystemIds:
    """Ids from the operating system's secure random source."""

    def uuid(self) -> str:
        # Version 4, variant 1 of RFC 9562, as uuid.uuid4 makes them in three times the time.
        number = (int.from_bytes(os.urandom(16)) & ~(0xF000 << 64) & ~(0xC000 << 48)) | 4 << 76 | 2 << 62
        digits = f"{number:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def token(self, size: int = 32) -> str:
        return secrets.token_urlsafe(size)

    def int63(self) -> int:
        return secrets.randbelow((1 << 63) - 1) + 1

    def name_suffix(self, length: int = 5) -> str:
        return "".join(secrets.choice(NAME_ALPHABET) for _ in range(length))


class SeededIds:
    """The same ids in the same order for the same seed. Guessable: for tests and simulations only."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311  # replaying is the purpose

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def token(self, size: int = 32) -> str:
        return base64.urlsafe_b64encode(self._random.randbytes(size)).rstrip(b"=").decode()

    def int63(self) -> int:
        return self._random.randrange(1, 1 << 63)

    def name_suffix(self, length: int = 5) -> str:
        return "".join(self._random.choices(NAME_ALPHABET, k=length))
