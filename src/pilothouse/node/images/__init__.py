"""Images of containers: names, layouts, registries, and the store that holds them."""

from __future__ import annotations

__all__: list[str] = []
