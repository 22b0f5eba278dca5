"""The store's errors, with the gRPC code and the wording that etcd clients know.

StoreError
├── InvalidRequest           INVALID_ARGUMENT (3)
│   ├── EmptyKey, TooManyOps, DuplicateKey, ValueProvided, LeaseProvided, InvalidSort, UnknownCompare,
│   └── LeaseTtlTooLarge (OUT_OF_RANGE), RequestTooLarge
├── Compacted                OUT_OF_RANGE (11)
├── FutureRevision           OUT_OF_RANGE (11)
├── KeyNotFound              INVALID_ARGUMENT (3): ignore_value or ignore_lease on a missing key
├── LeaseNotFound            NOT_FOUND (5)
├── LeaseExists              FAILED_PRECONDITION (9)
├── NoSpace                  RESOURCE_EXHAUSTED (8): quota or disk; reads go on
├── TooManyRequests          RESOURCE_EXHAUSTED (8): the proposal queue is full
├── CorruptAlarm             DATA_LOSS (15)
├── AuthError                UNAUTHENTICATED (16), PERMISSION_DENIED (7), INVALID_ARGUMENT, FAILED_PRECONDITION
├── Unavailable              UNAVAILABLE (14): stopped, stopping, no leader, connection lost
│   └── Timeout              UNAVAILABLE (14): not known whether a write was done
├── WatchCanceled            CANCELLED (1)
└── DataDirError             the files, not a request
    ├── DirectoryInUse       another process holds it
    ├── DamagedData          checksum or structure wrong: file, offset, last good revision
    ├── NewerFormat          written by a newer program
    └── DirectoryPermission
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthError",
    "Compacted",
    "CorruptAlarm",
    "DamagedData",
    "DataDirError",
    "DirectoryInUse",
    "DirectoryPermission",
    "DuplicateKey",
    "EmptyKey",
    "FutureRevision",
    "InvalidRequest",
    "InvalidSort",
    "KeyNotFound",
    "LeaseExists",
    "LeaseNotFound",
    "LeaseProvided",
    "LeaseTtlTooLarge",
    "NewerFormat",
    "NoSpace",
    "RequestTooLarge",
    "StoreError",
    "Timeout",
    "TooManyOps",
    "TooManyRequests",
    "Unavailable",
    "UnknownCompare",
    "ValueProvided",
    "WatchCanceled",
]


class StoreError(Exception):
    """Root of the store's errors: `code` is the gRPC status, the text is what etcd would say."""

    code: ClassVar[int] = 2
    text: ClassVar[str] = "etcdserver: unknown error"

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.text)

    @property
    def message(self) -> str:
        """The text for the caller."""
        return str(self.args[0])


class InvalidRequest(StoreError):
    """The request itself is wrong."""

    code = 3
    text = "etcdserver: invalid request"


class EmptyKey(InvalidRequest):
    """No key was given."""

    text = "etcdserver: key is not provided"


class ValueProvided(InvalidRequest):
    """A value was given with `ignore_value`."""

    text = "etcdserver: value is provided"


class LeaseProvided(InvalidRequest):
    """A lease was given with `ignore_lease`."""

    text = "etcdserver: lease is provided"


class TooManyOps(InvalidRequest):
    """A branch of a transaction has more operations than allowed."""

    text = "etcdserver: too many operations in txn request"


class DuplicateKey(InvalidRequest):
    """One transaction writes the same key twice."""

    text = "etcdserver: duplicate key given in txn request"


class InvalidSort(InvalidRequest):
    """Sort order or target is not one of etcd's."""

    text = "etcdserver: invalid sort option"


class UnknownCompare(InvalidRequest):
    """Compare target or result is not one of etcd's."""

    text = "etcdserver: invalid compare target or result"


class RequestTooLarge(InvalidRequest):
    """The request has more bytes than allowed."""

    text = "etcdserver: request is too large"


class LeaseTtlTooLarge(StoreError):
    """A lease may live 9,000,000,000 seconds at most."""

    code = 11
    text = "etcdserver: too large lease TTL"


class Compacted(StoreError):
    """The revision asked for is gone; `compact_revision` is the oldest that can be read."""

    code = 11
    text = "etcdserver: mvcc: required revision has been compacted"

    def __init__(self, message: str = "", compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class FutureRevision(StoreError):
    """The revision asked for is not yet written."""

    code = 11
    text = "etcdserver: mvcc: required revision is a future revision"


class KeyNotFound(InvalidRequest):
    """`ignore_value` or `ignore_lease` on a key that is not there."""

    text = "etcdserver: key not found"


class LeaseNotFound(StoreError):
    """The lease does not exist or has expired."""

    code = 5
    text = "etcdserver: requested lease not found"


class LeaseExists(StoreError):
    """The lease id is taken."""

    code = 9
    text = "etcdserver: lease already exists"


class NoSpace(StoreError):
    """Quota or disk is full: writes are refused, reads go on."""

    code = 8
    text = "etcdserver: mvcc: database space exceeded"


class TooManyRequests(StoreError):
    """The queue of proposals is full: try again later."""

    code = 8
    text = "etcdserver: too many requests"


class CorruptAlarm(StoreError):
    """The member found its data corrupt."""

    code = 15
    text = "etcdserver: corrupt cluster"


class AuthError(StoreError):
    """Not authenticated, not permitted, or a wrong user or role operation."""

    code = 7
    text = "etcdserver: permission denied"

    def __init__(self, message: str = "", code: int = 7) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # per instance: authentication has four codes under one concern


class Unavailable(StoreError):
    """The store cannot serve now (stopped, disk failed, no leader, connection lost)."""

    code = 14
    text = "etcdserver: server stopped"


class Timeout(Unavailable):
    """No answer in time: a write may or may not have been done."""

    text = "etcdserver: request timed out"


class WatchCanceled(StoreError):
    """A watch ended before its time; `compact_revision` is set where its start was compacted away."""

    code = 1
    text = "etcdserver: watch canceled"

    def __init__(self, message: str = "", compact_revision: int = 0) -> None:
        super().__init__(message)
        self.compact_revision = compact_revision


class DataDirError(StoreError):
    """The data directory cannot be used as it is."""

    code = 9
    text = "data directory cannot be used"


class DirectoryInUse(DataDirError):
    """Another process holds the data directory."""


class DirectoryPermission(DataDirError):
    """The data directory cannot be read or written, or others may read it."""


class NewerFormat(DataDirError):
    """The data was written by a newer program."""


class DamagedData(DataDirError):
    """A file's checksum or structure is wrong.

    `path` and `offset` (bytes) say where, `last_good_revision` what is intact before it.
    """

    code = 15

    def __init__(self, message: str, path: str = "", offset: int = 0, last_good_revision: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.last_good_revision = last_good_revision
