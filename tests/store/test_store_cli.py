"""`pilothouse store`: the commands against a store in a process of its own, and against files."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pilothouse.store import cli_serve
from pilothouse.store.cli import store
from support.service import PILOTHOUSE, pilothouse, serve_process

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serve_process(tmp_path_factory.mktemp("cli") / "data") as url:
        yield url


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_every_command_has_examples_that_name_it() -> None:
    for path, command in commands(store):
        shown = CliRunner().invoke(store, [*path, "--help"])
        assert shown.exit_code == 0
        if not isinstance(command, click.Group):
            assert f"$ pilothouse store {' '.join(path)}" in shown.output, path


def test_keys(endpoint: str) -> None:
    def ask(*arguments: str) -> object:
        return json.loads(pilothouse("store", *arguments, "-o", "json", endpoint=endpoint).stdout)

    first = ask("put", "k/a", "1")
    assert isinstance(first, dict)
    at = first["revision"]
    assert ask("put", "k/a", "2", "--prev-kv") == {
        "revision": at + 1,
        "previous": {"key": "k/a", "value": "1", "create_revision": at, "mod_revision": at, "version": 1},
    }
    pilothouse("store", "put", "k/b", "-", endpoint=endpoint, stdin=b"\xff\n")
    assert pilothouse("store", "get", "k/a", endpoint=endpoint).stdout.split()[-4:] == ["k/a", "2", str(at + 1), "2"]
    assert ask("get", "k/a", "--rev", str(at)) == {
        "revision": at + 2,
        "count": 1,
        "more": False,
        "kvs": [{"key": "k/a", "value": "1", "create_revision": at, "mod_revision": at, "version": 1}],
    }
    found = ask("get", "--prefix", "k/", "--limit", "1", "--keys-only")
    assert isinstance(found, dict)
    assert (found["count"], found["more"], [kv["key"] for kv in found["kvs"]]) == (2, True, ["k/a"])
    exact = ask("get", "k/b", "--base64")
    assert isinstance(exact, dict)
    assert exact["kvs"][0]["value"] == "/wo="
    assert (
        "count: 2"
        in pilothouse("store", "get", "--prefix", "k/", "--count-only", "-o", "yaml", endpoint=endpoint).stdout
    )
    events = pilothouse(
        "store", "watch", "--prefix", "k/", "--rev", str(at), "--count", "3", "-o", "json", endpoint=endpoint
    )
    assert [(event["type"], event["key"]) for event in map(json.loads, events.stdout.splitlines())] == [
        ("PUT", "k/a"),
        ("PUT", "k/a"),
        ("PUT", "k/b"),
    ]
    assert ask("del", "--prefix", "k/") == {"deleted": 2, "revision": at + 3}
    missing = pilothouse("store", "get", "k/a", endpoint=endpoint, check=False)
    assert (missing.returncode, missing.stderr) == (4, "error: key 'k/a' does not exist\n")
    future = pilothouse("store", "get", "k/a", "--rev", "9999", endpoint=endpoint, check=False)
    assert (future.returncode, "future revision" in future.stderr) == (1, True)
    compacted = ask("compact", str(at + 3))
    assert compacted == {"compacted": at + 3, "revision": at + 3}
    late = pilothouse("store", "watch", "k/a", "--rev", str(at), endpoint=endpoint, check=False)
    assert (late.returncode, f"start from --rev {at + 3}" in late.stderr) == (1, True)


def test_upkeep(endpoint: str) -> None:
    def ask(*arguments: str) -> str:
        return pilothouse("store", *arguments, endpoint=endpoint).stdout

    status = ask("status")
    assert "advice: commit queue: 1024 places" in status
    assert json.loads(ask("status", "-o", "json"))["advice"]
    granted = json.loads(ask("lease", "grant", "60", "-o", "json"))
    assert granted["ttl"] == 60
    ask("put", "bound", "v", "--lease", granted["lease"])
    assert granted["lease"] in ask("lease", "list")
    assert json.loads(ask("lease", "keep-alive", granted["lease"], "-o", "json"))["ttl"] == 60
    assert json.loads(ask("lease", "ttl", granted["lease"], "--keys", "-o", "json"))["keys"] == ["bound"]
    ask("lease", "revoke", granted["lease"])
    gone = pilothouse("store", "lease", "revoke", granted["lease"], endpoint=endpoint, check=False)
    assert (gone.returncode, gone.stderr) == (4, "error: etcdserver: requested lease not found\n")
    assert ask("alarm", "list", "-o", "json") == "[]\n"
    assert ask("alarm", "disarm", "-o", "json") == "[]\n"
    assert json.loads(ask("member", "list", "-o", "json"))[0]["client_urls"] == [endpoint]
    assert ask("defrag") == "done\n"
    assert len(json.loads(ask("hash", "-o", "json"))["hash"]) == 8


def test_nobody_there_says_where_it_was_sought() -> None:
    done = pilothouse("store", "get", "a", "--timeout", "0.3", endpoint="127.0.0.1:1", check=False)
    assert done.returncode == 3
    assert "127.0.0.1:1" in done.stderr
    assert "hint: is the store served there?" in done.stderr


def test_check_finds_damage_and_the_way_out(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with serve_process(directory) as url:
        for key in ("a", "b"):
            pilothouse("store", "put", key, "v" * 200, endpoint=url)
        used = pilothouse("store", "check", str(directory), check=False)
        assert used.returncode == 5
        assert "in use by process" in used.stderr
        second = pilothouse("store", "serve", "--data-dir", str(directory), "--listen", "127.0.0.1:0", check=False)
        assert (second.returncode, "give each its own --data-dir" in second.stderr) == (5, True)
    report = json.loads(pilothouse("store", "check", str(directory), "-o", "json").stdout)
    assert (report["ok"], report["revision"], report["keys"]) == (True, 3, 2)
    (segment,) = [path for path in directory.rglob("*") if path.is_file() and b"v" * 200 in path.read_bytes()]
    data = segment.read_bytes()
    at = data.index(b"v" * 200)
    segment.write_bytes(data[:at] + b"w" + data[at + 1 :])
    damaged = pilothouse("store", "check", str(directory), check=False)
    assert damaged.returncode == 6
    assert str(segment) in damaged.stdout
    assert "last good revision: 1" in damaged.stdout
    assert "way out:" in damaged.stdout
    refused = pilothouse("store", "serve", "--data-dir", str(directory), "--listen", "127.0.0.1:0", check=False)
    assert refused.returncode == 6
    assert f"hint: `pilothouse store check {directory}` says more" in refused.stderr
    nothing = pilothouse("store", "check", str(tmp_path / "none"), check=False)
    assert nothing.returncode != 0
    assert "none" in nothing.stderr


def test_a_snapshot_is_whole_or_not_there(endpoint: str, tmp_path: Path) -> None:
    pilothouse("store", "put", "saved", "value", endpoint=endpoint)
    file = tmp_path / "saved.db"
    pilothouse("store", "snapshot", "save", str(file), endpoint=endpoint)
    assert os.listdir(tmp_path) == ["saved.db"]
    assert file.stat().st_mode & 0o777 == 0o600
    again = pilothouse("store", "snapshot", "save", str(file), endpoint=endpoint, check=False)
    assert (again.returncode, "exists" in again.stderr) == (5, True)
    data = file.read_bytes()
    for number, bad in enumerate((data[:-600], data[:100], b"not a snapshot", data[:40] + b"x" + data[41:])):
        broken = tmp_path / f"bad{number}.db"
        broken.write_bytes(bad)
        directory = tmp_path / f"new{number}"
        done = pilothouse("store", "snapshot", "restore", str(broken), "--data-dir", str(directory), check=False)
        assert (done.returncode, directory.exists()) == (6, False), done.stderr
        assert "nothing was restored" in done.stderr
    pilothouse("store", "snapshot", "restore", str(file), "--data-dir", str(tmp_path / "new"))
    full = pilothouse("store", "snapshot", "restore", str(file), "--data-dir", str(tmp_path / "new"), check=False)
    assert (full.returncode != 0, "not empty" in full.stderr) == (True, True)
    missing = pilothouse(
        "store", "snapshot", "restore", str(tmp_path / "no"), "--data-dir", str(tmp_path / "x"), check=False
    )
    assert "No such file" in missing.stderr


def test_metrics_are_served_where_asked(tmp_path: Path) -> None:
    listen = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--unix", str(tmp_path / "socket")]
    with subprocess.Popen(
        [*PILOTHOUSE, "store", "serve", "--data-dir", str(tmp_path / "d"), *listen],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        try:
            url = line.partition("metrics on ")[2].strip()
            with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
                assert b"pilothouse_store_revision_current 1.0" in answer.read()
            assert (tmp_path / "socket").is_socket()
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--listen", "0.0.0.0:0"), "plain text is served on loopback only"),
        (("--listen", "nonsense"), "want HOST:PORT"),
        (("--listen", "127.0.0.1:x"), "want HOST:PORT"),
        (("--tls-cert", "a"), "belong together"),
        (("--client-ca", "a"), "needs --tls-cert"),
        (("--tls-cert", "/none", "--tls-key", "/none"), "/none"),
        (("--auto-compaction-retention", "soon"), "want a duration"),
        (("--auto-compaction-mode", "revision", "--auto-compaction-retention", "1h"), "want a number of revisions"),
        (("--metrics-listen", "0.0.0.0:1"), "not on loopback"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    done = CliRunner().invoke(store, ["serve", "--data-dir", str(directory), *arguments])
    assert (done.exit_code, message in done.output) == (2, True), done.output
    assert not directory.exists()


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("periodic", "0", (0, 0.0)),
        ("periodic", "1", (0, 3600.0)),
        ("periodic", "30m", (0, 1800.0)),
        ("revision", "500", (500, 0.0)),
    ],
)
def test_retention_is_read_as_etcd_reads_it(mode: str, value: str, expected: tuple[int, float]) -> None:
    assert cli_serve._retention(mode, value) == expected


def test_a_taken_port_is_named(endpoint: str, tmp_path: Path) -> None:
    taken = f"127.0.0.1:{endpoint.rpartition(':')[2]}"
    for options in (("--listen", taken), ("--listen", "127.0.0.1:0", "--metrics-listen", taken)):
        done = pilothouse("store", "serve", "--data-dir", str(tmp_path / "d"), *options, check=False)
        assert (done.returncode, f"error: {options[-2]} {taken}" in done.stderr) == (5, True), done.stderr


def test_a_data_directory_that_cannot_be_made_is_named() -> None:
    done = pilothouse("store", "serve", "--data-dir", "/proc/none", "--listen", "127.0.0.1:0", check=False)
    assert (done.returncode, done.stderr) == (1, "error: data directory /proc/none: No such file or directory\n")


def test_contradicting_ranges_are_refused() -> None:
    done = CliRunner().invoke(store, ["get", "a", "b", "--prefix"])
    assert (done.exit_code, "exclude each other" in done.output) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "a", "--timeout", "nan"), "want seconds, more than 0"),
        (("get", "a", "--timeout", "-1"), "want seconds, more than 0"),
        (("get", "a", "--timeout", "inf"), "want seconds, more than 0"),
        (("get", "a", "--user", "me"), "no terminal to ask for the password"),
        (("get", "a", "--user", "me", "--password-file", "/nonexistent"), "--password-file /nonexistent"),
        (("get", "a", "--user", "me", "--password-file", "/bin/sh"), "--password-file /bin/sh: it is not UTF-8 text"),
        (("get", "a", "--endpoints", "http://[::1"), "Invalid IPv6 URL"),
        (("get", "a", "--endpoints", "http://10.0.0.1:2379"), "plain text leaves this machine"),
        (("lease", "revoke", "f" * 20), "is not a lease id"),
        (("lease", "revoke", "lease"), "is not a lease id"),
    ],
)
def test_wrong_client_options_are_refused_before_anyone_is_asked(arguments: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(store, arguments)
    assert (done.exit_code, message in done.output) == (2, True), done.output
