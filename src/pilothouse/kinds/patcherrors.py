"""What is wrong with a patch, with the code, reason and wording that kube-apiserver answers.

PatchError
├── BadRequest              400 BadRequest: the patch is not of the form that its media type says
├── TooLarge                413 RequestEntityTooLarge: more operations than one patch may have
├── UnsupportedMediaType    415 UnsupportedMediaType: a strategic merge patch of a type without patch metadata
├── Invalid                 422 Invalid: the patch does not apply to the object
└── Unmergeable             500 with no reason: a strategic merge patch that contradicts the type or the object
"""

from __future__ import annotations

from typing import ClassVar

__all__ = ["BadRequest", "Invalid", "PatchError", "TooLarge", "Unmergeable", "UnsupportedMediaType"]


class PatchError(Exception):
    """Say why a patch is refused.

    code, reason: of the Status. message: of the Status, as kube-apiserver words it. explanation: what exactly is wrong;
    equal to the message save where kube-apiserver keeps it to itself. has_details: the Status carries `details`.
    """

    code: ClassVar[int]
    reason: ClassVar[str]
    has_details: ClassVar[bool] = False

    def __init__(self, message: str, explanation: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.explanation = explanation or message

    def __str__(self) -> str:
        return self.explanation


class BadRequest(PatchError):
    """Refuse a patch that is not of the form that its media type says."""

    code = 400
    reason = "BadRequest"


class TooLarge(PatchError):
    """Refuse a patch with more operations than one may have."""

    code = 413
    reason = "RequestEntityTooLarge"

    def __init__(self, explanation: str) -> None:
        super().__init__(f"Request entity too large: {explanation}")


class UnsupportedMediaType(PatchError):
    """Refuse a strategic merge patch of a type that has no patch metadata, such as a custom resource."""

    code = 415
    reason = "UnsupportedMediaType"

    def __init__(self) -> None:
        super().__init__(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        )


class Invalid(PatchError):
    """Refuse a patch that does not apply to the object; the message is the same for all, the explanation is not."""

    code = 422
    reason = "Invalid"
    has_details = True

    def __init__(self, explanation: str) -> None:
        super().__init__("the server rejected our request due to an error in our request", explanation)


class Unmergeable(PatchError):
    """Refuse a strategic merge patch that contradicts the type or the object it is for."""

    code = 500
    reason = ""
