from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, NoOpTracer, NoOpTracerProvider, Span, SpanContext

from pilothouse.foundation import tracing
from pilothouse.foundation.tracing import TraceParent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Recorder(NoOpTracer):
    """Makes a span that has an identity and keeps what it was told."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, SpanContext, Any]] = []

    @contextmanager
    def start_as_current_span(self, name: str, context: Any = None, **settings: Any) -> Iterator[Span]:  # type: ignore[override]
        parent = trace.get_current_span(context).get_span_context()
        self.spans.append((name, parent, settings["attributes"]))
        made = SpanContext(parent.trace_id or 1, len(self.spans), is_remote=False, trace_flags=parent.trace_flags)
        with trace.use_span(NonRecordingSpan(made)) as span:
            yield span


class Provider(NoOpTracerProvider):
    def __init__(self) -> None:
        self.recorder = Recorder()

    def get_tracer(self, *_: Any, **__: Any) -> Recorder:
        return self.recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    provider = Provider()
    tracing.enable(provider)
    yield provider.recorder
    tracing.disable()


def test_off_it_makes_nothing() -> None:
    assert not tracing.enabled()
    assert tracing.span("a", n=1) is tracing.span("b")
    headers: dict[str, str] = {}
    with tracing.span("a") as outer, tracing.span("b") as inner:
        assert outer is inner is INVALID_SPAN
        tracing.inject(headers)
    assert headers == {}


def test_spans_nest_and_travel(recorder: Recorder) -> None:
    assert tracing.enabled()
    parent = tracing.extract({"traceparent": f"00-{TRACE}-{SPAN}-01"})
    headers: dict[str, str] = {}
    with tracing.span("serve", parent, verb="get"), tracing.span("read"):
        tracing.inject(headers)
    (first, above, attributes), (second, between, _) = recorder.spans
    assert (first, second) == ("serve", "read")
    assert (above.trace_id, above.span_id, above.is_remote) == (int(TRACE, 16), int(SPAN, 16), True)
    assert attributes == {"verb": "get"}
    assert between.span_id == 1
    assert headers == {"traceparent": f"00-{TRACE}-{2:016x}-01"}


@given(st.integers(1, (1 << 128) - 1), st.integers(1, (1 << 64) - 1), st.booleans())
def test_what_is_formatted_can_be_parsed(trace_id: int, span_id: int, sampled: bool) -> None:
    parent = TraceParent(trace_id, span_id, sampled)
    assert TraceParent.parse(parent.format()) == parent


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?", fullmatch=True))
def test_any_text_is_parsed_or_ignored(text: str) -> None:
    parsed = TraceParent.parse(text)
    assert parsed is None or (parsed.trace_id > 0 and parsed.span_id > 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
    ],
)
def test_invalid_headers_are_ignored(text: str) -> None:
    assert TraceParent.parse(text) is None


def test_flags_and_newer_versions() -> None:
    assert TraceParent.parse(f"01-{TRACE}-{SPAN}-03-more") == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled=True)
    assert TraceParent.parse(f" 00-{TRACE}-{SPAN}-02 ") == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled=False)
    assert tracing.extract({}) is None
