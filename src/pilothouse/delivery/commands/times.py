"""Spans of time as users write them."""

from __future__ import annotations

import click

__all__ = ["seconds_of"]


def seconds_of(option: str, text: str) -> float:
    """Return the seconds of `90`, `90s` or `1h30m`. Raises click.BadParameter, which names the option."""
    from pilothouse.kinds import durations

    try:
        found = float(text) if text.isdecimal() else durations.parse(text) / durations.SECOND
    except durations.DurationError:
        found = -1.0
    if found < 0:
        raise click.BadParameter(f"{text!r}: want a span of time, such as 90s, 10m or 1h30m", param_hint=option)
    return found
