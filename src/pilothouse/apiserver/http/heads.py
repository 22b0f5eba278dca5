"""The heads of HTTP/1.1 requests: read strictly, as RFC 9112 has them, and quickly where they repeat.

What a lenient reader might take for something else is refused: bare line feeds, folded lines, spaces before the
colon, several lengths, a length beside a transfer coding. So no proxy before this server can be made to see other
requests than it does.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

__all__ = ["Fields", "Head", "HeadReader", "Malformed", "read_fields", "read_line", "split_target"]

_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELD: Final = re.compile(rb"(%b):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % _TOKEN)
_METHOD: Final = re.compile(_TOKEN.decode())
_LENGTH: Final = re.compile("[0-9]{1,18}")
_CONTROL: Final = re.compile("[\x00-\x20\x7f]")
_BAD_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
_ABSOLUTE: Final = re.compile("https?://[^/?#]+", re.IGNORECASE)
_VERSION: Final = re.compile("HTTP/[0-9]\\.[0-9]")
_VERSIONS: Final = {"HTTP/1.1": 1, "HTTP/1.0": 0}

_CACHED_BYTES: Final = 4096
_CACHED_BLOCKS: Final = 512
_CACHED_HEADS: Final = 256


class Malformed(Exception):
    """A request that is not answered but refused, with the status and the text of the refusal."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Fields(NamedTuple):
    """The headers of a request, and what they say of its body and connection.

    length: of the body, None where none is given. close, keep_alive: tokens of `Connection`. hosts: how often `Host`
    came.
    """

    headers: dict[str, str]
    header_list: tuple[tuple[str, str], ...]
    length: int | None
    chunked: bool
    close: bool
    keep_alive: bool
    expects: bool
    hosts: int


class Head(NamedTuple):
    """A request without its body. minor: of HTTP/1; persistent: whether further requests may follow."""

    method: str
    target: str
    path: str
    query_text: str
    minor: int
    persistent: bool
    fields: Fields


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def read_fields(block: bytes) -> Fields:
    """Read header lines, without the line end of the last. Raises Malformed."""
    pairs = []
    for line in block.split(b"\r\n") if block else ():
        found = _FIELD.fullmatch(line)
        if found is None:
            raise Malformed("malformed MIME header line")
        name, value = found.groups()
        pairs.append((name.decode("ascii").lower(), _text(value.rstrip(b" \t"))))
    headers: dict[str, str] = {}
    for name, text in pairs:
        headers.setdefault(name, text)
    tokens = {token.strip().lower() for name, text in pairs if name == "connection" for token in text.split(",")}
    return Fields(
        headers,
        tuple(pairs),
        _length(pairs),
        _chunked(pairs),
        "close" in tokens,
        "keep-alive" in tokens,
        _expects(pairs),
        sum(name == "host" for name, _ in pairs),
    )


def _length(pairs: list[tuple[str, str]]) -> int | None:
    lengths = [text for name, text in pairs if name == "content-length"]
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Malformed("bad Content-Length")
    if any(name == "transfer-encoding" for name, _ in pairs):
        raise Malformed("both Content-Length and Transfer-Encoding")
    return int(lengths[0])


def _chunked(pairs: list[tuple[str, str]]) -> bool:
    codings = [text for name, text in pairs if name == "transfer-encoding"]
    if not codings:
        return False
    if len(codings) > 1:
        raise Malformed("too many transfer encodings")
    if codings[0].lower() != "chunked":
        raise Malformed("unsupported transfer encoding", 501)
    return True


def _expects(pairs: list[tuple[str, str]]) -> bool:
    expectations = [text.lower() for name, text in pairs if name == "expect"]
    if not expectations:
        return False
    if expectations != ["100-continue"]:
        raise Malformed("unknown expectation", 417)
    return True


def split_target(target: str) -> tuple[str, str]:
    """Return the path of an origin-form target, percent-decoded once, and its query. Raises Malformed.

    Dots in the path stay as they are.
    """
    path, _, query = target.partition("?")
    if "%" not in path:
        return path, query
    if _BAD_ESCAPE.search(path):
        raise Malformed("invalid URL escape")
    try:
        path = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        raise Malformed("path is not valid UTF-8") from None
    if "\0" in path:
        raise Malformed("path contains NUL")
    return path, query


def read_line(line: bytes, max_target_bytes: int) -> tuple[str, str, str, str, int]:
    """Return method, target, path, query and minor version of a request line. Raises Malformed."""
    try:
        method, target, version = line.decode().split(" ")
    except ValueError:
        raise Malformed("malformed request line") from None
    minor = _VERSIONS.get(version)
    if minor is None:
        if _VERSION.fullmatch(version):
            raise Malformed("unsupported protocol version", 505)
        raise Malformed("malformed HTTP version")
    if len(line) > max_target_bytes:
        raise Malformed("request target too long", 414)
    if not _METHOD.fullmatch(method):
        raise Malformed("invalid method")
    if not target.isprintable() and _CONTROL.search(target):
        raise Malformed("invalid character in request target")
    if not target.startswith("/"):
        target = _origin(method, target)
    path, query = split_target(target)
    return method, target, path, query, minor


def _origin(method: str, target: str) -> str:
    """Make an absolute-form target an origin-form one."""
    if target == "*" and method == "OPTIONS":
        return target
    found = _ABSOLUTE.match(target)
    if found is None:
        raise Malformed("invalid URI for request")
    rest = target[found.end() :]
    return rest if rest.startswith("/") else "/" + rest


class HeadReader:
    """Reads heads, and remembers those it saw and their header blocks, which differ seldom in a client's requests.

    At most 1,024 blocks and 512 heads of up to 4 KiB are kept.
    """

    __slots__ = ("_heads", "_max_target_bytes", "_older", "_older_heads", "_recent")

    def __init__(self, max_target_bytes: int) -> None:
        self._max_target_bytes = max_target_bytes
        self._recent: dict[bytes, Fields] = {}
        self._older: dict[bytes, Fields] = {}
        self._heads: dict[bytes, Head] = {}
        self._older_heads: dict[bytes, Head] = {}

    def read(self, head: bytes) -> Head:
        """Read a head without the empty line that ends it. Raises Malformed."""
        return self._heads.get(head) or self._known(head)

    def _known(self, head: bytes) -> Head:
        found = self._older_heads.get(head) or self._read(head)
        if len(head) <= _CACHED_BYTES:
            if len(self._heads) >= _CACHED_HEADS:
                self._older_heads, self._heads = self._heads, {}
            self._heads[head] = found
        return found

    def _read(self, head: bytes) -> Head:
        line, _, block = head.partition(b"\r\n")
        fields = self._recent.get(block) or self._fields(block)
        method, target, path, query, minor = read_line(line, self._max_target_bytes)
        if minor:
            if fields.hosts != 1:
                raise Malformed("missing required Host header" if not fields.hosts else "too many Host headers")
            persistent = not fields.close
        else:
            if fields.chunked or fields.hosts > 1:
                raise Malformed("too many Host headers" if fields.hosts > 1 else "chunked coding in HTTP/1.0")
            persistent = fields.keep_alive and not fields.close
        return Head(method, target, path, query, minor, persistent, fields)

    def _fields(self, block: bytes) -> Fields:
        found = self._older.get(block) or read_fields(block)
        if len(block) <= _CACHED_BYTES:
            if len(self._recent) >= _CACHED_BLOCKS:
                self._older, self._recent = self._recent, {}
            self._recent[block] = found
        return found
