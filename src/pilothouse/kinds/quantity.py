"""Amounts of resources: `500m`, `1536Mi`, `12e6`, as numbers that lose nothing."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache, total_ordering
from typing import Any, Final, Literal

__all__ = ["ZERO", "Format", "Quantity", "QuantityError", "canonical", "parse", "parse_json"]

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

_FORMAT_WRONG: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"  # the words of Go
)
_NUMBER_WRONG: Final = "unable to parse numeric part of quantity"
_SUFFIX_WRONG: Final = "unable to parse quantity's suffix"
_SHAPE: Final = re.compile(
    r"(?P<sign>[+-]?)(?P<zeros>0*)(?P<whole>[0-9]*)(?:\.(?P<part>[0-9]*))?(?P<suffix>[eEinumkKMGTP]*[-+]?[0-9]*)"
).fullmatch
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY: Final = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX: Final = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX: Final = ("", *_BINARY)
_EXPONENT: Final = re.compile("[eE][+-]?[0-9]+").fullmatch
_NANO: Final = -9
_LARGEST: Final = 2**63 - 1
_SMALLEST: Final = -(2**63)
_FAST_DIGITS: Final = 18
"""Digits that Go reads into an int64; longer numbers take its other path, which always rewrites the text."""
_MEMO: Final = 8192
_MEMO_LENGTH: Final = 64
"""Characters of the longest text remembered, so that hostile ones do not fill memory."""
_LONGEST: Final = 1000
"""Characters of the longest number read: longer ones would cost more than any amount is worth."""
_LARGEST_SHIFT: Final = 1000
"""Powers of ten between two numbers that are added or given in full; beyond it the result would fill memory."""


class QuantityError(ValueError):
    """A text is no quantity. The message is Kubernetes' own."""


def _divide_up(value: int, divisor: int) -> int:
    """Divide, rounding away from zero."""
    return -(-value // divisor) if value > 0 else value // divisor


def _scale_up(value: int, scale: int, target: int) -> int:
    """Give value x 10^scale in units of 10^target, rounded away from zero."""
    if scale >= target:
        return int(value * 10 ** (scale - target))
    shift = target - scale
    if shift > value.bit_length():
        return (value > 0) - (value < 0)
    return _divide_up(value, 10**shift)


def _clamp(value: int) -> int:
    return max(_SMALLEST, min(_LARGEST, value))


@total_ordering
class Quantity:
    """A number with the notation in which it is written. Immutable.

    It is `mantissa` x 10^`scale`. Comparison and hash go by the number alone: `1000m` equals `1`. `str()` gives the
    canonical text: no fraction, the largest suffix that loses nothing; or the text read, where Kubernetes keeps it.
    """

    __slots__ = ("_text", "format", "mantissa", "scale")

    def __init__(self, mantissa: int, scale: int = 0, format: Format = "DecimalSI", text: str = "") -> None:  # noqa: A002
        self.mantissa: Final = mantissa
        self.scale: Final = scale
        self.format: Final = format
        self._text = text

    def __str__(self) -> str:
        if not self._text:
            self._text = self._canonical()
        return self._text

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __bool__(self) -> bool:
        return self.mantissa != 0

    def _canonical(self) -> str:
        if not self.mantissa:
            return "0"
        if self.format == "BinarySI" and (whole := self._whole()) is not None and abs(whole) >= 1024:
            return _binary_text(whole)
        return _decimal_text(*_thousands(self.mantissa, self.scale), self.format == "DecimalExponent")

    def _whole(self) -> int | None:
        """Give the number if it has no fraction and is not too large to write out."""
        if self.scale >= 0:
            return int(self.mantissa * 10**self.scale) if self.scale <= _LARGEST_SHIFT else None
        whole, rest = divmod(self.mantissa, 10**-self.scale)
        return None if rest else whole

    def scaled_value(self, exponent: int) -> int:
        """Give the number in units of 10^exponent, rounded away from zero.

        What does not fit 64 bits is given as the nearest number that does, where Go gives an arbitrary one.
        """
        if self.scale - exponent > _FAST_DIGITS + 1:
            return 0 if not self.mantissa else _LARGEST if self.mantissa > 0 else _SMALLEST
        return _clamp(_scale_up(self.mantissa, self.scale, exponent))

    def value(self) -> int:
        """Give the number as a whole one, rounded away from zero, within 64 bits."""
        return self.scaled_value(0)

    def milli_value(self) -> int:
        """Give the number in thousandths, rounded away from zero, within 64 bits."""
        return self.scaled_value(-3)

    def exact(self) -> Fraction:
        """Give the number as a fraction. Raises OverflowError above 10^1000."""
        self._bound(self.scale)
        return Fraction(self.mantissa * 10 ** max(self.scale, 0), 10 ** max(-self.scale, 0))

    @staticmethod
    def _bound(shift: int) -> None:
        if shift > _LARGEST_SHIFT:
            msg = f"quantity too large: exponents differ by {shift}, {_LARGEST_SHIFT} at most"
            raise OverflowError(msg)

    def _aligned(self, other: Quantity) -> tuple[int, int, int]:
        """Give both mantissas at the smaller of the two scales, and that scale."""
        scale = min(self.scale, other.scale)
        self._bound(max(self.scale, other.scale) - scale)
        return self.mantissa * 10 ** (self.scale - scale), other.mantissa * 10 ** (other.scale - scale), scale

    def compare(self, other: Quantity) -> int:
        """Give -1, 0 or 1 as this number is less than, equal to or greater than the other."""
        if self.scale == other.scale:
            left, right = self.mantissa, other.mantissa
        else:
            left, right = _sign(self.mantissa), _sign(other.mantissa)
            if left == right != 0:
                # numbers of different length need no common scale, however far apart they are
                ours, theirs = _magnitude(self), _magnitude(other)
                if ours != theirs:
                    return left if ours > theirs else -left
                left, right, _ = self._aligned(other)
        return (left > right) - (left < right)

    def __eq__(self, other: object) -> bool:
        return self.compare(other) == 0 if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self.compare(other) < 0

    def __hash__(self) -> int:
        mantissa, scale = self.mantissa, self.scale
        if not mantissa:
            return hash(0)
        while mantissa % 10 == 0:
            mantissa //= 10
            scale += 1
        return hash((mantissa, scale))

    def __add__(self, other: Quantity) -> Quantity:
        """Add; the notation is this number's, or the other's if this is zero. Raises OverflowError as `exact`."""
        if not self.mantissa:
            return Quantity(other.mantissa, other.scale, other.format)
        if not other.mantissa:
            return Quantity(self.mantissa, self.scale, self.format)
        left, right, scale = self._aligned(other)
        return Quantity(left + right, scale, self.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return self + -other

    def __neg__(self) -> Quantity:
        return Quantity(-self.mantissa, self.scale, self.format)

    def __mul__(self, factor: int) -> Quantity:
        """Multiply by a whole number."""
        return Quantity(self.mantissa * factor, self.scale, self.format)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


def _magnitude(quantity: Quantity) -> int:
    return len(str(abs(quantity.mantissa))) + quantity.scale


def _thousands(mantissa: int, scale: int) -> tuple[int, int]:
    """Move factors of ten into the exponent, as many as leave it a multiple of three."""
    while mantissa % 10 == 0:
        mantissa //= 10
        scale += 1
    spare = scale % 3
    return mantissa * 10**spare, scale - spare


def _decimal_text(mantissa: int, exponent: int, with_exponent: bool) -> str:
    if with_exponent:
        return f"{mantissa}e{exponent}" if exponent else str(mantissa)
    if exponent > _DECIMAL["E"]:
        # Go would leave out a suffix it does not have and so change the number
        if exponent - _DECIMAL["E"] > _LONGEST:
            return f"{mantissa}e{exponent}"
        mantissa, exponent = mantissa * 10 ** (exponent - _DECIMAL["E"]), _DECIMAL["E"]
    return f"{mantissa}{_DECIMAL_SUFFIX[exponent]}"


def _binary_text(whole: int) -> str:
    power = 0
    while whole % 1024 == 0 and power < len(_BINARY):
        whole //= 1024
        power += 1
    return f"{whole}{_BINARY_SUFFIX[power]}"


def _suffix(suffix: str) -> tuple[int, int, Format]:
    """Give the exponents of ten and of two, and the notation."""
    if suffix in _DECIMAL:
        return _DECIMAL[suffix], 0, "DecimalSI"
    if suffix in _BINARY:
        return 0, _BINARY[suffix], "BinarySI"
    if not _EXPONENT(suffix) or not _SMALLEST <= (exponent := int(suffix[1:])) <= _LARGEST:
        raise QuantityError(_SUFFIX_WRONG)
    # Go keeps the lower 32 bits
    return (exponent + 2**31) % 2**32 - 2**31, 0, "DecimalExponent"


def _read(text: str) -> Quantity:
    found = _SHAPE(text) if 0 < len(text) <= _LONGEST else None
    if found is None:
        raise QuantityError(_FORMAT_WRONG)
    # after nothing but zeros nothing is looked at in Go, so that `+` and `-` are zero too
    whole, part = found["whole"] or "0", found["part"] or ""
    ten, two, notation = _suffix(found["suffix"])
    digits = whole + part
    number = int(digits) << two
    scale = ten - len(part)
    fast = _is_fast(len(digits), len(whole), two, part) and scale >= _NANO
    kept = ""
    if fast and (
        (two % 10 == 0 and int(digits) & 7 != 0)
        if notation == "BinarySI"
        else scale % 3 == 0 and not digits.endswith("000") and digits[0] != "0"
    ):
        kept = text
    if not fast:
        if not (found["zeros"] or found["whole"] or part):
            raise QuantityError(_NUMBER_WRONG)
        number, scale, notation = _rounded(number, scale, notation)
    return Quantity(-number if found["sign"] == "-" else number, scale, notation, kept)


def _is_fast(digits: int, whole: int, two: int, part: str) -> bool:
    if not two:
        return digits <= _FAST_DIGITS
    return not part and 15 - whole - two * 3 // 10 - 1 >= 0


def _rounded(number: int, scale: int, notation: Format) -> tuple[int, int, Format]:
    """Round up to billionths, cap binary amounts, and write those below one as decimal."""
    if number and scale < _NANO:
        number, scale = _scale_up(number, scale, _NANO), _NANO
    if notation == "BinarySI":
        unit = 10 ** max(-scale, 0)
        if number > _LARGEST * unit:
            return _LARGEST, 0, notation
        if 0 < number < unit:
            return number, scale, "DecimalSI"
    return number, scale, notation


_remembered: Final = lru_cache(maxsize=_MEMO)(_read)


def parse(text: str) -> Quantity:
    """Read a quantity; the result is shared, being immutable.

    Raises QuantityError with Kubernetes' message. Follows `resource.ParseQuantity`: fractions beyond billionths round
    away from zero, binary amounts are capped at 2^63-1.
    """
    return _remembered(text) if len(text) <= _MEMO_LENGTH else _read(text)


def canonical(text: str) -> str:
    """Give the text that a server stores for the one a client sent. Raises QuantityError."""
    return str(parse(text.strip()))


def parse_json(value: Any) -> Quantity:
    """Read a quantity from a decoded JSON value: a string or a number; none is zero. Raises QuantityError."""
    if isinstance(value, str):
        return parse(value.strip())
    if value is None:
        return ZERO
    if isinstance(value, int | float) and not isinstance(value, bool):
        return parse(str(value))
    raise QuantityError(_FORMAT_WRONG)


ZERO: Final = Quantity(0, text="0")
"""Nothing."""
