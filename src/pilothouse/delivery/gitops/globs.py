"""Globs as Argo CD reads them, where `*` also passes slashes, and alternatives are `{a,b}`."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["matches"]

_MAX = 2048


def matches(pattern: str, text: str) -> bool:
    """Whether a text fits a glob; one that cannot be read fits itself alone."""
    if pattern == "*":
        return True
    compiled = _compiled(pattern)
    return pattern == text if compiled is None else compiled.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    if len(pattern) > _MAX:
        return None
    try:
        return re.compile(_translated(pattern), re.DOTALL)
    except re.error:
        return None


def _translated(pattern: str) -> str:
    made, at, depth = [], 0, 0
    while at < len(pattern):
        each = pattern[at]
        at += 1
        if each == "*":
            while pattern[at : at + 1] == "*":  # one after the other would take for ever
                at += 1
            made.append(".*")
        elif each == "?":
            made.append(".")
        elif each == "{":
            depth += 1
            made.append("(?:")
        elif each == "}" and depth:
            depth -= 1
            made.append(")")
        elif each == "," and depth:
            made.append("|")
        elif each == "[" and (end := pattern.find("]", at + 1)) > 0:
            inner = pattern[at:end].replace("\\", "\\\\")
            made.append("[" + ("^" + inner[1:] if inner[:1] in {"!", "^"} else inner) + "]")
            at = end + 1
        elif each == "\\" and at < len(pattern):
            made.append(re.escape(pattern[at]))
            at += 1
        else:
            made.append(re.escape(each))
    return "".join(made) + ")" * depth
