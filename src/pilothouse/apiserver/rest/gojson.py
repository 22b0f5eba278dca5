"""What Go's JSON decoder says of text that is no JSON, so that refusals read as on a real server."""

from __future__ import annotations

import re

__all__ = ["syntax_error"]

_SPACE = re.compile(rb"[ \t\r\n]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_LITERALS = {0x74: b"true", 0x66: b"false", 0x6E: b"null"}
_END = "unexpected end of JSON input"
_LONGEST = 128 * 1024
"""Bytes that are looked at; the loop waits for it, so a long text must not take seconds."""
_DIGITS = frozenset(b"0123456789")
_ESCAPED = frozenset(b'bfnrt\\/"')
_HEX = frozenset(b"0123456789abcdefABCDEF")


class _BadError(Exception):
    """The text ends here as JSON; the message is Go's."""


def _char(byte: int) -> str:
    if byte == 0x27:
        return r"'\''"
    if byte == 0x22:
        return "'\"'"
    text = chr(byte)
    if 0x20 <= byte < 0x7F:
        return f"'{text}'" if text != "\\" else r"'\\'"
    named = {7: r"\a", 8: r"\b", 9: r"\t", 10: r"\n", 11: r"\v", 12: r"\f", 13: r"\r"}
    return f"'{named.get(byte) or chr(0x5C) + f'x{byte:02x}'}'"


class _Scanner:
    """Walks over JSON as Go's scanner does, without a stack of calls, so that deep nesting is no danger."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def fail(self, where: str) -> _BadError:
        if self.at >= len(self.data):
            return _BadError(_END)
        return _BadError(f"invalid character {_char(self.data[self.at])} {where}")

    def peek(self) -> int:
        found = _SPACE.match(self.data, self.at)
        self.at = found.end() if found else self.at
        return self.data[self.at] if self.at < len(self.data) else -1

    def run(self) -> None:
        stack: list[int] = []
        self.value(stack)
        while stack:
            after = self.peek()
            if stack[-1] == 0x7B:
                if after == 0x2C:
                    self.at += 1
                    self.peek()
                    self.key("looking for beginning of object key string")
                    self.value(stack)
                elif after == 0x7D:
                    self.at += 1
                    stack.pop()
                else:
                    raise self.fail("after object key:value pair")
            elif after == 0x2C:
                self.at += 1
                self.value(stack)
            elif after == 0x5D:
                self.at += 1
                stack.pop()
            else:
                raise self.fail("after array element")
        if self.peek() >= 0:
            raise self.fail("after top-level value")

    def key(self, where: str) -> None:
        if self.peek() != 0x22:
            raise self.fail(where)
        self.string()
        if self.peek() != 0x3A:
            raise self.fail("after object key")
        self.at += 1

    def value(self, stack: list[int]) -> None:
        """Take a value; of an object or list only its beginning, which is put on the stack."""
        while True:
            first = self.peek()
            if first == 0x7B:
                self.at += 1
                if self.peek() == 0x7D:
                    self.at += 1
                    return
                self.key("looking for beginning of object key string")
                stack.append(first)
                continue
            if first == 0x5B:
                self.at += 1
                if self.peek() == 0x5D:
                    self.at += 1
                    return
                stack.append(first)
                continue
            self.scalar(first)
            return

    def scalar(self, first: int) -> None:
        if first == 0x22:
            self.string()
        elif first in _LITERALS:
            self.literal(_LITERALS[first])
        elif first == 0x2D or first in _DIGITS:
            self.number()
        else:
            raise self.fail("looking for beginning of value")

    def literal(self, word: bytes) -> None:
        for place, byte in enumerate(word):
            if self.data[self.at : self.at + 1] != bytes((byte,)):
                raise self.fail(f"in literal {word.decode()} (expecting '{chr(byte)}')" if place else "")
            self.at += 1

    def string(self) -> None:
        self.at += 1
        while True:
            found = _PLAIN.match(self.data, self.at)
            self.at = found.end() if found else self.at
            if self.at >= len(self.data):
                raise _BadError(_END)
            byte = self.data[self.at]
            if byte == 0x22:
                self.at += 1
                return
            if byte != 0x5C:
                raise self.fail("in string literal")
            self.at += 1
            self.escape()

    def escape(self) -> None:
        byte = self.data[self.at] if self.at < len(self.data) else -1
        if byte == 0x75:
            for _ in range(4):
                self.at += 1
                if self.at >= len(self.data) or self.data[self.at] not in _HEX:
                    raise self.fail("in \\u hexadecimal character escape")
        elif byte not in _ESCAPED:
            raise self.fail("in string escape code")
        self.at += 1

    def digits(self, where: str) -> None:
        if self.at >= len(self.data) or self.data[self.at] not in _DIGITS:
            raise self.fail(where)
        while self.at < len(self.data) and self.data[self.at] in _DIGITS:
            self.at += 1

    def number(self) -> None:
        if self.data[self.at] == 0x2D:
            self.at += 1
        if self.data[self.at : self.at + 1] == b"0":
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.data[self.at : self.at + 1] == b".":
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.data[self.at : self.at + 1] in {b"e", b"E"}:
            self.at += 1
            if self.data[self.at : self.at + 1] in {b"+", b"-"}:
                self.at += 1
            self.digits("in exponent of numeric literal")


def syntax_error(data: bytes) -> str:
    """Return what Go's decoder says of the first mistake; empty where the text is JSON, or too long to be looked at."""
    if len(data) > _LONGEST:
        return ""
    try:
        _Scanner(data).run()
    except _BadError as error:
        return str(error)
    return ""
