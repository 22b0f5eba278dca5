"""Log lines, addresses, events, and files that a keeper writes. Pure, but for files."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.node.errors import AddressesExhausted
from pilothouse.node.process.crilog import MAX_LINE, LineFormatter, LogFile, timestamp
from pilothouse.node.process.events import Events
from pilothouse.node.process.ipam import AddressPool
from pilothouse.node.process.spec import ContainerRecord, process_start, read_file, write_file


def test_lines_as_the_cri_has_them() -> None:
    assert timestamp(1_795_659_205_000_000_042) == b"2026-11-26T02:13:25.000000042Z"
    lines = LineFormatter("stderr")
    assert lines.feed(b"one\ntw", 0) == b"1970-01-01T00:00:00.000000000Z stderr F one\n"
    assert lines.feed(b"o\n\n", 1) == (
        b"1970-01-01T00:00:00.000000001Z stderr F two\n1970-01-01T00:00:00.000000001Z stderr F \n"
    )
    assert lines.feed(b"rest", 2) == b""
    assert lines.finish(3) == b"1970-01-01T00:00:00.000000003Z stderr F rest\n"
    assert lines.finish(4) == b""


@given(
    st.lists(
        st.one_of(st.binary(max_size=50), st.integers(1, 3 * MAX_LINE).map(lambda count: b"x" * count)), max_size=8
    )
)
def test_nothing_of_a_stream_is_lost(chunks: list[bytes]) -> None:
    lines = LineFormatter("stdout")
    written = b"".join(lines.feed(chunk, 0) for chunk in chunks) + lines.finish(0)
    found = b""
    for line in written.split(b"\n")[:-1]:
        _, _, tag, text = line.split(b" ", 3)
        assert len(text) <= MAX_LINE
        found += text + (b"\n" if tag == b"F" else b"")
    whole = b"".join(chunks)
    assert found == whole + (b"" if whole.endswith(b"\n") or not whole else b"\n")


def test_a_log_counts_what_it_cannot_write(tmp_path: Path) -> None:
    log = LogFile(str(tmp_path / "missing" / "log"))
    log.write(b"lost\n")
    assert log.lost == 5
    (tmp_path / "missing").mkdir()
    log.reopen()
    log.write(b"kept\n")
    log.close()
    assert (tmp_path / "missing" / "log").read_bytes() == b"kept\n"
    assert log.lost == 5


def test_addresses_are_taken_and_given_back_over_restarts(tmp_path: Path) -> None:
    pool = AddressPool(str(tmp_path), "10.9.8.0/29")
    assert (pool.gateway, pool.prefix) == ("10.9.8.1", 29)
    taken = [pool.take(f"p{number}") for number in range(5)]
    assert taken == [f"10.9.8.{last}" for last in range(2, 7)]
    with pytest.raises(AddressesExhausted, match=r"no address is left in 10\.9\.8\.0/29"):
        pool.take("more")
    pool.give_back("10.9.8.4")
    pool.give_back("10.9.8.4")
    again = AddressPool(str(tmp_path), "10.9.8.0/29")
    assert again.owners() == {address: f"p{number}" for number, address in enumerate(taken) if number != 2}
    assert again.take("new") == "10.9.8.4"
    with pytest.raises(ValueError, match="too small"):
        AddressPool(str(tmp_path / "x"), "10.0.0.0/31")


@given(st.lists(st.one_of(st.just(-1), st.integers(0, 30)), max_size=60))
def test_no_address_has_two_owners(tmp_path_factory: pytest.TempPathFactory, steps: list[int]) -> None:
    pool = AddressPool(str(tmp_path_factory.mktemp("pool")), "10.0.0.0/28")
    held: list[str] = []
    for step in steps:
        if step < 0 or not held:
            try:
                address = pool.take("p")
            except AddressesExhausted:
                assert len(held) == 13
                continue
            assert address not in held
            assert ipaddress.ip_address(address) in pool.network
            assert address not in {"10.0.0.0", "10.0.0.1", "10.0.0.15"}
            held.append(address)
        else:
            pool.give_back(held.pop(step % len(held)))


async def test_a_slow_listener_is_told_what_it_lost() -> None:
    events = Events()
    slow = events.listen()
    for number in range(5000):
        events.tell("Created", "s", str(number))
    first = await anext(slow)
    assert first.type == "Overflow"
    events.close()
    rest = [event async for event in slow]
    assert [event.container_id for event in rest] == [str(number) for number in range(4096, 5000)]


def test_a_record_is_replaced_whole(tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    write_file(path, ContainerRecord(id="a", state="Running", pid=3))
    write_file(path, ContainerRecord(id="a", state="Exited", exit_code=2))
    assert read_file(path, ContainerRecord).exit_code == 2
    assert process_start(1) >= 0
    assert process_start(2**22 + 1) == 0
    Path(path).write_text("{")
    with pytest.raises(ValueError, match="truncated"):
        read_file(path, ContainerRecord)
