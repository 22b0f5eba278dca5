"""Which commit a target revision means: a branch, a tag, a commit, HEAD, or a range of versions of tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from .errors import RevisionError

__all__ = ["References", "Version", "is_commit", "is_constraint", "newest", "parse_references", "satisfies"]

_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHORT: Final = re.compile(r"[0-9a-f]{7,39}")
_VERSION: Final = re.compile(
    r"v?(0|[1-9]\d{0,9})(?:\.(0|[1-9]\d{0,9}))?(?:\.(0|[1-9]\d{0,9}))?(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_PART: Final = re.compile(
    r"(?P<op>=|==|!=|>|<|>=|=>|<=|=<|~|~>|\^)?\s*v?(?P<major>\d{1,10}|[xX*])(?:\.(?P<minor>\d{1,10}|[xX*]))?"
    r"(?:\.(?P<patch>\d{1,10}|[xX*]))?(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?"
)
_WILD: Final = frozenset({"x", "X", "*", None})
_MAX_REFERENCES: Final = 200_000


class Version(NamedTuple):
    """A semantic version; `release` is 1 for one that is no pre-release, so that it is above its pre-releases."""

    major: int
    minor: int
    patch: int
    release: int = 1
    pre: tuple[tuple[int, int, str], ...] = ()

    @classmethod
    def of(cls, text: str) -> Version | None:
        """Read a version; parts that are left out are 0."""
        found = _VERSION.fullmatch(text)
        if found is None:
            return None
        numbers = [int(found[n] or 0) for n in (1, 2, 3)]
        return cls(numbers[0], numbers[1], numbers[2], *_pre(found[4]))


def _pre(text: str | None) -> tuple[int, tuple[tuple[int, int, str], ...]]:
    if not text:
        return 1, ()
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in text.split(".")]
    return 0, tuple(parts)


def is_commit(text: str) -> bool:
    """Whether a text is a whole commit."""
    return _COMMIT.fullmatch(text) is not None


def is_constraint(text: str) -> bool:
    """Whether a text is a range of versions and not one version or a name."""
    if Version.of(text) is not None and text.count(".") == 2:
        return False
    try:
        return bool(text) and any(each in text for each in "*xX^~<>=| ") and bool(_alternatives(text))
    except ValueError:
        return False


def satisfies(version: Version, constraint: str) -> bool:
    """Whether a version is in a range. Pre-releases are only where the range names one. Raises ValueError."""
    return any(all(_holds(version, part) for part in parts) for parts in _alternatives(constraint))


def newest(names: Iterable[str], constraint: str) -> str | None:
    """Return the name with the greatest version in a range, None where there is none."""
    found = [(version, name) for name in names if (version := Version.of(name)) and satisfies(version, constraint)]
    return max(found)[1] if found else None


class _Bound(NamedTuple):
    op: str
    version: Version
    given: int
    """How many of its numbers were written: `1.2` is two."""


def _alternatives(text: str) -> list[list[_Bound]]:
    return [_bounds(each.strip()) for each in text.split("||")]


def _bounds(text: str) -> list[_Bound]:
    spanned = re.fullmatch(r"(\S+)\s+-\s+(\S+)", text)
    if spanned:
        text = f">={spanned[1]} <={spanned[2]}"
    found, at = [], 0
    while at < len(text):
        match = _PART.match(text, at)
        if match is None or (match["op"] in {"=", ""} and match.end() == at):
            raise ValueError(f"{text!r} is no range of versions")
        found.append(_bound(match))
        at = match.end()
        rest = re.compile(r"[\s,]+").match(text, at)
        if rest is None and at < len(text):
            raise ValueError(f"{text!r} is no range of versions")
        at = rest.end() if rest else at
    if not found:
        raise ValueError("an empty range of versions")
    return found


def _bound(match: re.Match[str]) -> _Bound:
    given = 0
    numbers = [0, 0, 0]
    for place, name in enumerate(("major", "minor", "patch")):
        if match[name] in _WILD:
            break
        numbers[place], given = int(match[name]), place + 1
    version = Version(numbers[0], numbers[1], numbers[2], *_pre(match["pre"]))
    return _Bound((match["op"] or "=").replace("==", "=").replace("~>", "~").replace("=>", ">="), version, given)


def _holds(version: Version, bound: _Bound) -> bool:
    wanted, given = bound.version, bound.given
    if version.pre and not wanted.pre:
        return False
    match bound.op:
        case "=":
            return version[:given] == wanted[:given] if given < 3 else version == wanted
        case "!=":
            return version[:given] != wanted[:given] if given < 3 else version != wanted
        case ">":
            return version > wanted if given == 3 else version[:given] > wanted[:given]
        case "<":
            return version < wanted
        case ">=":
            return version >= wanted
        case "~":
            same = min(given, 2) if given else 0
            return version >= wanted and version[:same] == wanted[:same]
        case "^":
            return version >= wanted and _caret(version, wanted, given)
    return version <= wanted if given == 3 else version[:given] <= wanted[:given]


def _caret(version: Version, wanted: Version, given: int) -> bool:
    for place in range(min(given, 3)):
        if wanted[place] or place == given - 1:
            return version[: place + 1] == wanted[: place + 1]
    return True


@dataclass(frozen=True, slots=True)
class References:
    """What a repository has, as it said last: commits by full name, and what HEAD stands for.

    tags: objects of annotated tags by full name; what they lead to is in commits.
    """

    commits: Mapping[str, str] = field(default_factory=dict)
    head: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str:
        """Return the commit that a revision means.

        A tag goes before a branch of the same name, a name before a range of versions. Raises RevisionError.
        """
        if revision in {"", "HEAD"}:
            found = self.commits.get("HEAD") or self.commits.get(self.head)
            if found is None:
                raise RevisionError("HEAD: the repository has no default branch; is it empty?")
            return found
        if _COMMIT.fullmatch(revision):
            return revision
        for name in (revision, f"refs/tags/{revision}", f"refs/heads/{revision}"):
            if name in self.commits:
                return self.commits[name]
        if is_constraint(revision):
            tags = [name.removeprefix("refs/tags/") for name in self.commits if name.startswith("refs/tags/")]
            best = newest(tags, revision)
            if best is None:
                raise RevisionError(f"targetRevision {revision!r}: none of {len(tags)} tags is in this range")
            return self.commits[f"refs/tags/{best}"]
        if _SHORT.fullmatch(revision):
            near = {commit for commit in self.commits.values() if commit.startswith(revision)}
            if len(near) == 1:
                return near.pop()
            raise RevisionError(f"targetRevision {revision!r}: write the whole commit; short ones are not looked for")
        raise RevisionError(f"targetRevision {revision!r}: the repository has no such branch, tag or commit")

    def name_of(self, commit: str) -> str:
        """Return a reference that stands for a commit, an empty text where none does."""
        return next((name for name, found in self.commits.items() if found == commit and name != "HEAD"), "")


def parse_references(printed: bytes) -> References:
    """Read what `git ls-remote --symref` prints; tags are the commits that they lead to. Raises RevisionError."""
    commits: dict[str, str] = {}
    tags: dict[str, str] = {}
    head = ""
    for line in printed.decode(errors="replace").splitlines():
        left, _, name = line.partition("\t")
        if left.startswith("ref: "):
            head = left.removeprefix("ref: ") if name == "HEAD" else head
        elif _COMMIT.fullmatch(left) and name:
            own = name.removesuffix("^{}")
            if own != name and own in commits:  # what a tag leads to comes after the tag
                tags[own] = commits[own]
            commits[own] = left
        if len(commits) > _MAX_REFERENCES:
            raise RevisionError(f"the repository has more than {_MAX_REFERENCES} references")
    return References(commits, head, tags)
