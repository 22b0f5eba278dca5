"""References `$(NAME)` in environment variables, commands and arguments. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["expand", "expand_strictly"]

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, *values: Mapping[str, str]) -> str:
    """Return `text` with each `$(NAME)` replaced by the first mapping's value that has it.

    `$$` stands for `$`, so that `$$(NAME)` stays as `$(NAME)`; a reference that nothing knows stays as it is.
    """
    return _expand(text, values, lambda name: f"$({name})")


def expand_strictly(text: str, *values: Mapping[str, str]) -> str:
    """Do the same for paths (`subPathExpr`), where every reference must be known. Raises `KeyError` of the name."""

    def missing(name: str) -> str:
        raise KeyError(name)

    return _expand(text, values, missing)


def _expand(text: str, values: tuple[Mapping[str, str], ...], missing: Callable[[str], str]) -> str:
    def replaced(found: re.Match[str]) -> str:
        name = found[1]
        if name is None:
            return "$"
        for known in values:
            if name in known:
                return known[name]
        return missing(name)

    return _REFERENCE.sub(replaced, text) if "$" in text else text
