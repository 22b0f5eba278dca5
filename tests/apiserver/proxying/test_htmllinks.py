"""Links of proxied pages: which are rewritten, and what stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.proxying.htmllinks import rewrite_links


def through(page: str) -> str:
    return rewrite_links(page, lambda link: f"/p{link}" if link.startswith("/") else link)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a href="/rewriteme">test</a>', '<a href="/p/rewriteme">test</a>'),
        ("<A HREF='/x' class=big checked>", '<a href="/p/x" class="big" checked="">'),
        ("<img src=/x.png alt='a > b'/>", '<img src="/p/x.png" alt="a &gt; b"/>'),
        ('<form action="/a?x=1&amp;y=2"><p style="/s">', '<form action="/p/a?x=1&amp;y=2"><p style="/s">'),
        ('<video poster="/a" src="/b"></video>', '<video poster="/p/a" src="/p/b"></video>'),
        (
            '<script src="/a.js">if (x<y) "<a href=1>"</script><a href="/y">',
            '<script src="/p/a.js">if (x<y) "<a href=1>"</script><a href="/p/y">',
        ),
        (
            "<!-- <a href='/x'> --><!DOCTYPE html><?x <a href='/y'>?>",
            "<!-- <a href='/x'> --><!DOCTYPE html><?x <a href='/y'>?>",
        ),
        ("<p / = / /><a / = href=/x / />", '<p / = / /><a href="/p/x"/>'),
        ("<textarea><a href='/x'></TextArea>", "<textarea><a href='/x'></TextArea>"),
        ("1 < 2 <> <3 </a href='/x'>", "1 < 2 <> <3 </a href='/x'>"),
        ("<a href='#top'><a href='http://e.example/x'>", '<a href="#top"><a href="http://e.example/x">'),
        ("<a href='/x", "<a href='/x"),
        ("<p =x a=b>", "<p =x a=b>"),
    ],
)
def test_links_are_rewritten_and_nothing_else(page: str, expected: str) -> None:
    assert through(page) == expected


@given(st.text(alphabet="<>/ =\"'!-?abhref\n&", max_size=200))
def test_pages_without_links_stay_and_none_fails(page: str) -> None:
    found = rewrite_links(page, lambda link: link)
    assert rewrite_links(found, lambda link: link) == found
    if "a" not in page and "b" not in page:
        assert found == page


@pytest.mark.parametrize(
    "unit", ["<a ", '<a "', "<a '", '<a x="', "<", "<!--", "<script>", "</", '<a "<a" ', "<a / = "]
)
def test_hostile_pages_are_read_in_one_pass(unit: str) -> None:
    # What is read again and again for each "<" would run into the time that a test may take.
    assert through("<a " + unit * 100_000)
