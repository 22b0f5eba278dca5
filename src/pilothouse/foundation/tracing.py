"""Tracing by the OpenTelemetry API: off until a program turns it on, and then next to nothing is all it costs.

Trace context travels as W3C Trace Context's `traceparent` header whether tracing is on or off here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, Span, SpanContext, TraceFlags, Tracer, TracerProvider

__all__ = ["TraceParent", "disable", "enable", "enabled", "extract", "inject", "span"]

_HEADER = "traceparent"
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_OFF = nullcontext(INVALID_SPAN)

Attribute = str | bool | int | float


class _State:
    tracer: Tracer | None = None


class TraceParent(NamedTuple):
    """A caller's place in its trace: two numbers, of 128 and 64 bits, and whether it is recorded."""

    trace_id: int
    span_id: int
    sampled: bool

    @classmethod
    def parse(cls, text: str) -> TraceParent | None:
        """Read a `traceparent` value; return None where it is not valid, which the standard says to ignore.

        A version newer than 00 may carry more after the fields that we know; version ff and zero ids are invalid.
        """
        found = _TRACEPARENT.fullmatch(text.strip(" \t"))
        if found is None:
            return None
        version, trace_id, span_id, flags, more = found.groups()
        if version == "ff" or (version == "00" and more is not None):
            return None
        parsed = cls(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1))
        return parsed if parsed.trace_id and parsed.span_id else None

    def format(self) -> str:
        """Return the header's value, version 00."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"


def enable(provider: TracerProvider | None = None) -> None:
    """Record spans with `provider`, by default the one the program set with the OpenTelemetry API."""
    _State.tracer = (provider or trace.get_tracer_provider()).get_tracer("pilothouse")


def disable() -> None:
    """Stop recording spans."""
    _State.tracer = None


def enabled() -> bool:
    """Whether spans are recorded; ask before computing costly attributes."""
    return _State.tracer is not None


def span(name: str, parent: TraceParent | None = None, **attributes: Attribute) -> AbstractContextManager[Span]:
    """Open a span for a `with` block: a child of the current one, or of a caller's `parent`.

    An exception that leaves the block is recorded on it. While tracing is off the block gets a span that does nothing.
    """
    tracer = _State.tracer
    if tracer is None:
        return _OFF
    context = None
    if parent is not None:
        flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
        remote = SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
        context = trace.set_span_in_context(NonRecordingSpan(remote))
    return tracer.start_as_current_span(name, context=context, attributes=attributes)


def inject(headers: MutableMapping[str, str]) -> None:
    """Add the current span's `traceparent` to a request's headers, if there is one."""
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        headers[_HEADER] = TraceParent(context.trace_id, context.span_id, context.trace_flags.sampled).format()


def extract(headers: Mapping[str, str]) -> TraceParent | None:
    """Return the caller's place from a request's headers (names in lower case), None where there is none valid."""
    value = headers.get(_HEADER)
    return None if value is None else TraceParent.parse(value)
