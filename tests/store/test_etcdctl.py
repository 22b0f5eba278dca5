"""etcdctl, end to end, against `pilothouse store serve` in a process of its own."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.etcd import make_tls
from support.etcd_json import running_etcd
from support.service import pilothouse, serve_process

pytestmark = [pytest.mark.etcd, pytest.mark.slow]

_SECONDS = 20


@pytest.fixture
def endpoint(tmp_path: Path) -> Iterator[str]:
    with serve_process(tmp_path / "data") as url:
        yield url


def etcdctl(endpoint: str, *arguments: str, stdin: str = "", check: bool = True) -> str:
    done = subprocess.run(
        ["etcdctl", f"--endpoints={endpoint}", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        env={**os.environ, "ETCDCTL_API": "3"},
        check=False,
    )
    if check:
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout
    return done.stdout + done.stderr


def as_json(endpoint: str, *arguments: str) -> Any:
    return json.loads(etcdctl(endpoint, *arguments, "-w", "json"))


@contextlib.contextmanager
def running(endpoint: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run an etcdctl command that ends only when it is told to."""
    process = subprocess.Popen(
        ["etcdctl", f"--endpoints={endpoint}", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "ETCDCTL_API": "3"},
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=_SECONDS)


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return the next lines that a command prints."""
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    text = b""
    deadline = time.monotonic() + _SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while text.count(b"\n") < count:
            assert selector.select(max(deadline - time.monotonic(), 0)), f"only {text!r} came"
            data = os.read(descriptor, 65536)
            assert data, f"only {text!r} came"
            text += data
    return text.decode().splitlines()


def fill(endpoint: str, *keys: str) -> None:
    for key in keys:
        etcdctl(endpoint, "put", key, f"value of {key}")


def test_get_in_all_its_forms(endpoint: str) -> None:
    fill(endpoint, "a1", "a2", "a3", "b1")
    etcdctl(endpoint, "put", "a1", "new")
    assert etcdctl(endpoint, "get", "a2") == "a2\nvalue of a2\n"
    assert etcdctl(endpoint, "get", "none") == ""
    assert etcdctl(endpoint, "get", "--prefix", "a", "--keys-only").split() == ["a1", "a2", "a3"]
    assert etcdctl(endpoint, "get", "a2", "b", "--keys-only").split() == ["a2", "a3"]
    assert etcdctl(endpoint, "get", "a2", "--from-key", "--keys-only").split() == ["a2", "a3", "b1"]
    assert etcdctl(endpoint, "get", "--prefix", "", "--print-value-only", "--limit=1") == "new\n"
    order = ["get", "--prefix", "a", "--keys-only", "--sort-by=MODIFY", "--order=DESCEND"]
    assert etcdctl(endpoint, *order).split() == ["a1", "a3", "a2"]
    assert etcdctl(endpoint, "get", "a1", "--rev=2", "--print-value-only") == "value of a1\n"
    assert "future revision" in etcdctl(endpoint, "get", "a1", "--rev=99", check=False)
    found = as_json(endpoint, "get", "--prefix", "a", "--limit=2")
    assert (found["header"]["revision"], found["count"], found["more"], len(found["kvs"])) == (6, 3, True, 2)
    assert base64.b64decode(found["kvs"][0]["key"]) == b"a1"
    fields = etcdctl(endpoint, "get", "--prefix", "a", "-w", "fields")
    assert '"Count" : 3' in fields
    assert etcdctl(endpoint, "get", "a1", "--consistency=s", "--print-value-only") == "new\n"


def test_put_and_del(endpoint: str) -> None:
    fill(endpoint, "a", "b", "c")
    assert etcdctl(endpoint, "put", "a", "2", "--prev-kv") == "OK\na\nvalue of a\n"
    etcdctl(endpoint, "put", "d", stdin="from\nstdin")
    assert etcdctl(endpoint, "get", "d", "--print-value-only") == "from\nstdin\n"
    etcdctl(endpoint, "put", "a", "--ignore-value")
    assert etcdctl(endpoint, "get", "a", "--print-value-only") == "2\n"
    assert etcdctl(endpoint, "del", "a", "--prev-kv") == "1\na\n2\n"
    assert etcdctl(endpoint, "del", "a") == "0\n"
    assert etcdctl(endpoint, "del", "--prefix", "") == "3\n"


def test_txn(endpoint: str) -> None:
    fill(endpoint, "a")
    script = 'value("a") = "value of a"\nmod("a") > "1"\n\nput a 1\nget a\n\nput b 2\n\n'
    answer = etcdctl(endpoint, "txn", stdin=script)
    assert answer.split() == ["SUCCESS", "OK", "a", "1"]
    answer = etcdctl(endpoint, "txn", "-i", stdin=script)
    assert answer.split("FAILURE")[1].split() == ["OK"]
    assert etcdctl(endpoint, "get", "b", "--print-value-only") == "2\n"
    double = "\nput a 1\nput a 2\n\n\n"
    assert "duplicate key given in txn request" in etcdctl(endpoint, "txn", stdin=double, check=False)


def test_watch(endpoint: str) -> None:
    fill(endpoint, "a1", "a2")
    with running(endpoint, "watch", "--prefix", "a", "--rev=2", "--prev-kv") as process:
        assert lines(process, 6) == ["PUT", "a1", "value of a1", "PUT", "a2", "value of a2"]
        etcdctl(endpoint, "put", "a2", "new")
        assert lines(process, 5) == ["PUT", "a2", "value of a2", "a2", "new"]
        etcdctl(endpoint, "del", "a2")
        assert lines(process, 5) == ["DELETE", "a2", "new", "a2", ""]
    with running(endpoint, "watch", "-i") as process:
        assert process.stdin is not None
        process.stdin.write("watch b\n")
        process.stdin.flush()
        time.sleep(0.3)
        process.stdin.write("progress\n")
        process.stdin.flush()
        assert lines(process, 1) == ["progress notify: 5"]


def test_a_compacted_watch_says_so(endpoint: str) -> None:
    fill(endpoint, "a", "a", "a")
    assert etcdctl(endpoint, "compaction", "4") == "compacted revision 4\n"
    assert "has been compacted" in etcdctl(endpoint, "compaction", "3", check=False)
    assert "has been compacted" in etcdctl(endpoint, "get", "a", "--rev=3", check=False)
    assert "required revision has been compacted" in etcdctl(endpoint, "watch", "a", "--rev=2", check=False)


def test_leases(endpoint: str) -> None:
    lease = re.findall(r"lease (\w+) granted with TTL\(60s\)", etcdctl(endpoint, "lease", "grant", "60"))[0]
    etcdctl(endpoint, "put", "bound", "v", f"--lease={lease}")
    assert lease in etcdctl(endpoint, "lease", "list")
    assert "attached keys([bound])" in etcdctl(endpoint, "lease", "timetolive", lease, "--keys")
    assert "keepalived with TTL(60)" in etcdctl(endpoint, "lease", "keep-alive", lease, "--once")
    assert etcdctl(endpoint, "lease", "revoke", lease) == f"lease {lease} revoked\n"
    assert etcdctl(endpoint, "get", "bound") == ""
    assert "already expired" in etcdctl(endpoint, "lease", "timetolive", lease)
    assert "requested lease not found" in etcdctl(endpoint, "lease", "revoke", lease, check=False)


def test_a_lease_that_is_not_kept_alive_ends(endpoint: str) -> None:
    lease = re.findall(r"lease (\w+) granted", etcdctl(endpoint, "lease", "grant", "2"))[0]
    etcdctl(endpoint, "put", "bound", "v", f"--lease={lease}")
    with running(endpoint, "watch", "bound") as process:
        assert lines(process, 3) == ["DELETE", "bound", ""]


def test_maintenance(endpoint: str) -> None:
    fill(endpoint, "a")
    url = endpoint
    # For commands to one member this etcdctl makes the whole URL the request's authority, which HTTP/2 does not allow.
    endpoint = endpoint.removeprefix("http://")
    (status,) = as_json(endpoint, "endpoint", "status")
    assert status["Status"]["leader"] == status["Status"]["header"]["member_id"]
    assert status["Status"]["version"].startswith("3.5.")
    assert "is healthy" in etcdctl(endpoint, "endpoint", "health", check=False)
    (hashed,) = as_json(endpoint, "endpoint", "hashkv")
    assert f"{hashed['HashKV']['hash']:08x}" in pilothouse("store", "hash", endpoint=endpoint).stdout
    assert etcdctl(endpoint, "alarm", "list") == ""
    assert etcdctl(endpoint, "alarm", "disarm") == ""
    assert "Finished defragmenting" in etcdctl(endpoint, "defrag", check=False)
    (member,) = as_json(endpoint, "member", "list")["members"]
    assert member["clientURLs"] == [url]
    assert "has one member" in etcdctl(endpoint, "member", "add", "x", "--peer-urls=http://127.0.0.1:1", check=False)
    assert "bad leader transferee" in etcdctl(endpoint, "move-leader", "1", check=False)


def test_a_full_store_raises_the_alarm_and_goes_on_after_it_is_disarmed(tmp_path: Path) -> None:
    with serve_process(tmp_path / "data", "--quota-bytes", "1048576") as endpoint:
        value = "x" * 100_000
        answers = [etcdctl(endpoint, "put", "k", value, check=False) for _ in range(15)]
        assert answers[0] == "OK\n"
        assert "database space exceeded" in answers[-1]
        assert "NOSPACE" in etcdctl(endpoint, "alarm", "list")
        assert etcdctl(endpoint, "get", "k", "--print-value-only").strip() == value
        revision = as_json(endpoint, "get", "k")["header"]["revision"]
        etcdctl(endpoint, "compaction", str(revision), "--physical")
        assert "NOSPACE" in etcdctl(endpoint, "alarm", "disarm")
        assert etcdctl(endpoint, "put", "k", "small") == "OK\n"


def test_a_snapshot_is_saved_and_restored(endpoint: str, tmp_path: Path) -> None:
    fill(endpoint, "a", "b")
    saved, ours = tmp_path / "etcdctl.db", tmp_path / "ours.db"
    etcdctl(endpoint, "snapshot", "save", str(saved))
    pilothouse("store", "snapshot", "save", str(ours), endpoint=endpoint)
    etcdctl(endpoint, "put", "c", "after")
    for number, file in enumerate((saved, ours)):
        directory = tmp_path / f"restored{number}"
        pilothouse("store", "snapshot", "restore", str(file), "--data-dir", str(directory))
        pilothouse("store", "check", str(directory))
        with serve_process(directory) as restored:
            assert etcdctl(restored, "get", "--prefix", "", "--keys-only").split() == ["a", "b"]
            assert as_json(restored, "get", "a")["header"]["revision"] == 3


def test_users_roles_and_the_switch(endpoint: str) -> None:
    etcdctl(endpoint, "user", "add", "root:r")
    etcdctl(endpoint, "user", "grant-role", "root", "root")
    etcdctl(endpoint, "user", "add", "ann:a")
    etcdctl(endpoint, "role", "add", "dev")
    etcdctl(endpoint, "role", "grant-permission", "dev", "--prefix=true", "readwrite", "app/")
    etcdctl(endpoint, "user", "grant-role", "ann", "dev")
    assert etcdctl(endpoint, "auth", "enable") == "Authentication Enabled\n"
    assert "user name is empty" in etcdctl(endpoint, "put", "app/a", "1", check=False)
    assert etcdctl(endpoint, "--user=ann:a", "put", "app/a", "1") == "OK\n"
    assert "permission denied" in etcdctl(endpoint, "--user=ann:a", "put", "other", "1", check=False)
    assert "authentication failed" in etcdctl(endpoint, "--user=ann:b", "get", "app/a", check=False)
    assert etcdctl(endpoint, "--user=root:r", "user", "list").split() == ["ann", "root"]
    assert "dev" in etcdctl(endpoint, "--user=root:r", "user", "get", "ann")
    assert "app/" in etcdctl(endpoint, "--user=root:r", "role", "get", "dev")
    etcdctl(endpoint, "--user=root:r", "role", "revoke-permission", "dev", "--prefix=true", "app/")
    assert "permission denied" in etcdctl(endpoint, "--user=ann:a", "get", "app/a", check=False)
    assert etcdctl(endpoint, "--user=root:r", "auth", "disable") == "Authentication Disabled\n"
    assert etcdctl(endpoint, "get", "app/a", "--print-value-only") == "1\n"


def test_lock_and_elect(endpoint: str) -> None:
    assert etcdctl(endpoint, "lock", "mutex", "echo", "held") == "held\n"
    with running(endpoint, "elect", "race", "ann") as leader:
        assert lines(leader, 2)[1] == "ann"
        with running(endpoint, "elect", "-l", "race") as listener:
            assert lines(listener, 2)[1] == "ann"


def test_keys_are_mirrored_to_and_from_a_real_etcd(endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    with running_etcd(tmp_path / "etcd") as port:
        etcd = f"http://127.0.0.1:{port}"
        for number, (source, target) in enumerate(((endpoint, etcd), (etcd, endpoint))):
            for key in "abc":
                etcdctl(source, "put", f"{number}/{key}", key)
            with running(source, "make-mirror", "--prefix", f"{number}/", target.removeprefix("http://")):
                etcdctl(source, "put", f"{number}/d", "d")
                etcdctl(source, "del", f"{number}/a")
                deadline = time.monotonic() + _SECONDS
                want = [f"{number}/{key}" for key in "bcd"]
                while (got := etcdctl(target, "get", "--prefix", f"{number}/", "--keys-only").split()) != want:
                    assert time.monotonic() < deadline, got
                    time.sleep(0.1)


def test_tls_and_client_certificates(tmp_path: Path) -> None:
    files = make_tls(tmp_path / "tls")
    server = ["--tls-cert", str(files.server_certificate), "--tls-key", str(files.server_key)]
    with serve_process(tmp_path / "plain", *server) as url:
        assert url.startswith("https://")
        assert etcdctl(url, f"--cacert={files.ca}", "put", "a", "1") == "OK\n"
        assert pilothouse("store", "get", "a", "--cacert", str(files.ca), "-o", "json", endpoint=url).stdout
    with serve_process(tmp_path / "mutual", *server, "--client-ca", str(files.ca)) as url:
        client = [f"--cert={files.client_certificate}", f"--key={files.client_key}"]
        assert etcdctl(url, f"--cacert={files.ca}", *client, "put", "a", "1") == "OK\n"
        refused = etcdctl(
            url, f"--cacert={files.ca}", "--command-timeout=1s", "--dial-timeout=1s", "get", "a", check=False
        )
        assert "1\n" not in refused.splitlines()
        assert "Error" in refused or "deadline" in refused
