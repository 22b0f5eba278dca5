"""`pilothouse demo` as its users run it, to the end and cut short, and the parts that it is made of."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.cli import demo, demo_platform
from pilothouse.cli.demo_guestbook import manifests, of_version, processes_of, with_greeting
from pilothouse.cli.demo_load import Load, Tally, percentile
from pilothouse.cli.demo_platform import Platform, Share, claimed_share
from pilothouse.cli.demo_report import ROLL_OUT, WITHOUT_SERVER, Report
from pilothouse.foundation.terminal import CommandError
from support.guestbook import tier
from support.nodekit import user_python

_SECONDS = 110
_OTHERS_SECONDS = 75


# -- the whole


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a directory that another user may write to."""
    path = Path(tempfile.mkdtemp(prefix="phdemo"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def of_machine() -> dict[str, set[str]]:
    """Return what of this machine a demo could leave behind, by the names that only demos give."""
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    groups = Path("/sys/fs/cgroup").glob("**/*phdemo*") if os.access("/sys/fs/cgroup", os.R_OK) else []
    return {
        "links": {name for name in os.listdir("/sys/class/net") if name.startswith("phdemo")},
        "tables": {line for line in tables.splitlines() if "phdemo" in line},
        "groups": {str(each) for each in groups},
    }


def processes_with(directory: Path) -> list[str]:
    """Return the arguments of processes that name a directory in them or in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes()
                if os.fsencode(directory) in arguments + (entry / "environ").read_bytes():
                    found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # it ended meanwhile
    return found


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(home), "HOME": str(home), "PYTHONUNBUFFERED": "1"}


def check_nothing_is_left(home: Path, before: dict[str, set[str]]) -> None:
    assert processes_with(home) == []

    def left() -> dict[str, set[str]]:
        after = of_machine()
        return {name: found for name in after if (found := after[name] - before[name])}

    deadline = time.monotonic() + _OTHERS_SECONDS
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(1)  # another test's demo may be under way
    assert found == {}
    assert [each for each in home.iterdir() if each.name.startswith("pilothouse-demo-")] == []


WHO = {
    "runner": [],
    "user": [],  # another Python, which that user may run
    # Without networks and namespaces: in a namespace where no more can be made, less the rights that it brings.
    "root of a container": [
        "unshare", "--user", "--map-root-user", "sh", "-c",
        'echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-sys_admin,-net_admin "$@"', "sh",
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("who", WHO)
def test_it_runs_to_the_end_and_leaves_nothing(home: Path, who: str) -> None:
    if who != "runner" and os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    command = user_python(home) if who == "user" else [sys.executable]
    if command is None or (who != "runner" and shutil.which("setpriv") is None):
        pytest.skip("there is no program setpriv, or Python that another user may run")
    command = [*WHO[who], *command]
    before = of_machine()
    done = subprocess.run(
        [*command, "-m", "pilothouse", "demo", "-o", "json"],
        capture_output=True, text=True, timeout=_SECONDS, env=environment(home), cwd="/", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [each["event"] for each in told["timeline"]] == [
        "platform ready", "manifests applied", "first pod running", "application ready", "it answers",
        "version 2 rolled out", "a front killed with SIGKILL", "the front healed", "the store killed with SIGKILL",
        "the store healed", "the API server killed with SIGKILL", "the API server back", "the page shows the change",
        "everything down",
    ]  # fmt: skip
    assert told["figures"]["entries_lost"] == 0 < told["figures"]["entries_signed"]
    rolled = next(each for each in told["load"] if each["while"] == ROLL_OUT)
    assert rolled["failed"] == 0 < rolled["requests"]
    has_names = who == "runner" and os.geteuid() == 0  # port 53 can be had
    assert told["figures"]["store_found_by"] == ("name" if has_names else "variable")
    check_nothing_is_left(home, before)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "when"), [(signal.SIGTERM, "starting"), (signal.SIGINT, "rolling")])
def test_a_signal_takes_everything_down(home: Path, number: signal.Signals, when: str) -> None:
    before = of_machine()
    with subprocess.Popen(
        [sys.executable, "-m", "pilothouse", "demo"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment(home),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        while (line := process.stderr.readline()) and when not in line:
            pass
        process.send_signal(number)
        _, errors = process.communicate(timeout=_SECONDS)
    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted"), errors
    check_nothing_is_left(home, before)


# -- its platform


def test_shares_of_demos_have_nothing_in_common() -> None:
    for is_root in (True, False):
        networks, ports, bridges = [], set[int](), set[str]()
        for number in range(64):
            options = dict(each.split("=") for each in Share(number).options(is_root=is_root))
            networks += [
                ipaddress.ip_network(options[name]) for name in ("--cluster-cidr", "--service-cluster-ip-range")
            ]
            first, last = map(int, options["--service-node-port-range"].split("-"))
            assert ports.isdisjoint(range(first, last + 1))
            ports |= set(range(first, last + 1))
            bridges.add(options["--bridge"])
        assert len(bridges) == 64
        assert max(map(len, bridges)) <= 15
        assert not any(one.overlaps(other) for one, other in itertools.combinations(networks, 2))


def test_a_share_is_one_demos_alone() -> None:
    with claimed_share() as one, claimed_share() as other:
        assert one.number != other.number
    with claimed_share() as again:
        assert again.number == one.number


async def test_a_platform_that_does_not_start_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = "import sys; sys.exit('no room' if sys.argv[1] == 'up' else 0)"
    monkeypatch.setattr(demo_platform, "_PILOTHOUSE", (sys.executable, "-c", program))
    platform = Platform(Share(1))
    with pytest.raises(CommandError, match="did not start") as caught:
        await platform.start()
    assert caught.value.hint == "no room"
    await platform.remove()
    assert os.listdir(tmp_path) == []


async def test_what_cannot_be_taken_down_is_told_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo_platform, "_PILOTHOUSE", (sys.executable, "-c", "import sys; sys.exit('a pod is stuck')"))
    platform = Platform(Share(1))
    with pytest.raises(CommandError, match="something of the demo is left: a pod is stuck") as caught:
        await platform.remove()
    assert caught.value.hint == f"pilothouse down --data-dir {platform.data}"
    assert platform.directory.is_dir()


# -- its application


def test_the_first_tier_has_the_version_that_is_wanted_and_nothing_else_changes() -> None:
    objects = manifests()
    one, two = of_version(objects, "1"), of_version(objects, "2")
    assert one in objects
    variables = [each["spec"]["template"]["spec"]["containers"][0]["env"] for each in (one, two)]
    assert [each for each in zip(*variables, strict=True) if each[0] != each[1]] == [
        ({"name": "VERSION", "value": "1"}, {"name": "VERSION", "value": "2"})
    ]
    assert with_greeting(objects, "hello")["data"]["greeting"] == "hello"


def test_where_pods_find_no_python_they_get_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def commands() -> list[Any]:
        pods = [
            each["spec"]["template"]["spec"] for each in manifests() if each["kind"] in {"Deployment", "StatefulSet"}
        ]
        return [pod["containers"][0]["command"] for pod in pods]

    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/bin/python3")
    assert commands() == [["python3", "/app/storage.py"], ["python3", "/app/front.py"]]
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    assert {each[0] for each in commands()} == {os.path.realpath(sys.executable)}


def test_a_pods_process_is_told_from_others() -> None:
    command = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "/app/front.py"]
    given = {**os.environ, "POD_NAME": "front-of-this-test"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=given) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert processes_of("front-of-this-test", "front.py") == [process.pid]
        assert processes_of("front-of-this-test", "storage.py") == []
        assert processes_of("front-of-this", "front.py") == []
        process.communicate()


# -- its load and report


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


async def test_load_counts_what_it_sees_and_phases_do_not_mix(tmp_path: Path) -> None:
    with (
        tier("storage.py", DATA_DIR=str(tmp_path)) as store,
        tier("front.py", STORE_URL=f"http://127.0.0.1:{store.port}", VERSION="3") as front,
    ):
        async with Load(f"http://127.0.0.1:{front.port}") as load:
            first = await load.phase()
            await until(lambda: len(load.signed) >= 20)
            second = await load.phase()
            counted = first.requests
            front.process.kill()
            await until(lambda: second.failures > 0)
            assert (first.requests, first.failures, set(first.versions)) == (counted, 0, {"3"})
            assert "Error" in second.reasons[0]
        assert set(load.signed) <= {each["id"] for each in store.ask("GET", "/entries?limit=1000").json()["entries"]}


async def test_entries_are_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        tier("storage.py", DATA_DIR=str(tmp_path)) as store,
        tier("front.py", STORE_URL=f"http://127.0.0.1:{store.port}") as front,
    ):
        wanted = {f"id-{number}" for number in range(7)}
        for each in wanted:
            store.ask("POST", "/entries", {"id": each, "name": "me", "text": "x"})
        monkeypatch.setattr("pilothouse.cli.demo_load._PAGE", 3)
        async with Load(f"http://127.0.0.1:{front.port}") as load:
            assert wanted <= await load.entries()


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0, 1))
def test_a_percentile_is_a_value_that_so_many_are_not_above(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(each <= found for each in values) >= share * len(values)


def test_the_report_says_what_should_not_have_been() -> None:
    times = iter([10.0, 11.5, 12.0])
    report = Report(clock=lambda: next(times))
    report.moment("ready", "all of it")
    report.moment("done")
    assert report.moments == [
        {"at_seconds": 1.5, "took_seconds": 1.5, "event": "ready", "detail": "all of it"},
        {"at_seconds": 2.0, "took_seconds": 0.5, "event": "done", "detail": ""},
    ]
    rolled, killed, alone = Tally([0.001] * 99 + [0.5]), Tally([0.002], 2, ["refused"]), Tally()
    for name, tally in ((ROLL_OUT, rolled), ("front killed", killed), (WITHOUT_SERVER, alone)):
        report.phase(name, tally)
    report.entries({"a", "b"}, {"a", "b", "c"})
    assert report.problems() == []
    assert report.phases == [
        {"while": ROLL_OUT, "requests": 100, "failed": 0, "p50_ms": 1.0, "p99_ms": 500.0},
        {"while": "front killed", "requests": 3, "failed": 2, "p50_ms": 2.0, "p99_ms": 2.0},
    ]
    assert report.summary() == "103 requests in all; 0 failed in the roll-out, 0 of 2 entries are lost"
    rolled.failed("reset")
    alone.failed("refused")
    report.entries({"a", "b"}, {"b"})
    assert report.problems() == [
        "requests that failed while version 2 was rolled out: 1",
        "requests that failed while the API server was gone: 1",
        "acknowledged entries that are lost: 1",
    ]


# -- its command


def test_what_went_wrong_is_told_after_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(report: Report) -> None:
        report.moment("platform ready")
        report.phase(ROLL_OUT, Tally([0.001], 1, ["reset"]))
        report.entries({"a"}, {"a"})

    monkeypatch.setattr(demo, "_run", run)
    done = CliRunner().invoke(demo.demo)
    assert done.exit_code == 1
    assert done.stdout.splitlines()[-1] == "2 requests in all; 1 failed in the roll-out, 0 of 1 entries are lost"
    assert done.stderr == f"error: requests that failed while {ROLL_OUT}: 1\nhint: {ROLL_OUT}: reset\n"
