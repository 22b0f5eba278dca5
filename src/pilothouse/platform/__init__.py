"""The composition root: which processes the platform is made of, and who watches over them."""

from __future__ import annotations

from .supervisor import Part, Supervisor, become_supervisor

__all__ = ["Part", "Supervisor", "become_supervisor"]
