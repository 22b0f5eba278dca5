"""How records are rendered: structlog's chain for our own and for the standard library's. Loaded with the first one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import msgspec
from opentelemetry import trace

from pilothouse.foundation.logs import redact

# structlog takes rich in for tracebacks that we do not draw: five megabytes and a twentieth of a second a process.
_HAS_RICH = "rich" in sys.modules
if not _HAS_RICH:
    sys.modules["rich"] = None  # type: ignore[assignment]  # what an import takes for "is not there"
import structlog  # noqa: E402  after what it is to do without

if not _HAS_RICH:
    del sys.modules["rich"]

__all__ = ["apply", "formatter", "logger"]

_MAX_EXCEPTION = 16_000


def apply(level: int, form: str, stream: TextIO | None) -> None:
    """Set structlog up for the program."""
    _configure_structlog(level, [*_processors(), _renderer(form, stream or sys.stderr)], stream)


def formatter(form: str, stream: TextIO | None) -> logging.Formatter:
    """Return what renders records of the standard library's logging."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(), _drop_formatted, *_processors()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _renderer(form, stream or sys.stderr),
        ],
    )


def logger(name: str, fields: Mapping[str, object]) -> Any:
    """Return a logger of structlog."""
    return structlog.get_logger(name, **fields)


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
