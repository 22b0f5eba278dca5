"""Answers that are no success, and the headers that all answers have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from pilothouse.apiserver.model import Response

__all__ = ["PRIVATE", "SAFE", "Refused", "json_answer", "refusal"]

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
    ("Strict-Transport-Security", "max-age=31536000"),
)
"""Of files."""
PRIVATE: Final = (*SAFE, ("Cache-Control", "no-store"))
"""Of what is one user's."""


class Refused(Exception):
    """An answer that is no success. hint: the way out; headers: beside the usual ones."""

    def __init__(self, status: int, text: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status, self.text, self.hint = status, text, hint
        self.headers = dict(headers or {})


def json_answer(value: object) -> Response:
    """Return a value as an answer for one user alone."""
    return Response(200, msgspec.json.encode(value), PRIVATE)


def refusal(error: Refused) -> Response:
    """Return what a refusal is as an answer."""
    body = msgspec.json.encode({"error": error.text, "hint": error.hint})
    return Response(error.status, body, [*PRIVATE, *error.headers.items()])
