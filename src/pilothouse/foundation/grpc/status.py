"""gRPC status: codes, the error that carries one, and what HTTP and HTTP/2 failures mean in its terms.

Specification: grpc/grpc `doc/statuscodes.md`, `doc/http-grpc-status-mapping.md` and `doc/PROTOCOL-HTTP2.md`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

from ngh2 import ErrorCode

__all__ = ["GrpcCode", "GrpcError", "Metadata", "RefusedError", "code_of_http_status", "code_of_reset"]

Metadata = Sequence[tuple[str, bytes | str]]


class GrpcCode(enum.IntEnum):
    """The outcome of a call."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcError(Exception):
    """A call that ended with another status than OK.

    `trailers` is the metadata sent or received beside the status.
    """

    def __init__(self, code: GrpcCode, message: str = "", trailers: Metadata = ()) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.trailers = trailers

    def __str__(self) -> str:
        return f"{self.code.name}: {self.message}" if self.message else self.code.name


class RefusedError(GrpcError):
    """A call that the peer has certainly not looked at, so that it may be sent again."""


_BY_HTTP_STATUS = {
    400: GrpcCode.INTERNAL,
    401: GrpcCode.UNAUTHENTICATED,
    403: GrpcCode.PERMISSION_DENIED,
    404: GrpcCode.UNIMPLEMENTED,
    429: GrpcCode.UNAVAILABLE,
    502: GrpcCode.UNAVAILABLE,
    503: GrpcCode.UNAVAILABLE,
    504: GrpcCode.UNAVAILABLE,
}

_BY_RESET = {
    ErrorCode.REFUSED_STREAM: GrpcCode.UNAVAILABLE,
    ErrorCode.CANCEL: GrpcCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: GrpcCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: GrpcCode.PERMISSION_DENIED,
}


def code_of_http_status(status: int) -> GrpcCode:
    """Return the code of a response that has an HTTP status but no gRPC status."""
    return _BY_HTTP_STATUS.get(status, GrpcCode.UNKNOWN)


def code_of_reset(error_code: int) -> GrpcCode:
    """Return the code of a call whose stream was reset with an HTTP/2 error code."""
    return _BY_RESET.get(error_code, GrpcCode.INTERNAL)  # type: ignore[call-overload, no-any-return]
