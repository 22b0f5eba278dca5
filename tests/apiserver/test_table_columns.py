"""Ages, JSON paths and the columns of custom resources."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.tables import (
    Ages,
    JsonPathError,
    compile_path,
    human_duration,
    short_human_duration,
    to_table,
)
from pilothouse.kinds.registry import Column, Resource

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = 60, 3600, 86400
YEAR = 365 * DAY


@pytest.mark.parametrize(
    ("seconds", "expected", "short"),
    [
        (-2, "<invalid>", "<invalid>"),
        (-1.9, "0s", "0s"),
        (0.9, "0s", "0s"),
        (70, "70s", "1m"),
        (119, "119s", "1m"),
        (120, "2m", "2m"),
        (200, "3m20s", "3m"),
        (10 * MINUTE + 5, "10m", "10m"),
        (3 * HOUR - 1, "179m", "2h"),
        (3 * HOUR, "3h", "3h"),
        (7 * HOUR + 59 * MINUTE, "7h59m", "7h"),
        (8 * HOUR + 59 * MINUTE, "8h", "8h"),
        (47 * HOUR, "47h", "1d"),
        (2 * DAY, "2d", "2d"),
        (2 * DAY + HOUR, "2d1h", "2d"),
        (8 * DAY + HOUR, "8d", "8d"),
        (2 * YEAR - 1, "729d", "1y"),
        (2 * YEAR, "2y", "2y"),
        (3 * YEAR + 10 * DAY, "3y10d", "3y"),
        (8 * YEAR + 10 * DAY, "8y", "8y"),
    ],
)
def test_durations(seconds: float, expected: str, short: str) -> None:
    assert (human_duration(seconds), short_human_duration(seconds)) == (expected, short)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (None, "<unknown>"),
        ("", "<unknown>"),
        ("2026-03-01T11:59:00Z", "60s"),
        ("2026-03-01T12:59:00+01:00", "60s"),
        ("2026-03-01T11:59:00.000000Z", "60s"),
        ("yesterday", "<invalid>"),
        ("2026-03-01", "<invalid>"),
    ],
)
def test_since(moment: str | None, expected: str) -> None:
    assert Ages(NOW).since(moment) == expected


OBJECT: dict[str, Any] = {
    "metadata": {"name": "a", "labels": {"app.io/name": "web"}, "creationTimestamp": "2026-03-01T11:59:00Z"},
    "spec": {"size": 5, "ratio": 1.5, "on": True, "tags": ["x", "y", "z"], "none": None, "big": 2e21, "html": ["<&>"]},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "weight": 1},
            {"type": "Synced", "status": "False", "weight": 2, "extra": 1},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".spec.size", [5]),
        ("$.spec.size", [5]),
        ("@.spec['size']", [5]),
        (".spec.nothing.below", []),
        (".spec.size.below", []),
        (r".metadata.labels.app\.io/name", ["web"]),
        (r".metadata.labels['app\.io/name']", ["web"]),
        (".metadata.labels['app.io/name']", []),
        (".spec.tags[0]", ["x"]),
        (".spec.tags[-1]", ["z"]),
        (".spec.tags[*]", ["x", "y", "z"]),
        (".spec.tags[:]", ["x", "y", "z"]),
        (".spec.tags[0:2]", ["x", "y"]),
        (".spec.tags[0:3:2]", ["x", "z"]),
        (".spec.tags[-2:]", ["y", "z"]),
        (".spec.tags[0,2]", ["x", "z"]),
        (".spec['size','on']", [5, True]),
        (".metadata.labels.*", ["web"]),
        ("..weight", [1, 2]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Synced')].status", ["False"]),
        (".status.conditions[?(@.type!='Synced')].status", ["True"]),
        (".status.conditions[?(@.weight>1)].type", ["Synced"]),
        (".status.conditions[?(@.extra)].type", ["Synced"]),
        (".status.conditions[?(@.extra==1)].type", ["Synced"]),
        (".status.conditions[?(@.type=='(x)')].type", []),
    ],
)
def test_found(path: str, expected: list[Any]) -> None:
    assert list(compile_path(path).find(OBJECT)) == expected


@pytest.mark.parametrize("path", [".spec.tags[3]", ".spec[0]", ".spec.tags[2:9]", ".status.conditions[?(@.type==1)]"])
def test_cannot_be_followed(path: str) -> None:
    with pytest.raises(JsonPathError):
        compile_path(path).find(OBJECT)


@pytest.mark.parametrize("path", [".a[", ".a[?(@.b]", ".a['b]", ".a[x]", "%", ".a[?(@.b=~'c')]", ".a[0:1:0]", "x"])
def test_cannot_be_read(path: str) -> None:
    with pytest.raises(JsonPathError):
        compile_path(path)


def test_long_and_deep_paths_are_refused() -> None:
    for path in ("." + "a" * 5000, "[?(" * 500 + "@" + ")]" * 500):
        with pytest.raises(JsonPathError):
            compile_path(path)


@given(st.text(alphabet=".[]?()@$'\"*:,=<>!ab01-\\ ", max_size=30))
def test_any_path_is_followed_or_refused(path: str) -> None:
    try:
        compile_path(path).find({"a": [{"b": 1}], "b": {"a": [0, "1"]}})
    except JsonPathError:
        assert path


def cell(path: str, kind: str) -> Any:
    column = Column("C", kind, json_path=path)
    resource = Resource("g", "v1", "ws", "W", "w", True, (), custom=True, columns=(column,))
    return to_table([OBJECT], resource, now=NOW)["rows"][0]["cells"][1]


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        (".spec.size", "integer", 5),
        (".spec.ratio", "integer", 1),
        (".spec.on", "integer", None),
        (".spec.size", "number", 5.0),
        (".spec.size", "string", "5"),
        (".spec.ratio", "string", "1.5"),
        (".spec.big", "string", "2e+21"),
        (".spec.on", "string", "true"),
        (".spec.on", "boolean", True),
        (".spec.size", "boolean", None),
        (".spec.tags", "string", '["x","y","z"]'),
        (".spec.html", "string", '["\\u003c\\u0026\\u003e"]'),
        (".spec.none", "string", None),
        (".spec.nothing", "string", None),
        (".spec.tags[7]", "string", None),
        (".spec.tags[*]", "string", "x"),
        (".metadata.creationTimestamp", "date", "60s"),
        (".metadata.name", "date", "<invalid>"),
        (".spec.size", "date", None),
        ("%%%", "string", None),
    ],
)
def test_cells(path: str, kind: str, expected: Any) -> None:
    found = cell(path, kind)
    assert (found, type(found)) == (expected, type(expected))


def test_without_columns_there_is_the_age() -> None:
    resource = Resource("g", "v1", "ws", "W", "w", True, (), custom=True)
    made = to_table([OBJECT], resource, now=NOW)
    assert [column["name"] for column in made["columnDefinitions"]] == ["Name", "Age"]
    assert made["rows"][0]["cells"] == ["a", "60s"]
