"""Commands `pilothouse rollout`, `app` and `slo`: what they ask of a server, and what they say when it refuses."""

from __future__ import annotations

__all__: list[str] = []
