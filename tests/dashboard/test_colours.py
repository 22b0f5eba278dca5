"""Text can be read: the colours of both themes against what they are written on, by WCAG 2.2, level AA."""

from __future__ import annotations

import re
from itertools import product
from typing import Final

import pytest

from pilothouse.dashboard.assets import load_assets

Colour = tuple[float, float, float]
LEAST: Final = 4.5
LEAST_OF_LINES: Final = 3.0
WORDS: Final = ("text", "muted", "faint", "accent", "good", "busy", "wait", "warn", "bad", "canary-text", "stable")
GROUNDS: Final = ("bg", "surface", "raised")
TONES: Final = ("faint", "good", "busy", "wait", "warn", "bad")
TINT: Final = 0.13
"""Of a tone on a pill; differences and found lines have about as much."""
_TOKEN: Final = re.compile(r"--([a-z-]+): light-dark\(#(\w+), #(\w+)\)")


def colours(theme: int) -> dict[str, Colour]:
    text = load_assets()["base.css"].body.decode()
    return {found[1]: _colour(found[2 + theme]) for found in _TOKEN.finditer(text)}


def _colour(digits: str) -> Colour:
    whole = "".join(each * 2 for each in digits) if len(digits) == 3 else digits
    red, green, blue = (int(whole[at : at + 2], 16) for at in (0, 2, 4))
    return red, green, blue


def _mixed(one: Colour, other: Colour, part: float) -> Colour:
    red, green, blue = (a * part + b * (1 - part) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _luminance(colour: Colour) -> float:
    parts = [each / 255 for each in colour]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Colour, other: Colour) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_black_and_white_differ_most() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_can_be_read(theme: int) -> None:
    found = colours(theme)
    pairs = {f"{word} on {ground}": (found[word], found[ground]) for word, ground in product(WORDS, GROUNDS)}
    for tone, ground in product(TONES, ("bg", "surface")):
        pairs[f"a pill of {tone} on {ground}"] = found[tone], _mixed(found[tone], found[ground], TINT)
    pairs["a button"] = found["on-accent"], found["accent"]
    assert contrast(found["canary"], found["surface"]) >= LEAST_OF_LINES
    poor = {name: round(contrast(*pair), 2) for name, pair in pairs.items() if contrast(*pair) < LEAST}
    assert poor == {}
