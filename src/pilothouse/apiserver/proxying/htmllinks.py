"""Links in HTML pages of proxied servers, rewritten so that they lead through the proxy again."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Final

__all__ = ["rewrite_links"]

# The attributes that hold one URL each, by element, as the HTML specification lists them.
_LINKS: Final = {
    "a": {"href"},
    "applet": {"codebase"},
    "area": {"href"},
    "audio": {"src"},
    "base": {"href"},
    "blockquote": {"cite"},
    "body": {"background"},
    "button": {"formaction"},
    "command": {"icon"},
    "del": {"cite"},
    "embed": {"src"},
    "form": {"action"},
    "frame": {"longdesc", "src"},
    "head": {"profile"},
    "html": {"manifest"},
    "iframe": {"longdesc", "src"},
    "img": {"longdesc", "src", "usemap"},
    "input": {"formaction", "src", "usemap"},
    "ins": {"cite"},
    "link": {"href"},
    "object": {"classid", "codebase", "data", "usemap"},
    "q": {"cite"},
    "script": {"src"},
    "source": {"src"},
    "video": {"poster", "src"},
}
_RAW: Final = ("iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp")
"""Elements whose content is text and holds no tags."""
_RAW_ENDS: Final = {name: re.compile(f"</{name}", re.IGNORECASE) for name in _RAW}
_NAME: Final = re.compile(r"<([A-Za-z][^\s/>]*)")
_ATTRIBUTE: Final = re.compile(r"""[\s/]*([^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"']*)))?""")
_END: Final = re.compile(r"\s*/?\s*>")
_STRAY: Final = re.compile(r"[\s/=]+")
_ESCAPES: Final = str.maketrans({"&": "&amp;", "'": "&#39;", "<": "&lt;", ">": "&gt;", '"': "&#34;"})


def rewrite_links(page: str, rewrite: Callable[[str], str]) -> str:
    """Return the page with each link given to `rewrite`; all else stays. Takes time in proportion to the page."""
    found: list[str] = []
    place = 0
    while (start := page.find("<", place)) >= 0:
        found.append(page[place:start])
        text, place = _markup(page, start, rewrite)
        found.append(text)
        if place < 0:
            return "".join(found)
    return "".join([*found, page[place:]])


def _markup(page: str, start: int, rewrite: Callable[[str], str]) -> tuple[str, int]:
    """Return what stands for the markup at a place and where it ends, -1 for the end of the page."""
    if page.startswith("<!--", start):
        return _until(page, start, page.find("-->", start + 4), 3)
    if page[start + 1 : start + 2] in {"!", "?", "/"}:
        return _until(page, start, page.find(">", start), 1)
    name = _NAME.match(page, start)
    if name is None:
        return "<", start + 1
    return _tag(page, name, rewrite)


def _until(page: str, start: int, end: int, length: int) -> tuple[str, int]:
    return (page[start:], -1) if end < 0 else (page[start : end + length], end + length)


def _tag(page: str, named: re.Match[str], rewrite: Callable[[str], str]) -> tuple[str, int]:
    start, place, name = named.start(), named.end(), named[1].lower()
    attributes: list[tuple[str, str]] = []
    while (end := _END.match(page, place)) is None:
        attribute = _ATTRIBUTE.match(page, place)
        if attribute is None:
            # Stray signs between attributes.
            stray = _STRAY.match(page, place)
            place = stray.end() if stray else len(page)
            if place == len(page):
                return page[start:], -1
            continue
        attributes.append((attribute[1].lower(), next((part for part in attribute.groups()[1:] if part), "")))
        place = attribute.end()
    place = end.end()
    text, closed = page[start:place], page[place - 2] == "/"
    if links := _LINKS.get(name):
        text = _written(name, attributes, links, rewrite) + ("/>" if closed else ">")
    if name in _RAW_ENDS and not closed:
        closing = _RAW_ENDS[name].search(page, place)
        return (text + page[place:], -1) if closing is None else (text + page[place : closing.start()], closing.start())
    return text, place


def _written(name: str, attributes: list[tuple[str, str]], links: set[str], rewrite: Callable[[str], str]) -> str:
    """Write a tag anew, as Go does: every value quoted and escaped."""
    parts = [f"<{name}"]
    for attribute, raw in attributes:
        value = unescape(raw)
        if attribute in links:
            value = rewrite(value)
        parts.append(f'{attribute}="{value.translate(_ESCAPES)}"')
    return " ".join(parts)
