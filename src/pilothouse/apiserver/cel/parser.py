"""Reads the text of an expression into nodes, macros expanded. Errors are worded as those of cel-go's parser."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.cel.errors import Issue
from pilothouse.apiserver.cel.lexer import Token, tokens
from pilothouse.apiserver.cel.macros import MACROS
from pilothouse.apiserver.cel.syntax import Call, Const, Ident, ListOf, Logic, MapOf, Node, Select, StructOf, children
from pilothouse.apiserver.cel.values import INT_MAX

__all__ = ["MAX_DEPTH", "MAX_TEXT", "parse"]

MAX_TEXT = 100_000
"""The longest expression, in characters, as cel-go has it."""
MAX_DEPTH = 80
"""The deepest nesting; cel-go follows 250 levels of its grammar, of which one pair of parentheses takes several."""
MAX_NODES = 20_000

_START = (
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
)
_FOLLOWING = "{<EOF>, '==', '!=', 'in', '<', '<=', '>=', '>', '&&', '||', '[', '.', '-', '?', '+', '*', '/', '%%'}"
_BINARY = {
    "==": (3, "_==_"),
    "!=": (3, "_!=_"),
    "<": (3, "_<_"),
    "<=": (3, "_<=_"),
    ">": (3, "_>_"),
    ">=": (3, "_>=_"),
    "in": (3, "@in"),
    "+": (4, "_+_"),
    "-": (4, "_-_"),
    "*": (5, "_*_"),
    "/": (5, "_/_"),
    "%": (5, "_%_"),
}
_LOGIC = {"||": 1, "&&": 2}
# fmt: off
_RESERVED = frozenset({
    "as", "break", "const", "continue", "else", "for", "function", "if", "import",
    "let", "loop", "package", "namespace", "return", "var", "void", "while",
})
# fmt: on


def parse(text: str) -> Node:
    """Return the nodes of an expression. Raises Issue."""
    if len(text) > MAX_TEXT:
        raise Issue(0, f"expression code point size exceeds limit: size: {len(text)}, limit {MAX_TEXT}")
    return _Parser(text).whole()


def _unexpected(text: str) -> str:
    return f"mismatched input '{text}' expecting {_FOLLOWING}"


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._place = 0
        self._level = 0
        self._nodes = 0

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _is(self, text: str) -> bool:
        token = self._tokens[self._place]
        return token.kind == "op" and token.text == text

    def _take(self, text: str) -> Token | None:
        token = self._tokens[self._place]
        if token.kind == "op" and token.text == text:
            self._place += 1
            return token
        return None

    def _want(self, text: str) -> Token:
        token = self._take(text)
        if token is None:
            found = self._next
            if found.kind == "end":
                raise Issue(found.at, f"Syntax error: missing '{text}' at '<EOF>'")
            raise Issue(found.at, f"Syntax error: mismatched input '{found.text}' expecting '{text}'")
        return token

    def _done(self, node: Node) -> Node:
        """Count a node, and note how deep it is."""
        self._nodes += 1
        node.depth = 1 + max((child.depth for child in children(node)), default=0)
        if node.depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise Issue(node.at, f"expression recursion limit exceeded: {MAX_DEPTH}")
        return node

    def whole(self) -> Node:
        node = self._expression()
        found = self._next
        if found.kind != "end":
            last = self._tokens[self._place + 1].kind == "end"
            text = f"extraneous input '{found.text}' expecting <EOF>" if last else _unexpected(found.text)
            raise Issue(found.at, f"Syntax error: {text}")
        return node

    def _expression(self) -> Node:
        self._level += 1
        if self._level > MAX_DEPTH:
            raise Issue(self._next.at, f"expression recursion limit exceeded: {MAX_DEPTH}")
        node = self._binary(1)
        if token := self._take("?"):
            yes = self._binary(1)
            self._want(":")
            node = self._done(Call(token.at, "_?_:_", None, [node, yes, self._expression()]))
        self._level -= 1
        return node

    def _binary(self, least: int) -> Node:
        node = self._unary()
        while self._next.kind == "op":
            token = self._next
            if (level := _LOGIC.get(token.text)) is not None:
                if level < least:
                    break
                node = self._logic(node, token.text, level)
                continue
            level, function = _BINARY.get(token.text, (0, ""))
            if level < max(least, 1) or not function:
                break
            self._place += 1
            node = self._done(Call(token.at, function, None, [node, self._binary(level + 1)]))
        return node

    def _logic(self, first: Node, text: str, level: int) -> Node:
        args, places = [first], []
        while token := self._take(text):
            places.append(token.at)
            args.append(self._binary(level + 1))
        return self._done(Logic(places[0], f"_{text}_", args, places))

    def _unary(self) -> Node:
        signs: list[Token] = []
        while self._is("!") or self._is("-"):
            if signs and signs[-1].text != self._next.text:
                break
            signs.append(self._next)
            self._place += 1
        if not signs:
            return self._member()
        if self._is("!") or self._is("-"):
            raise Issue(self._next.at, f"Syntax error: mismatched input '{self._next.text}' expecting {_START}")
        token = self._next
        negative = signs[0].text == "-" and token.kind == "const" and type(token.value) in {int, float}
        if negative:
            self._tokens[self._place] = token._replace(value=-token.value, at=signs.pop().at, kind="const")
        node = self._member()
        if len(signs) % 2:
            function = "!_" if signs[0].text == "!" else "-_"
            node = self._done(Call(signs[0].at, function, None, [node]))
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            if token := self._take("."):
                node = self._selected(node, token)
            elif token := self._take("["):
                optional = self._take("?") is not None
                index = self._expression()
                self._want("]")
                node = self._done(Call(token.at, "_[?_]" if optional else "_[_]", None, [node, index]))
            elif self._is("{") and (name := _dotted(node)):
                node = self._struct(name)
            else:
                return node

    def _selected(self, operand: Node, dot: Token) -> Node:
        optional = self._take("?") is not None
        name = self._next
        if name.kind == "const":
            raise Issue(name.at, f"Syntax error: mismatched input '{name.text}' expecting IDENTIFIER")
        if name.kind not in {"ident", "quoted"} and name.text != "in":
            raise Issue(
                name.at, f"Syntax error: no viable alternative at input '.{name.text if name.kind != 'end' else ''}'"
            )
        self._place += 1
        if name.kind == "ident" and not optional and (opening := self._take("(")):
            args = self._until(")")
            return self._call(opening.at, name.text, operand, args)
        return self._done(Select(dot.at, operand, name.text, optional=optional))

    def _until(self, closing: str) -> list[Node]:
        found: list[Node] = []
        while not self._take(closing):
            if found:
                self._want(",")
            found.append(self._expression())
        return found

    def _call(self, at: int, function: str, target: Node | None, args: list[Node]) -> Node:
        expand = MACROS.get((function, len(args), target is not None))
        if expand is not None:
            made = expand(at, target, args)
            if made is not None:
                return self._done(made)
        dotted = _dotted(target) if target is not None else ""
        if dotted and (dotted, function) in _NAMESPACED:
            return self._done(Call(at, f"{dotted}.{function}", None, args))
        return self._done(Call(at, function, target, args))

    def _primary(self) -> Node:
        token = self._next
        self._place += 1
        match token:
            case Token(kind="const"):
                value: Any = token.value
                if type(value) is int and value > INT_MAX:
                    raise Issue(token.at, "invalid int literal")
                return self._done(Const(token.at, value))
            case Token(kind="ident"):
                return self._named(token)
            case Token(kind="op", text="."):
                return self._named(self._identifier())
            case Token(kind="op", text="("):
                node = self._expression()
                self._want(")")
                return node
            case Token(kind="op", text="["):
                return self._list(token)
            case Token(kind="op", text="{"):
                return self._map(token)
        raise Issue(token.at, f"Syntax error: mismatched input '{token.text}' expecting {_START}")

    def _identifier(self) -> Token:
        token = self._next
        if token.kind != "ident":
            raise Issue(token.at, f"Syntax error: mismatched input '{token.text}' expecting IDENTIFIER")
        self._place += 1
        return token

    def _named(self, token: Token) -> Node:
        if token.text in _RESERVED:
            raise Issue(token.at, f"reserved identifier: {token.text}")
        if opening := self._take("("):
            return self._call(opening.at, token.text, None, self._until(")"))
        return self._done(Ident(token.at, token.text))

    def _list(self, token: Token) -> Node:
        items: list[Node] = []
        optional: set[int] = set()
        while not self._take("]"):
            if items:
                self._want(",")
                if self._take("]"):
                    break
            if self._take("?"):
                optional.add(len(items))
            items.append(self._expression())
        return self._done(ListOf(token.at, items, frozenset(optional)))

    def _map(self, token: Token) -> Node:
        entries: list[tuple[Node, Node, bool]] = []
        while not self._take("}"):
            if entries:
                self._want(",")
                if self._take("}"):
                    break
            optional = self._take("?") is not None
            key = self._expression()
            self._want(":")
            entries.append((key, self._expression(), optional))
        return self._done(MapOf(token.at, entries))

    def _struct(self, name: str) -> Node:
        token = self._want("{")
        entries: list[tuple[str, Node, bool]] = []
        while not self._take("}"):
            if entries:
                self._want(",")
                if self._take("}"):
                    break
            optional = self._take("?") is not None
            field = self._next
            if field.kind not in {"ident", "quoted"}:
                raise Issue(field.at, f"Syntax error: mismatched input '{field.text}' expecting IDENTIFIER")
            self._place += 1
            self._want(":")
            entries.append((field.text, self._expression(), optional))
        return self._done(StructOf(token.at, name, entries))


_NAMESPACED = frozenset(
    {
        ("optional", "of"),
        ("optional", "ofNonZeroValue"),
        ("optional", "none"),
        ("optional", "unwrap"),
        ("sets", "contains"),
        ("sets", "equivalent"),
        ("sets", "intersects"),
        ("strings", "quote"),
        ("format", "named"),
        ("ip", "isCanonical"),
        ("lists", "range"),
        ("jsonpatch", "escapeKey"),
        *(
            ("format", name)
            for name in [
                "dns1123Label",
                "dns1123Subdomain",
                "dns1035Label",
                "qualifiedName",
                "dns1123LabelPrefix",
                "dns1123SubdomainPrefix",
                "dns1035LabelPrefix",
                "labelValue",
                "uri",
                "uuid",
                "byte",
                "date",
                "datetime",
            ]
        ),
    }
)
"""Functions whose names have a dot."""


def _dotted(node: Node | None) -> str:
    """Return `a.b.c` of a chain of plain names, else nothing."""
    parts: list[str] = []
    while isinstance(node, Select) and not node.test and not node.optional:
        parts.append(node.field)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join([node.name, *reversed(parts)])
