"""Containers as process trees of this machine, made and kept by Python alone."""

from __future__ import annotations

__all__: list[str] = []
