"""Which commit a revision means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.errors import RevisionError
from pilothouse.delivery.gitops.versions import References, Version, is_constraint, newest, parse_references, satisfies

A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)
PRINTED = f"""\
ref: refs/heads/main\tHEAD
{A}\tHEAD
{A}\trefs/heads/main
{B}\trefs/heads/v1.0.0
{D}\trefs/tags/v1.0.0
{C}\trefs/tags/v1.0.0^{{}}
{B}\trefs/tags/v1.2.0
{D}\trefs/tags/v2.0.0-rc.1
"""


@pytest.mark.parametrize(
    ("revision", "commit"),
    [
        ("", A),
        ("HEAD", A),
        ("main", A),
        ("refs/heads/main", A),
        ("v1.0.0", C),
        ("1.x", B),
        (">=1.0.0 <1.1.0", C),
        ("^1.0", B),
        ("*", B),
        (">=2.0.0-0", D),
        (D, D),
        (A[:8], A),
    ],
)
def test_a_revision_means_a_commit(revision: str, commit: str) -> None:
    assert parse_references(PRINTED.encode()).resolve(revision) == commit


@pytest.mark.parametrize("revision", ["nope", "3.x", "f" * 8])
def test_what_is_not_there_is_said(revision: str) -> None:
    with pytest.raises(RevisionError, match=revision):
        parse_references(PRINTED.encode()).resolve(revision)
    with pytest.raises(RevisionError, match="default branch"):
        References().resolve("HEAD")


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        ("1.2.3", ["1.2.3"], ["1.2.4"]),
        ("=1.2", ["1.2.0", "1.2.9"], ["1.3.0"]),
        ("~1.2.3", ["1.2.3", "1.2.9"], ["1.3.0", "1.2.2"]),
        ("~1", ["1.0.0", "1.9.0"], ["2.0.0"]),
        ("^1.2.3", ["1.2.3", "1.9.0"], ["2.0.0", "1.2.2"]),
        ("^0.2.3", ["0.2.3", "0.2.9"], ["0.3.0"]),
        ("^0.0.3", ["0.0.3"], ["0.0.4"]),
        ("1.2 - 1.4", ["1.2.0", "1.4.9"], ["1.5.0", "1.1.9"]),
        (">1.2", ["1.3.0"], ["1.2.9"]),
        ("<=1.2", ["1.2.9", "1.0.0"], ["1.3.0"]),
        ("!=1.2.3", ["1.2.4"], ["1.2.3"]),
        ("1.x || >=3.0.0", ["1.5.0", "3.1.0"], ["2.0.0"]),
        (">=1.0.0, <2.0.0", ["1.5.0"], ["2.0.0", "1.5.0-rc.1"]),
        (">=1.0.0-beta", ["1.0.0-rc", "1.0.0"], ["1.0.0-alpha"]),
    ],
)
def test_ranges(constraint: str, inside: list[str], outside: list[str]) -> None:
    for text in inside:
        assert satisfies(Version.of(text) or Version(0, 0, 0), constraint), text
    for text in outside:
        assert not satisfies(Version.of(text) or Version(0, 0, 0), constraint), text


def test_names_are_no_ranges() -> None:
    for text in ("main", "release-1.2", "v1.2.3", "feature/x", "1.2.3", ""):
        assert not is_constraint(text), text


def test_prereleases_are_ordered_as_semver_says() -> None:
    order = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0"]
    assert sorted(order, key=lambda text: Version.of(text) or Version(0, 0, 0)) == order


versions = st.tuples(*[st.integers(0, 5)] * 3).map(lambda parts: ".".join(map(str, parts)))


@given(st.lists(versions, min_size=1), st.integers(0, 5))
def test_the_newest_of_a_major_version_is_the_greatest(listed: list[str], major: int) -> None:
    best = newest(listed, f"^{major}" if major else "0.x")
    fitting = [text for text in listed if text.startswith(f"{major}.")]
    key = [tuple(map(int, text.split("."))) for text in fitting]
    assert (best is None) == (not fitting)
    assert best is None or tuple(map(int, best.split("."))) == max(key)


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_is_not(text: str) -> None:
    if is_constraint(text):
        satisfies(Version(1, 2, 3), text)
