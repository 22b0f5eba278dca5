"""Paths in volumes where nothing can be mounted."""

from __future__ import annotations

import pytest

from pilothouse.node.config import Mount
from pilothouse.node.process.unmounted import machine_path, machine_paths

MOUNTS = (
    Mount(container_path="/app", host_path="/pods/1/program"),
    Mount(container_path="/data/", host_path="/volumes/v", sub_path="inner"),
    Mount(container_path="/data/deep", host_path="/volumes/w"),
    Mount(container_path="/cache", type="tmpfs", name="cache"),
    Mount(container_path="/", host_path="/volumes/root"),
)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("/app", "/pods/1/program"),
        ("/app/", "/pods/1/program"),
        ("/app/front.py", "/pods/1/program/front.py"),
        ("/data", "/volumes/v/inner"),
        ("/data/x/y", "/volumes/v/inner/x/y"),
        ("/data/deep/x", "/volumes/w/x"),
        ("/application", "/application"),
        ("app", "app"),
        ("--file=/app/x", "--file=/app/x"),
        ("/cache/x", "/cache/x"),
        ("", ""),
    ],
)
def test_a_path_in_a_volume_is_where_the_machine_has_it(text: str, where: str) -> None:
    assert machine_path(text, MOUNTS) == where


def test_nothing_changes_without_volumes() -> None:
    assert machine_paths(["python3", "/app/front.py"], ()) == ("python3", "/app/front.py")
