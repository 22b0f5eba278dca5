"""The front proxy: who shows its certificate may say by headers whose request it passes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from pilothouse.apiserver.access.certificates import CertificateError, CertificateUsers
from pilothouse.apiserver.model import Request, User

__all__ = ["FrontProxy", "unescaped"]

_NAME: Final = ("x-remote-user",)
_UID: Final = ("x-remote-uid",)
_GROUP: Final = ("x-remote-group",)
_EXTRA: Final = ("x-remote-extra-",)


class FrontProxy:
    """Believes headers of those whose certificate the front proxy's authority signed.

    certificates: of that authority, which must not be the clients' own. allowed_names: common names of proxies, empty
    for all. Headers by their names or, for extra, their starts, in lower case.
    """

    def __init__(  # kube-apiserver has as many options
        self,
        certificates: CertificateUsers,
        *,
        allowed_names: Sequence[str] = (),
        username_headers: Sequence[str] = _NAME,
        uid_headers: Sequence[str] = _UID,
        group_headers: Sequence[str] = _GROUP,
        extra_prefixes: Sequence[str] = _EXTRA,
    ) -> None:
        self.certificates: Final = certificates
        self._allowed = frozenset(allowed_names)
        self._names = tuple(username_headers)
        self._uids = tuple(uid_headers)
        self._groups = tuple(group_headers)
        self._extras = tuple(extra_prefixes)

    def user(self, request: Request) -> User | None:
        """Return whose request a proxy passes on, None where it says nothing. Raises CertificateError."""
        certificate = request.peer.certificate if request.peer else None
        if certificate is None:
            return None
        name = self.certificates.verify(certificate).common_name
        if self._allowed and name not in self._allowed:
            raise CertificateError(f"x509: subject with cn={name} is not in the allowed list")
        username = _first(request, self._names)
        if not username:
            return None
        groups = tuple(value for header in self._groups for value in request.all_headers(header) if value)
        return User(username, _first(request, self._uids), groups, self._extra(request))

    def _extra(self, request: Request) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        for prefix in self._extras:
            for header, value in request.header_list:
                if header.startswith(prefix):
                    key = unescaped(header[len(prefix) :])
                    extra[key] = (*extra.get(key, ()), value)
        return extra


def _first(request: Request, names: Sequence[str]) -> str:
    return next((value for value in map(request.headers.get, names) if value), "")


def unescaped(key: str) -> str:
    """Decode the percent signs of a key of extra in a header's name; one that is malformed stays as it is."""
    digits = "0123456789abcdefABCDEF"
    parts = key.split("%")[1:]
    return unquote(key) if all(len(part) > 1 and part[0] in digits and part[1] in digits for part in parts) else key
