"""Cuts the text of an expression into tokens."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pilothouse.apiserver.cel.errors import Issue
from pilothouse.apiserver.cel.values import Uint

__all__ = ["Token", "tokens"]


class Token(NamedTuple):
    """kind: `ident`, `op`, `const`, `quoted` or `end`; text as written; value of a literal."""

    kind: str
    text: str
    at: int
    value: Any = None


_TOKEN = re.compile(
    r"""
    (?P<space>(?:[ \t\r\n\f]+|//[^\n]*)+)
  | (?P<float>(?:\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?))
  | (?P<int>0x[0-9a-fA-F]+[uU]?|\d+[uU]?)
  | (?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"{3}|'{3}|\"|'))
  | (?P<ident>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<quoted>`[A-Za-z0-9_.\-/ ]+`)
  | (?P<op>&&|\|\||==|!=|<=|>=|[-+*/%!<>?:.,()\[\]{}])
    """,
    re.VERBOSE,
)
_LITERALS = {"true": True, "false": False, "null": None}
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34, "`": 96, "?": 63}
_HEX = {"x": 2, "X": 2, "u": 4, "U": 8}


def tokens(text: str) -> list[Token]:
    """Return all tokens, `end` last. Raises Issue for what is none."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise Issue(at, f"Syntax error: token recognition error at: '{text[at]}'")
        kind, end = str(match.lastgroup), match.end()
        if kind == "string":
            token, end = _string(text, at, match[0])
            found.append(token)
        elif kind != "space":
            found.append(_token(kind, match[0], at))
        at = end
    found.append(Token("end", "<EOF>", len(text)))
    return found


def _token(kind: str, text: str, at: int) -> Token:
    match kind:
        case "float":
            return Token("const", text, at, float(text))
        case "int":
            return _int(text, at)
        case "ident" if text in _LITERALS:
            return Token("const", text, at, _LITERALS[text])
        case "ident" if text == "in":
            return Token("op", text, at)
        case "quoted":
            return Token(kind, text[1:-1], at)
    return Token(kind, text, at)


def _int(text: str, at: int) -> Token:
    unsigned = text[-1] in "uU"
    digits = text[:-1] if unsigned else text
    if len(digits) > 32:
        raise Issue(at, f"invalid {'uint' if unsigned else 'int'} literal")
    value = int(digits, 16) if digits.startswith("0x") else int(digits)
    if unsigned:
        if value >= 1 << 64:
            raise Issue(at, "invalid uint literal")
        return Token("const", text, at, Uint(value))
    return Token("const", text, at, value)


def _string(text: str, at: int, opening: str) -> tuple[Token, int]:
    flags = opening.rstrip("'\"").lower()
    quote = opening[len(flags) :]
    raw, size = "r" in flags, len(quote)
    end = at + len(opening)
    while True:
        if end >= len(text) or (size == 1 and text[end] in "\r\n"):
            raise Issue(at, f"Syntax error: token recognition error at: '{text[at:end]}'")
        if text[end] == "\\" and not raw:
            end += 2
        elif text.startswith(quote, end):
            break
        else:
            end += 1
    body = text[at + len(opening) : end]
    value: str | bytes
    if "b" in flags:
        value = body.encode() if raw else _unescape_bytes(body, at)
    else:
        value = body if raw else _unescape(body, at)
    return Token("const", text[at : end + size], at, value), end + size


def _escapes(body: str, at: int) -> list[tuple[str, int]]:
    """Return the parts of a string: plain text with -1, or an escape's letter with its number."""
    parts: list[tuple[str, int]] = []
    place = 0
    while (slash := body.find("\\", place)) >= 0:
        parts.append((body[place:slash], -1))
        letter = body[slash + 1 : slash + 2]
        if letter in _ESCAPES:
            parts.append((letter, _ESCAPES[letter]))
            place = slash + 2
            continue
        digits = body[slash + 2 : slash + 2 + _HEX[letter]] if letter in _HEX else body[slash + 1 : slash + 4]
        base, want = (16, _HEX[letter]) if letter in _HEX else (8, 3)
        if not re.fullmatch(r"[0-9a-fA-F]+" if base == 16 else r"[0-3][0-7]{2}", digits) or len(digits) != want:
            raise Issue(at, "invalid string literal: unable to unescape string")
        parts.append((letter if base == 16 else "o", int(digits, base)))
        place = slash + 1 + want + (base == 16)
    parts.append((body[place:], -1))
    return parts


def _unescape(body: str, at: int) -> str:
    if "\\" not in body:
        return body
    made = []
    for part, number in _escapes(body, at):
        if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
            raise Issue(at, "invalid string literal: unable to unescape string")
        made.append(part if number < 0 else chr(number))
    return "".join(made)


def _unescape_bytes(body: str, at: int) -> bytes:
    made = bytearray()
    for part, number in _escapes(body, at):
        if number > 0x10FFFF:
            raise Issue(at, "invalid bytes literal: unable to unescape string")
        if number < 0:
            made += part.encode()
        elif part in "uU":
            made += chr(number).encode("utf-8", "replace")
        else:
            made.append(number)
    return bytes(made)
