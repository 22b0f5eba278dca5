"""Logging, set up once: structlog and the standard library's to stderr, with trace ids and without secrets."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import msgspec
import structlog
from opentelemetry import trace

__all__ = ["Level", "configure", "get_logger", "is_secret_name", "redact"]

Level = Literal["debug", "info", "warning", "error", "critical"]

_MAX_TEXT = 2_000
_MAX_EXCEPTION = 16_000
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
    (RFC 3339, UTC), `level`, `logger`, `event`, and `trace_id` and `span_id` inside an active span.
    """
    numeric = logging.getLevelNamesMapping()[level.upper()]
    target = stream or sys.stderr
    chain = _processors()
    renderer = _renderer(format, target)
    _configure_structlog(numeric, [*chain, renderer], stream)
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _drop_formatted, *chain],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [found for found in root.handlers if getattr(found, "pilothouse", False)]:
        root.removeHandler(old)
    handler.pilothouse = True  # type: ignore[attr-defined]  # our mark, to find it again
    root.addHandler(handler)
    root.setLevel(numeric)
    logging.captureWarnings(capture=True)


def get_logger(name: str, **fields: object) -> Any:
    """Return a logger for `name` (a module's `__name__`) that adds `fields` to each record."""
    return structlog.get_logger(name, **fields)


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


class _Sink:
    """Where one logger's lines go; stderr is looked up at each line, as it may be replaced."""

    __slots__ = ("_stream", "name")

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()

    debug = info = warning = error = critical = msg


def _configure_structlog(level: int, processors: list[Callable[..., Any]], stream: TextIO | None) -> None:
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="", *_: _Sink(name, stream),
        cache_logger_on_first_use=False,
    )


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


def _processors() -> list[Callable[..., Any]]:
    return [
        structlog.processors.add_log_level,
        _add_name,
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact_record,
    ]


def _add_name(logger: Any, _: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # The standard library's records come with no logger, but with themselves.
    record["logger"] = (record.get("_record") or logger).name
    return record


def _drop_formatted(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Another handler's formatter leaves its own work on the record.
    record.pop("message", None)
    record.pop("asctime", None)
    return record


def _add_trace(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        record["trace_id"] = trace.format_trace_id(context.trace_id)
        record["span_id"] = trace.format_span_id(context.span_id)
    return record


def _redact_record(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in record.items():
        if name in {"exception", "stack"}:
            record[name] = redact(value, limit=_MAX_EXCEPTION)
        elif name not in {"_record", "_from_structlog"}:
            clean = redact(value, name)
            record[name] = _one_line(clean) if isinstance(clean, str) else clean
    return record


def _one_line(text: str) -> str:
    """Escape what would start another line or steer a terminal, whatever the text quotes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _renderer(format: str, stream: TextIO) -> Callable[..., Any]:  # noqa: A002
    if format == "json":
        return _render_json
    return structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
    )


def _render_json(_: Any, __: str, record: MutableMapping[str, Any]) -> str:
    first = {name: record.pop(name, None) for name in ("timestamp", "level", "logger", "event")}
    return msgspec.json.encode(first | dict(record), enc_hook=str).decode()


# Used as a library, before or without `configure`, warnings go to stderr: structlog's own default is stdout.
if not structlog.is_configured():
    _configure_structlog(logging.WARNING, [*_processors(), _renderer("console", sys.stderr)], None)
