"""Services and network policies on a node: by rules of nftables where they can be made, else as far as possible."""

from __future__ import annotations

__all__: list[str] = []
