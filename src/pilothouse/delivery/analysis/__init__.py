"""Measurements of a new version and the verdict on it."""

__all__: list[str] = []
