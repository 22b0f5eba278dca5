"""Regular expressions as Go has them (RE2): linear in time whatever the pattern."""

from __future__ import annotations

import importlib
import re
from functools import lru_cache
from typing import Any

__all__ = ["PatternError", "compile_pattern", "found"]

_KEPT = 1024
_REMEMBERED = 128
_MAX_MEMORY = 4 << 20

# What RE2 says, and what Go says for the same.
_GO = {
    "missing )": "missing closing )",
    "unexpected )": "unexpected )",
    "missing ]": "missing closing ]",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid escape sequence": "invalid escape sequence",
    "trailing \\": "trailing backslash at end of expression",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid character class range": "invalid character class range",
    "invalid named capture group": "invalid named capture",
    "invalid UTF-8": "invalid UTF-8",
}


class PatternError(ValueError):
    """A pattern that is none; worded as Go's `regexp` does."""


@lru_cache(maxsize=_KEPT)
def compile_pattern(pattern: str) -> Any:
    """Return a compiled pattern with `search`, `finditer` and the like of `re`. Raises PatternError."""
    # Not loaded before somebody has a pattern.
    re2 = importlib.import_module("re2")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise PatternError(_go_text(error, pattern)) from None


def found(pattern: str, text: str) -> bool:
    """Whether a pattern matches anywhere in a text; short texts are remembered. Raises PatternError."""
    if len(text) <= _REMEMBERED:
        return _found(pattern, text)
    return compile_pattern(pattern).search(text) is not None


@lru_cache(maxsize=4096)
def _found(pattern: str, text: str) -> bool:
    return compile_pattern(pattern).search(text) is not None


def _go_text(error: Exception, pattern: str) -> str:
    text = error.args[0] if error.args else ""
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    match = re.match(r"([^:]+)(?:: (.*))?", text, re.DOTALL)
    if match is None:
        return f"error parsing regexp: {text}"
    what, where = _GO.get(match[1], match[1]), match[2]
    return f"error parsing regexp: {what}: `{where if where is not None else pattern}`"
