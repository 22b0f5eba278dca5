"""Completion indexes of indexed jobs: sets of them as short texts, and what a pod says of its own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Final

from pilothouse.kinds.structs import Pod

__all__ = [
    "FAILURES",
    "IGNORED_FAILURES",
    "INDEX",
    "Indexes",
    "all_failures",
    "failures",
    "ignored_failures",
    "index_of",
]

INDEX: Final = "batch.kubernetes.io/job-completion-index"
FAILURES: Final = "batch.kubernetes.io/job-index-failure-count"
IGNORED_FAILURES: Final = "batch.kubernetes.io/job-index-ignored-failure-count"
_MAX_COUNT: Final = 2**31 - 1


class Indexes:
    """A set of indexes, kept as ordered spans: `1,3-5,7`. Immutable."""

    __slots__ = ("spans",)

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        """Take spans, each with its first and last index, in any order."""
        self.spans: Final = tuple(_joined(sorted(spans)))

    @classmethod
    def of(cls, indexes: Iterable[int]) -> Indexes:
        """Return the set of single indexes."""
        return cls((index, index) for index in indexes)

    @classmethod
    def read(cls, text: str, completions: int) -> Indexes:
        """Return the set that a text stands for, those below a number alone; what is no span is left out."""
        found = []
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            if not first.isdecimal() or (last and not last.isdecimal()):
                continue
            span = int(first), min(int(last or first), completions - 1)
            if span[0] >= completions:
                break
            if span[0] <= span[1]:
                found.append(span)
        return cls(found)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and any(first <= index <= last for first, last in self.spans)

    def __or__(self, other: Indexes) -> Indexes:
        return Indexes([*self.spans, *other.spans])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Indexes) and self.spans == other.spans

    def __hash__(self) -> int:
        return hash(self.spans)

    def __str__(self) -> str:
        return ",".join(_span_text(first, last) for first, last in self.spans)

    def __repr__(self) -> str:
        return f"Indexes({str(self)!r})"

    def common(self, other: Indexes) -> int:
        """Return how many indexes are in both."""
        return sum(
            max(0, min(last, end) - max(first, begin) + 1) for first, last in self.spans for begin, end in other.spans
        )

    def missing(self, completions: int, count: int) -> list[int]:
        """Return the first indexes below a number that are not in the set, `count` of them at most."""
        found: list[int] = []
        gaps = pairwise([(-1, -1), *self.spans, (completions, completions)])
        for (_, before), (after, _) in gaps:
            room = min(after, completions, before + 1 + count - len(found))
            found.extend(range(before + 1, room))
        return found


def _joined(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    present: tuple[int, int] | None = None
    for first, last in spans:
        if present is None:
            present = first, last
        elif first <= present[1] + 1:
            present = present[0], max(present[1], last)
        else:
            yield present
            present = first, last
    if present is not None:
        yield present


def _span_text(first: int, last: int) -> str:
    if first == last:
        return str(first)
    return f"{first},{last}" if last == first + 1 else f"{first}-{last}"


def index_of(pod: Pod) -> int | None:
    """Return a pod's completion index, None where its annotation is none."""
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isascii() and text.isdigit() else None


def failures(pod: Pod) -> int:
    """Return how many pods of the index had failed, those apart that a policy ignored, before this one was made."""
    return _count(pod.metadata.annotations, FAILURES)


def ignored_failures(pod: Pod) -> int:
    """Return how many failed pods of the index a policy had ignored before this one was made."""
    return _count(pod.metadata.annotations, IGNORED_FAILURES)


def all_failures(pod: Pod) -> int:
    """Return how many pods of the index had failed before this one was made."""
    return failures(pod) + ignored_failures(pod)


def _count(annotations: Mapping[str, str], name: str) -> int:
    text = annotations.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _MAX_COUNT else 0
