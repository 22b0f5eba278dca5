"""Queries: what calls put behind the `?`, with selectors as texts or as mappings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote

__all__ = ["Selector", "query", "selector_text"]

Selector: TypeAlias = str | Mapping[str, str]
"""Labels or fields to select by: Kubernetes' text (`app in (a,b),!old`), or names with the values they have."""


def selector_text(selector: Selector) -> str:
    """Write a selector as text."""
    if isinstance(selector, str):
        return selector
    return ",".join(f"{name}={value}" for name, value in selector.items())


def query(**parameters: str | int | bool | None) -> str:
    """Write a query with its `?`, without what is empty, zero, false or None; a name's trailing `_` is not sent."""
    made = []
    for name, value in parameters.items():
        if value is None or value is False or value == "" or (value == 0 and not isinstance(value, bool)):
            continue
        text = "true" if value is True else quote(str(value), safe="")
        made.append(f"{name.rstrip('_')}={text}")
    return f"?{'&'.join(made)}" if made else ""
