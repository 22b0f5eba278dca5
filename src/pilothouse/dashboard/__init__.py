"""The dashboard: what a team sees of its applications, rollouts, events and logs, each with the rights of who looks."""

from __future__ import annotations

__all__: list[str] = []
