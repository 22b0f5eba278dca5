"""Between the store's errors and gRPC statuses: code and etcd's exact text, both ways."""

from __future__ import annotations

from collections.abc import Iterator

from pilothouse.store import errors

__all__ = ["error_from_status", "status_from_error"]

_UNAUTHENTICATED = 16
_PERMISSION_DENIED = 7
_CANCELLED, _UNKNOWN, _INVALID, _DEADLINE, _EXHAUSTED, _INTERNAL, _UNAVAILABLE, _DATA_LOSS = 1, 2, 3, 4, 8, 13, 14, 15

_AUTH_TEXTS = (
    "etcdserver: root user does not exist",
    "etcdserver: root user does not have root role",
    "etcdserver: user name already exists",
    "etcdserver: user name is empty",
    "etcdserver: user name not found",
    "etcdserver: role name already exists",
    "etcdserver: role name not found",
    "etcdserver: role name is empty",
    "etcdserver: authentication failed, invalid user ID or password",
    "etcdserver: permission denied",
    "etcdserver: role is not granted to the user",
    "etcdserver: permission is not granted to the role",
    "etcdserver: authentication is not enabled",
    "etcdserver: invalid auth token",
    "etcdserver: invalid auth management",
    "etcdserver: revision of auth store is old",
)


def _leaves(kind: type[errors.StoreError]) -> Iterator[type[errors.StoreError]]:
    for below in kind.__subclasses__():
        if not issubclass(below, errors.DataDirError | errors.AuthError):
            yield below
            yield from _leaves(below)


_BY_TEXT = {kind.text: kind for kind in _leaves(errors.StoreError)}
# etcd 3.4 says it under the code UNKNOWN too.
_BY_TEXT["context deadline exceeded"] = errors.Timeout
_BY_CODE: dict[int, type[errors.StoreError]] = {
    _CANCELLED: errors.WatchCanceled,
    _INVALID: errors.InvalidRequest,
    _DEADLINE: errors.Timeout,
    _EXHAUSTED: errors.TooManyRequests,
    _UNAVAILABLE: errors.Unavailable,
    _DATA_LOSS: errors.CorruptAlarm,
}


def status_from_error(error: BaseException) -> tuple[int, str]:
    """Return the gRPC code and message that a server answers for `error`.

    An error that is not the store's is INTERNAL and says its kind only: its text may hold what callers must not see.
    """
    if isinstance(error, errors.StoreError):
        return error.code, error.message
    return _INTERNAL, f"etcdserver: internal error ({type(error).__name__})"


def error_from_status(code: int, message: str) -> errors.StoreError:
    """Return the store's error for a gRPC status.

    The text decides where etcd's is known (also with words added after it), else the code; the message is kept.
    """
    if code in {_UNAUTHENTICATED, _PERMISSION_DENIED} or message.startswith(_AUTH_TEXTS):
        return errors.AuthError(message, code)
    kind = _BY_TEXT.get(message)
    if kind is None:
        kind = next((known for text, known in _BY_TEXT.items() if message.startswith(text)), None)
    if kind is None:
        kind = _BY_CODE.get(code)
    if kind is not None:
        return kind(message)
    error = errors.StoreError(message or f"etcdserver: gRPC status {code}")
    if code != _UNKNOWN:
        error.code = code  # type: ignore[misc]  # per instance: a status that has no class of its own
    return error
