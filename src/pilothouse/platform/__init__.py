"""The composition root: which processes the platform is made of, and who watches over them."""

from __future__ import annotations

from typing import Final

from .supervisor import Part, Supervisor, become_supervisor

__all__ = ["PARTS", "Part", "Supervisor", "become_supervisor"]

PARTS: Final = ("controllers", "scheduler")
"""What runs beside the API server, and can be left out."""
