"""When an image is pulled unless the user says: always for `latest`, else once.

Facts: the grammar of image references (distribution/reference). A reference that does not parse counts as one with
a tag of its own, as in kube-apiserver; validation speaks about it later.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["pull_policy"]

_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_HOST_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = rf"(?:{_HOST_LABEL}(?:\.{_HOST_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?P<digest>@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


_OFFICIAL = "library/"
"""Stands before the name of an image that names neither a registry nor a folder."""
_PATH_MAXIMUM = 255
"""Characters that the name of an image may have, its registry apart."""


def _is_too_long(name: str) -> bool:
    if len(name) + len(_OFFICIAL) <= _PATH_MAXIMUM:
        return False
    first, slash, rest = name.partition("/")
    if not slash:
        return True
    host = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if host and "/" not in rest and first == "docker.io":
        rest = _OFFICIAL + rest
    return len(rest if host else name) > _PATH_MAXIMUM


@lru_cache(maxsize=4096)
def pull_policy(image: str) -> str:
    """Return the pull policy of an image for which none is set: `Always` or `IfNotPresent`."""
    found = _REFERENCE.fullmatch(image)
    if found is None or _is_too_long(found["name"]):
        return "IfNotPresent"
    tag = found["tag"]
    if tag is None and found["digest"] is None:
        return "Always"
    return "Always" if tag == "latest" else "IfNotPresent"
