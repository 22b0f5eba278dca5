"""What can go wrong in this room.

SchedulingError
└── ConfigurationError    a scheduler configuration that cannot be used; names the field
"""

from __future__ import annotations

__all__ = ["ConfigurationError", "SchedulingError"]


class SchedulingError(Exception):
    """The root of this room's errors."""


class ConfigurationError(SchedulingError):
    """A scheduler configuration cannot be used. `field` is where, as `profiles[0].plugins.score.enabled[1].weight`."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
