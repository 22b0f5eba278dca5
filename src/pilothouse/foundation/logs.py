"""Logging, set up once: structlog and the standard library's to stderr, with trace ids and without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

__all__ = ["Level", "configure", "get_logger", "is_secret_name", "redact"]

Level = Literal["debug", "info", "warning", "error", "critical"]

_MAX_TEXT = 2_000
_MAX_ITEMS = 50
_MAX_DEPTH = 5
_HIDDEN = "***"

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_WORDS = frozenset(
    {"authorization", "cookie", "credential", "credentials", "key", "passphrase", "passwd", "password", "secret"}
    | {"secrets", "token", "tokens", "apikey", "kubeconfig", "passwords"}
)
_PUBLIC_KEYS = frozenset({"store_key", "object_key", "queue_key", "key_name", "token_count", "secret_name"})
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}")
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*):[^\s@/]+@")
_PEM_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def configure(
    level: Level = "info",
    format: Literal["console", "json"] = "console",  # noqa: A002
    stream: TextIO | None = None,
) -> None:
    """Set up logging for the whole program; calling again replaces what was set.

    Records go to `stream` (stderr by default), one line each: readable text, or JSON with the fields `timestamp`
    (RFC 3339, UTC), `level`, `logger`, `event`, and `trace_id` and `span_id` inside an active span. What renders them
    is loaded with the first record.
    """
    _settings.level, _settings.format, _settings.stream = logging.getLevelNamesMapping()[level.upper()], format, stream
    _settings.number += 1
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter())
    root = logging.getLogger()
    for old in [found for found in root.handlers if getattr(found, "pilothouse", False)]:
        root.removeHandler(old)
    handler.pilothouse = True  # type: ignore[attr-defined]  # our mark, to find it again
    root.addHandler(handler)
    root.setLevel(_settings.level)
    logging.captureWarnings(capture=True)


class _Settings:
    """What `configure` was told; before it, and in programs of others, warnings go to stderr."""

    def __init__(self) -> None:
        self.level: int = logging.WARNING
        self.format: Literal["console", "json"] = "console"
        self.stream: TextIO | None = None
        self.number = 0
        self.applied = -1


_settings = _Settings()


def _structured() -> Any:
    """Return the module that renders records, set up as `configure` last said."""
    from pilothouse.foundation import _structured as module  # noqa: PLC0415  # what it loads takes its time

    if _settings.applied != _settings.number:
        module.apply(_settings.level, _settings.format, _settings.stream)
        _settings.applied = _settings.number
    return module


class _Formatter(logging.Formatter):
    """Renders records of the standard library's logging as all others."""

    def __init__(self) -> None:
        super().__init__()
        self._made: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._made is None:
            self._made = _structured().formatter(_settings.format, _settings.stream)
        return self._made.format(record)


class _Logger:
    """A logger that loads what renders records when the first one is to be written."""

    __slots__ = ("_fields", "_name", "_number", "_real")

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        self._name = name
        self._fields = fields
        self._real: Any = None
        self._number = -1

    def debug(self, event: str, *args: object, **fields: object) -> None:
        """Write a record for who looks for a fault."""
        if _settings.level <= logging.DEBUG:
            self._bound().debug(event, *args, **fields)

    def info(self, event: str, *args: object, **fields: object) -> None:
        """Write a record of what goes on."""
        if _settings.level <= logging.INFO:
            self._bound().info(event, *args, **fields)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound(), name)

    def _bound(self) -> Any:
        module = _structured()
        if self._number != _settings.number:
            self._real, self._number = module.logger(self._name, self._fields), _settings.number
        return self._real


def get_logger(name: str, **fields: object) -> Any:
    """Return a logger for `name` (a module's `__name__`) that adds `fields` to each record."""
    return _Logger(name, fields)


def redact(value: Any, name: str = "", *, depth: int = 0, limit: int = _MAX_TEXT) -> Any:
    """Return `value` fit for a log: secrets as `***`, long texts and collections cut, saying by how much.

    A value is secret by the `name` of its field (a word of it is password, token, authorization, key ...), a text
    also by its content (bearer and basic credentials, passwords in URLs, private keys).
    """
    if name and is_secret_name(name) and not _tells_nothing(name, value):
        return _HIDDEN
    if isinstance(value, str):
        return _clean_text(value, limit)
    if isinstance(value, bytes | bytearray | memoryview):
        return _clean_text(bytes(value[: limit + 1]).decode("utf-8", "backslashreplace"), limit)
    if isinstance(value, bool | int | float | None):
        return value
    if depth >= _MAX_DEPTH:
        return "…"
    if isinstance(value, Mapping):
        kept = {str(key): redact(item, str(key), depth=depth + 1) for key, item in _first(value.items())}
        return kept if len(value) <= _MAX_ITEMS else kept | {"…": f"{len(value) - _MAX_ITEMS} more"}
    if isinstance(value, list | tuple | set | frozenset):
        items = [redact(item, depth=depth + 1) for item in _first(value)]
        return items if len(value) <= _MAX_ITEMS else [*items, f"… {len(value) - _MAX_ITEMS} more"]
    return _clean_text(str(value), limit)


def is_secret_name(name: str) -> bool:
    """Whether a field of this name holds a secret, in snake, kebab or camel case."""
    if name.lower() in _PUBLIC_KEYS:
        return False
    return any(word.lower() in _SECRET_WORDS for word in _WORDS.findall(name))


def _tells_nothing(name: str, value: Any) -> bool:
    """Whether the value of a secret's field is none itself: whether there is one, or how many."""
    return value is None or isinstance(value, bool) or (isinstance(value, int) and name.lower().endswith("s"))


def _first(items: Any) -> list[Any]:
    return [item for item, _ in zip(items, range(_MAX_ITEMS), strict=False)]


def _clean_text(text: str, limit: int) -> str:
    if len(text) > limit:
        # Cut first: a pattern must not run over an unbounded text.
        text = f"{text[:limit]}… ({len(text) - limit} more)"
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\1:{_HIDDEN}@", text)
    if "PRIVATE KEY" in text:
        text = _PEM_KEY.sub(f"{_HIDDEN} private key", text)
    return _BEARER.sub(rf"\1 {_HIDDEN}", text)
