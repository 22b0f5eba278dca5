"""Values with forms of their own, as JSON has them: `kinds.times`, `kinds.quantity` and `kinds.intstr` read them."""

from __future__ import annotations

from typing import TypeAlias

from ._absent import EMPTY

__all__ = ["EMPTY", "IntOrString", "Quantity", "Time"]

Time: TypeAlias = str
"""A moment in RFC 3339, kept as text: what was read is written again to the digit, and only who looks at it pays for
reading it. `times.parse` gives an aware datetime, `times.format_seconds` and `times.format_micros` the text of one."""

Quantity: TypeAlias = str | int | float
"""An amount such as `500m` or `1.5Gi`; servers give text, files may have numbers. `quantity.parse_json` reads it."""

IntOrString: TypeAlias = int | str
"""A number, or a percentage or name as text."""
