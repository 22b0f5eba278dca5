from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from pilothouse.foundation.logs import configure, get_logger, is_secret_name, redact


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, settings = root.handlers[:], root.level, structlog.get_config()
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**settings)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]


def test_both_kinds_of_logger_write_the_same_json() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    get_logger("room.part", member=1).info("started", port=2379)
    logging.getLogger("lib").warning("slow %s", "disk", extra={"ms": 7})
    get_logger("room.part").debug("not shown")
    logging.getLogger("lib").debug("not shown")
    ours, theirs = records(stream)
    assert ours.pop("timestamp").endswith("Z")
    assert ours == {"level": "info", "logger": "room.part", "event": "started", "member": 1, "port": 2379}
    assert {**theirs, "timestamp": ""} == {
        "timestamp": "",
        "level": "warning",
        "logger": "lib",
        "event": "slow disk",
        "ms": 7,
    }


def test_configuring_again_replaces(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", "json", first)
    configure("warning", "console", second)
    logging.getLogger("lib").warning("once")
    get_logger("x").warning("twice", n=1)
    get_logger("x").info("hidden")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert "twice" in second.getvalue()
    assert "hidden" not in second.getvalue()
    configure()
    get_logger("x").info("to stderr")
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "to stderr" in seen.err


def test_exceptions_and_warnings() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    try:
        int("http://ann:hunter2@host/")
    except ValueError:
        get_logger("x").exception("failed")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    failed, warned = records(stream)
    assert "ValueError" in failed["exception"]
    assert "hunter2" not in failed["exception"]
    assert warned["logger"] == "py.warnings"


def test_a_record_is_one_line_whatever_it_quotes() -> None:
    stream = io.StringIO()
    configure("info", "console", stream)
    logging.getLogger("lib").info("got %s", "a\n2026 [info] forged \x1b[31m")
    get_logger("x").info("got", name="\x1b[31m\n", names=["\x1b"])
    assert stream.getvalue().count("\n") == 2
    assert "\x1b" not in stream.getvalue()


def test_the_current_span_is_named() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    with trace.use_span(NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False))):
        get_logger("x").info("inside")
    get_logger("x").info("outside")
    inside, outside = records(stream)
    assert inside["trace_id"] == f"{0xABC:032x}"
    assert inside["span_id"] == f"{0xDEF:016x}"
    assert "trace_id" not in outside


@pytest.mark.parametrize(
    "name",
    ["password", "db_password", "Authorization", "apiKey", "api-key", "client_secret", "bearerToken", "TLS_KEY", "key"],
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)
    assert redact("v", name) == "***"
    assert redact(1234, name) == "***"
    assert redact({"a": [{name: b"v"}]}) == {"a": [{name: "***"}]}


def test_whether_there_is_a_secret_and_how_many_is_shown() -> None:
    assert redact({"token": None, "password": True, "tokens": 7}) == {"token": None, "password": True, "tokens": 7}


@pytest.mark.parametrize("name", ["monkey", "keys", "store_key", "tokenizer", "author", "path", "revision"])
def test_names_that_are_not_secret(name: str) -> None:
    assert not is_secret_name(name)
    assert redact("v", name) == "v"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdef.123-_/+=", "Authorization: Bearer ***"),
        ("basic dXNlcjpwYXNz", "basic ***"),
        ("etcd https://root:pw@127.0.0.1:2379", "etcd https://root:***@127.0.0.1:2379"),
        ("x -----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY----- y", "x *** private key y"),
    ],
)
def test_secrets_in_texts(text: str, shown: str) -> None:
    assert redact(text) == shown


def test_sizes_are_bounded_and_say_what_is_missing() -> None:
    assert redact("x" * 5000).endswith("(3000 more)")
    assert redact(list(range(80)))[-1] == "… 30 more"
    assert redact({str(n): n for n in range(80)})["…"] == "30 more"
    assert len(redact(b"\xff" * 1_000_000)) < 2100
    nested: list[Any] = []
    for _ in range(100):
        nested = [nested]
    assert "…" in json.dumps(redact(nested), ensure_ascii=False)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.binary(), st.lists, max_leaves=20))
def test_anything_can_be_logged_as_json(value: object) -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    get_logger("x").info("event", value=value, other=object())
    assert len(records(stream)) == 1
