"""How strongly counts speak against a version, tested after every second without asking too often.

The test is a Shiryaev-Roberts sum of likelihood ratios: each second might be the first bad one, and the sum weighs all
of them. While bad answers are no more than the share that a healthy version is held to, its expectation after n looks
is at most n; so it passes `looks / alarms` within that many looks with a probability of at most `alarms` (Doob), for
any number of requests in each, and also when the held share moves with what was known before. A mixture of several
worse shares makes it quick on gross failures and still sure of small ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

__all__ = ["Evidence", "threshold"]

_TIMES: Final = (3.0, 8.0, 20.0, 80.0)
"""How many times worse than held to a version may be; each has the same weight."""
_WORST: Final = 0.95
_LEAST: Final = 1e-6
_HIGHEST: Final = 0.9


def threshold(looks: int, alarms: float) -> float:
    """Return how much evidence (a natural logarithm) makes a false alarm in so many looks rarer than `alarms`."""
    return math.log(looks / alarms)


class Evidence:
    """Grows while more is bad than a healthy version is held to. `value` is a natural logarithm; it begins at -inf.

    parts: where it stood before, as `parts` gave it, so that a new process goes on from there.
    """

    __slots__ = ("_sums",)

    def __init__(self, parts: Sequence[float] = ()) -> None:
        self._sums = list(parts) if len(parts) == len(_TIMES) else [-math.inf] * len(_TIMES)

    @property
    def parts(self) -> list[float]:
        """How much there is of each alternative; -inf before the first look."""
        return list(self._sums)

    @property
    def value(self) -> float:
        """The logarithm of the mean of all alternatives' sums."""
        top = max(self._sums)
        if top == -math.inf:
            return top
        return top + math.log(sum(math.exp(each - top) for each in self._sums) / len(self._sums))

    def look(self, bad: int, all_: int, held: float) -> float:
        """Take one second's counts; return the evidence then. A second without answers says nothing.

        held: the share (0 to 1) of bad ones up to which a version counts as healthy in this second.
        """
        if not all_:
            return self.value
        held = min(max(held, _LEAST), _HIGHEST)
        for index, times in enumerate(_TIMES):
            worse = min(held * times, held + (_WORST - held) * (1 - 1 / times))
            ratio = bad * math.log(worse / held) + (all_ - bad) * math.log((1 - worse) / (1 - held))
            before = self._sums[index]
            self._sums[index] = ratio + max(before, 0.0) + math.log1p(math.exp(-abs(before)))
        return self.value
