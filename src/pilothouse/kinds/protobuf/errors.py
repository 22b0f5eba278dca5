"""What can be wrong with protobuf: one error with the place in it, and one for kinds that protobuf does not know."""

from __future__ import annotations

__all__ = ["ProtobufError", "UnknownKind"]


class ProtobufError(ValueError):
    """Data are no message of their kind, or an object cannot be written as one. The text names the field."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def within(self, part: str) -> ProtobufError:
        """Put a field around the place of the error; gives the error itself."""
        joint = "." if self.path and not self.path.startswith("[") else ""
        self.path = f"{part}{joint}{self.path}"
        return self

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class UnknownKind(ProtobufError):
    """A kind that has no message: it is custom, or Kubernetes gives it in JSON only."""

    def __init__(self, group: str, version: str, kind: str) -> None:
        api_version = f"{group}/{version}" if group else version
        super().__init__(
            f'no kind "{kind}" of version "{api_version}" has a protobuf message; send and accept it as JSON'
        )
        self.group, self.version, self.kind = group, version, kind
