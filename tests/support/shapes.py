"""Whether what was written is still there in what a server keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["lost"]


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Give the paths of what was written and is not there any more, or is another."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            if not isinstance(kept, Mapping) or (name not in kept and value not in ({}, [])):
                yield f"{path}.{name}"
            else:
                yield from lost(value, kept.get(name, value), f"{path}.{name}")
    elif isinstance(given, list):
        if not isinstance(kept, list) or len(given) != len(kept):
            yield path
            return
        for place, pair in enumerate(zip(given, kept, strict=True)):
            yield from lost(*pair, f"{path}[{place}]")
    elif given != kept:
        yield path
