"""A server killed at random instants under writes loses nothing it answered, and watches go on where they were."""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WRITERS = 6
_LONGEST = 60.0
Report = dict[str, Any]


def run_child(directory: Path, run: int, since: str, rng: random.Random, *, writers: int = WRITERS) -> list[Report]:
    """Run a child; kill it at a random instant after it has opened, or let it end where it has no writers."""
    command = [sys.executable, "-m", "support.apicrash_child", str(directory), str(run), since, str(writers)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        output = _collect(process.stdout.fileno(), rng.uniform(0.02, 0.6) if writers else _LONGEST)
        if writers:
            process.kill()
        code = process.wait(_LONGEST)
        output += process.stdout.read()
        errors = process.stderr.read().decode()
    assert not errors, errors[-4000:]
    assert writers or code == 0
    return [json.loads(line) for line in output.split(b"\n")[:-1]]


def _collect(stdout: int, after_opening: float) -> bytes:
    output = b""
    deadline, opened = time.monotonic() + _LONGEST, False
    while (left := deadline - time.monotonic()) > 0 and select.select([stdout], [], [], left)[0]:
        piece = os.read(stdout, 1 << 16)
        if not piece:
            break
        output += piece
        if not opened and b"\n" in output:
            opened, deadline = True, time.monotonic() + after_opening
    return output


@dataclass
class Ledger:
    """What the children reported, and where it does not fit."""

    states: dict[str, set[str | None]] = field(default_factory=dict)
    """What each object may be: what the last answered write made it, or what one under way may have made it."""
    before: dict[str, set[str | None]] = field(default_factory=dict)
    versions: set[int] = field(default_factory=set)
    """Of all writes that were answered."""
    seen: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    since: str = ""
    answers: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, run: int, reports: list[Report]) -> None:
        for report in reports:
            getattr(self, f"_{report.pop('kind')}")(run, **report)

    def _opened(self, run: int, objects: dict[str, list[str]], revision: int) -> None:
        for name, possible in self.states.items():
            value = objects[name][1] if name in objects else None
            if value not in possible:
                self.faults.append(f"run {run}: {name} is {value!r} and should be one of {possible}")
        for name in objects.keys() - self.states.keys():
            self.faults.append(f"run {run}: {name} is there and nobody made it")
        self.states = {name: {value} for name, (_, value) in objects.items()}
        if self.seen and revision < max(self.seen):
            self.faults.append(f"run {run}: opened at {revision} after {max(self.seen)} was seen")
        self.since = self.since or str(revision)

    def _asked(self, run: int, name: str, verb: str, value: str) -> None:
        self.before[name] = self.states.get(name, {None})
        self.states[name] = self.before[name] | {None if verb == "DELETE" else value}

    def _answered(self, run: int, name: str, verb: str, value: str, code: int, version: int) -> None:
        self.answers += 1
        done = None if verb == "DELETE" else value
        if code < 300:
            self.states[name] = {done}
            if version:
                self.versions.add(version)
        elif code in {404, 409}:
            self.states[name] = self.before[name]
        else:
            self.faults.append(f"run {run}: {verb} {name} was answered with {code}")

    def _seen(self, run: int, type: str, name: str, version: int, value: str) -> None:  # noqa: A002
        if self.seen and version <= max(self.seen):
            self.faults.append(f"run {run}: {type} {name} at {version} came after {max(self.seen)}")
        self.seen[version] = type, name, value
        self.since = str(version)

    def _broken(self, run: int, event: Any) -> None:
        self.faults.append(f"run {run}: the watch broke off: {event}")

    def _end(self, run: int) -> None:
        missed = self.versions - self.seen.keys()
        if missed:
            self.faults.append(f"answered and never seen: {sorted(missed)[:10]}")
        known: dict[str, str] = {}
        for version in sorted(self.seen):
            kind, name, value = self.seen[version]
            if (kind == "ADDED") is (name in known):
                self.faults.append(f"{kind} {name} at {version} does not follow from what came before")
            if kind == "DELETED":
                known.pop(name, None)
            else:
                known[name] = value
        known.pop("w-mark", None)
        left = {name: value for name, (value,) in self.states.items() if value is not None}
        if known != left:
            self.faults.append(f"events make {known}, and there is {left}")


def kill_repeatedly(directory: Path, kills: int, seed: int) -> Ledger:
    rng, ledger = random.Random(seed), Ledger()
    for run in range(1, kills + 1):
        ledger.add(run, run_child(directory, run, ledger.since, rng))
    reports = run_child(directory, kills + 1, ledger.since, rng, writers=0)
    assert reports[-1]["kind"] == "end"
    ledger.add(kills + 1, reports)
    return ledger


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_survives_five_kills(tmp_path: Path) -> None:
    ledger = kill_repeatedly(tmp_path / "store", 5, 1)
    assert ledger.faults == []
    assert ledger.answers > 100


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_survives_fifty_kills(tmp_path: Path) -> None:
    ledger = kill_repeatedly(tmp_path / "store", 50, 2)
    assert ledger.faults == []


def faults_of(*reports: Report) -> str:
    ledger = Ledger()
    ledger.add(1, [{"kind": "opened", "objects": {}, "revision": 5}, *(dict(report) for report in reports)])
    return "\n".join(ledger.faults)


ASKED = {"kind": "asked", "name": "wa", "verb": "POST", "value": "1"}
ANSWERED = {**ASKED, "kind": "answered", "code": 201, "version": 6}
SEEN = {"kind": "seen", "type": "ADDED", "name": "wa", "version": 6, "value": "1"}
THERE = {"kind": "opened", "objects": {"wa": ["6", "1"]}, "revision": 6}
EMPTY = {"kind": "opened", "objects": {}, "revision": 6}
END = {"kind": "end"}


def test_the_ledger_accepts_what_is_right() -> None:
    assert faults_of(ASKED, ANSWERED, SEEN, THERE, END) == ""
    assert faults_of(ASKED, EMPTY, END) == ""
    assert faults_of(ASKED, THERE, SEEN, END) == ""


@pytest.mark.parametrize(
    ("reports", "fault"),
    [
        ((ASKED, ANSWERED, SEEN, EMPTY), "should be one of"),
        ((ASKED, ANSWERED, THERE, END), "never seen"),
        ((ASKED, ANSWERED, SEEN, SEEN), "came after"),
        ((THERE,), "nobody made it"),
        ((ASKED, {**ANSWERED, "code": 500}), "was answered with 500"),
        ((ASKED, ANSWERED, {**SEEN, "type": "MODIFIED"}, THERE, END), "does not follow"),
        ((ASKED, ANSWERED, {**SEEN, "value": "2"}, THERE, END), "events make"),
        (({"kind": "broken", "event": None},), "broke off"),
        ((ASKED, ANSWERED, SEEN, {**THERE, "revision": 5}), "opened at 5"),
    ],
)
def test_the_ledger_catches(reports: tuple[Report, ...], fault: str) -> None:
    assert fault in faults_of(*reports)
