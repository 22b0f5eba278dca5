"""What Kubernetes' own functions gave for given inputs, for the tests of the values in `kinds`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"


def cases(function: str) -> list[tuple[str, Any]]:
    """Give the inputs of a function and what it gave."""
    recorded = json.loads((GOLDEN / "values.json").read_text())["cases"][function]
    return [(given, gave) for given, gave in recorded]


def messages() -> list[tuple[str, dict[str, list[str]]]]:
    """Give the names that were checked, and for each check the messages about it."""
    said = json.loads((GOLDEN / "values.json").read_text())["messages"]
    return [
        (name, {check: [said[number] for number in numbers] for check, numbers in gave.items()})
        for name, gave in cases("names")
    ]
