"""Shares of backends, kept to the request: a schedule that repeats, and a counter that says where in it we are.

Where the weights, brought to lowest terms, add up to a divisor of 1,000, each 1,000 requests in a row are split
exactly, and each shorter run as evenly as it can be. Other weights are exact over their own sum. Sums over `MOST` are
scaled down to it, by the largest remainders.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pilothouse.traffic.config import RegionSplit, Weighted

from .counters import Counters

__all__ = ["MOST", "Portion", "RegionShares", "Share", "Shares", "schedule"]

MOST: Final = 10_000
"""How long a schedule may be."""


def schedule(weights: Sequence[int]) -> tuple[int, ...]:
    """Return whose turn it is, by index, as evenly as weights allow (smooth weighted round robin); empty for no weight.

    Raises ValueError for a negative weight.
    """
    if any(weight < 0 for weight in weights):
        raise ValueError(f"weights {list(weights)}: one is negative")
    lowest = _lowest(weights)
    total, standing = sum(lowest), [0] * len(lowest)
    made = []
    for _ in range(total):
        for index, weight in enumerate(lowest):
            standing[index] += weight
        turn = max(range(len(standing)), key=standing.__getitem__)
        standing[turn] -= total
        made.append(turn)
    return tuple(made)


def _lowest(weights: Sequence[int]) -> list[int]:
    divisor = math.gcd(*weights) or 1
    lowest = [weight // divisor for weight in weights]
    total = sum(lowest)
    if total <= MOST:
        return lowest
    scaled = [max(1, weight * MOST // total) if weight else 0 for weight in lowest]
    missing = MOST - sum(scaled)
    order = sorted(range(len(lowest)), key=lambda index: -(lowest[index] * MOST % total))
    for index in order[: max(0, missing)]:
        scaled[index] += 1
    return scaled


@dataclass(frozen=True, slots=True)
class Share:
    """A backend's share in a rule. token: what a client's cookie says of it, the same for as long as it is named so."""

    weighted: Weighted
    token: str


class Shares:
    """The backends of a rule.

    key: of the counter that all workers share. Backends of weight 0 get nothing, also from clients that were with them.
    """

    def __init__(self, key: str, backends: Sequence[Weighted]) -> None:
        self._all = tuple(Share(each, _token(each)) for each in backends)
        self._turns = tuple(self._all[index] for index in schedule([each.weight for each in backends]))
        self._by_token = {each.token: each for each in self._all}
        self._only = self._turns[0] if len(set(self._turns)) == 1 else None
        self._key = key

    def __bool__(self) -> bool:
        return bool(self._turns)

    def next(self, counters: Counters) -> Share | None:
        """Return whose turn it is, None where nobody has a weight."""
        if self._only is not None:
            return self._only
        if not self._turns:
            return None
        return self._turns[counters.next(self._key) % len(self._turns)]

    def of_token(self, token: str, *, even_without_weight: bool = False) -> Share | None:
        """Return the share that a client's cookie tells of, None where that has no weight any more."""
        share = self._by_token.get(token)
        return share if share is not None and (share.weighted.weight or even_without_weight) else None

    def of_hash(self, value: str) -> Share | None:
        """Return the same share for the same value, for as long as the shares are the same."""
        if not self._turns:
            return None
        digest = hashlib.blake2b(value.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        # Along the weights in their order, so that a small change of them moves few clients.
        place = int.from_bytes(digest) * sum(each.weighted.weight for each in self._all) >> 64
        for each in self._all:
            place -= each.weighted.weight
            if place < 0:
                return each
        return self._turns[-1]


class Portion:
    """So many in `of` requests: any `of` in a row have exactly that many, and shorter runs as evenly as it can be.

    key: of the counter that all workers share.
    """

    def __init__(self, key: str, numerator: int, of: int) -> None:
        self.key: Final = key
        self._numerator, self._of = max(0, min(numerator, of)), max(of, 1)

    @property
    def is_counted(self) -> bool:
        """Whether it takes some requests and not others."""
        return 0 < self._numerator < self._of

    def takes(self, counters: Counters) -> bool:
        """Return whether it takes this request."""
        if not self.is_counted:
            return self._numerator > 0
        turn = counters.next(self.key)
        return (turn + 1) * self._numerator // self._of > turn * self._numerator // self._of


class RegionShares:
    """The shares of a rule, other ones for clients of some regions."""

    def __init__(self, key: str, backends: Sequence[Weighted], splits: Sequence[RegionSplit]) -> None:
        self._usual = Shares(key, backends)
        self._of_region = {
            region: Shares(f"{key}#{number}", split.backends)
            for number, split in reversed([*enumerate(splits)])
            for region in split.regions
        }

    def of(self, region: str) -> Shares:
        """Return the shares for a region; the first split that names it counts."""
        return self._of_region.get(region, self._usual) if self._of_region else self._usual


def _token(each: Weighted) -> str:
    return hashlib.blake2b(f"{each.backend}\0{each.version}".encode(), digest_size=6).hexdigest()
