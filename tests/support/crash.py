"""Kill a loaded store again and again, and check what survived against everything that was ever reported.

Guarantees checked: every acknowledged write is there, no transaction half there, revisions contiguous and never
reused over restarts, watchers see the same events before and after a kill, leases stay, and the whole concurrent
history, operations of unknown outcome included, is linearizable.
"""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pilothouse.store.model import KeyValue
from support.crash_child import PAIRS, Called, Opened, Record, Returned, Seen, decode
from support.linearizability import Kind, Operation, check_history

__all__ = ["Ledger", "operations_of", "run_child"]

_KINDS = {"get": Kind.GET, "put": Kind.PUT, "delete": Kind.DELETE, "cas": Kind.CAS, "pair": Kind.PUT}
_PARTNER = {one: other for pair in PAIRS for one, other in (pair, pair[::-1])}
_LONGEST_RUN = 30.0


def run_child(directory: Path, run: int, rng: random.Random, *, writers: int = 8) -> list[Record]:
    """Run a child, kill it at a random instant, mostly under load, sometimes while it opens; return what it said.

    Without writers it is not killed and must end well.
    """
    command = [sys.executable, "-m", "support.crash_child", str(directory), str(run), str(run), str(writers)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        deadline = time.monotonic() + (rng.uniform(0.15, 0.5) if writers and rng.random() < 0.1 else _LONGEST_RUN)
        output = _collect(process.stdout.fileno(), deadline, rng.uniform(0.0, 0.25) if writers else _LONGEST_RUN)
        if writers:
            process.kill()
        code = process.wait(_LONGEST_RUN)
        output += process.stdout.read()
        errors = process.stderr.read().decode()
    if errors or (code != 0 and not writers):
        raise AssertionError(f"run {run}: the child failed with code {code}: {errors[-4000:]}")
    lines = output.split(b"\n")
    return [decode(line) for line in lines[:-1]]


def _collect(stdout: int, deadline: float, after_opening: float) -> bytes:
    output = bytearray()
    opened = False
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([stdout], [], [], left)[0]:
            break
        chunk = os.read(stdout, 1 << 16)
        if not chunk:
            break
        output += chunk
        if not opened and b"\n" in output:
            opened = True
            deadline = min(deadline, time.monotonic() + after_opening)
    return bytes(output)


@dataclass
class Ledger:
    """All that the children of one directory have reported, and the faults found in it.

    With `refusals` an operation may be answered with an error: `NoSpace` says that it was not done, any other leaves
    that open.
    """

    refusals: bool = False
    faults: list[str] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    events: dict[int, list[KeyValue]] = field(default_factory=dict)
    acknowledged: dict[int, str] = field(default_factory=dict)
    leases: set[int] = field(default_factory=set)
    newest: int = 1
    compacted: int = -1
    acknowledgements: int = 0

    def add(self, run: int, records: Iterable[Record]) -> None:
        """Take in one child's records and check them against all before."""
        records = list(records)
        where = f"run {run}"
        for record in records:
            if isinstance(record, Opened):
                self._opened(where, record)
        self._seen(where, [record for record in records if isinstance(record, Seen)])
        self._operations(where, records)

    def check(self) -> list[str]:
        """Return all faults, the search for a linearization included."""
        for revision, what in self.acknowledged.items():
            kvs = self.events.get(revision)
            if kvs is not None and what not in _written(kvs):
                self.faults.append(f"revision {revision} was acknowledged as {what} but holds {_written(kvs)}")
        return self.faults + [str(violation) for violation in check_history(self.operations)]

    def _fault(self, where: str, what: str) -> None:
        self.faults.append(f"{where}: {what}")

    def _opened(self, where: str, opened: Opened) -> None:
        if opened.revision < self.newest:
            self._fault(where, f"opened at revision {opened.revision} after {self.newest} had been reported")
        if opened.compact_revision < self.compacted:
            self._fault(where, f"compacted at {opened.compact_revision} after {self.compacted}")
        if gone := self.leases - set(opened.leases):
            self._fault(where, f"leases {sorted(gone)} are gone")
        self.newest, self.compacted = max(self.newest, opened.revision), opened.compact_revision
        found = {kv.key: kv for kv in opened.kvs}
        for kv in opened.kvs:
            known = self.events.get(kv.mod_revision)
            if known is not None and _plain(kv) not in [_plain(event) for event in known]:
                self._fault(where, f"{kv} is not what revision {kv.mod_revision} wrote: {known}")
            partner = found.get(_PARTNER.get(kv.key, kv.key))
            whole = partner is not None and (partner.value, partner.mod_revision) == (kv.value, kv.mod_revision)
            if kv.key in _PARTNER and not whole:
                self._fault(where, f"a pair is half there: {kv} beside {partner}")
        keys = {operation.key for operation in self.operations} | set(found)
        self.operations += [
            Operation(key, Kind.GET, opened.began, opened.at, result=found[key].value if key in found else None)
            for key in sorted(keys)
        ]

    def _seen(self, where: str, seen: list[Seen]) -> None:
        by_revision: dict[int, list[KeyValue]] = defaultdict(list)
        for kv in (kv for record in seen for kv in record.events):
            by_revision[kv.mod_revision].append(kv)
        order = list(by_revision)
        if order and order != list(range(order[0], order[0] + len(order))):
            self._fault(where, f"watched revisions are not contiguous: {order}")
        for revision, kvs in by_revision.items():
            known = self.events.setdefault(revision, kvs)
            if [_plain(kv) for kv in known] != [_plain(kv) for kv in kvs]:
                self._fault(where, f"revision {revision} was {known} and is now {kvs}")
            for kv in kvs:
                partner = _PARTNER.get(kv.key)
                if partner is not None and partner not in [other.key for other in kvs]:
                    self._fault(where, f"revision {revision} has {kv.key!r} without {partner!r}")
            self.newest = max(self.newest, revision)

    def _operations(self, where: str, records: list[Record]) -> None:
        called: dict[int, Called] = {}
        newest = 0
        floors: dict[int, int] = {}
        for record in records:
            if isinstance(record, Called):
                called[record.id], floors[record.id] = record, newest
            elif isinstance(record, Returned):
                call = called.pop(record.id)
                self.acknowledgements += 1
                if record.error and not self.refusals:
                    self._fault(where, f"{call.invocation} was refused: {record.error}")
                if record.revision:
                    self._acknowledge(where, call, record, floors[record.id])
                    newest = max(newest, record.revision)
                self._remember(call, record)
        for call in called.values():
            self._remember(call, None)

    def _acknowledge(self, where: str, call: Called, returned: Returned, floor: int) -> None:
        revision = returned.revision
        if revision <= floor:
            self._fault(where, f"{call.invocation} got revision {revision} though {floor} had been answered before it")
        if revision in self.acknowledged:
            self._fault(where, f"revision {revision} was given to two writes")
        value = None if call.invocation.kind == "delete" else call.invocation.value
        self.acknowledged[revision] = f"{call.invocation.keys[0]!r}={value!r}"
        self.newest = max(self.newest, revision)

    def _remember(self, call: Called, returned: Returned | None) -> None:
        what = call.invocation
        answered = returned is not None and not returned.error
        if returned is not None and returned.error.startswith("NoSpace"):
            return
        if what.kind == "grant" and answered:
            self.leases.add(what.number)
        elif what.kind == "revoke":
            self.leases.discard(what.number)
        elif what.kind == "compact" and answered:
            self.compacted = max(self.compacted, what.number)
        self.operations += operations_of(call, returned)


def operations_of(call: Called, returned: Returned | None) -> list[Operation]:
    """Return what a call does to each of its keys; unknown where it was not answered or answered with an error."""
    what = call.invocation
    known = returned is not None and not returned.error
    kind = Kind.DELETE if what.kind == "revoke" else _KINDS.get(what.kind)
    if kind is None:
        return []
    at = returned.at if returned is not None and known else None
    result = returned.result if returned is not None and known else None
    value = what.value if kind in {Kind.PUT, Kind.CAS} else None
    return [Operation(key, kind, call.at, at, value, what.expected, result) for key in what.keys]


def _plain(kv: KeyValue) -> tuple[bytes, bytes, int, int, int, int]:
    return kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease


def _written(kvs: Iterable[KeyValue]) -> list[str]:
    return [f"{kv.key!r}={kv.value if kv.version else None!r}" for kv in kvs]
