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
    rf"(?:{_HOST}/)?{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?"
    r"(?P<digest>@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)


@lru_cache(maxsize=4096)
def pull_policy(image: str) -> str:
    """Return the pull policy of an image for which none is set: `Always` or `IfNotPresent`."""
    found = _REFERENCE.fullmatch(image)
    if found is None:
        return "IfNotPresent"
    tag = found["tag"]
    if tag is None and found["digest"] is None:
        return "Always"
    return "Always" if tag == "latest" else "IfNotPresent"
