"""What a running gateway tells its owner: routes, backends, what is busiest, how bytes moved, by a unix socket."""

from __future__ import annotations

__all__: list[str] = []
