from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.http.bodies import ChunkedBody, PlainBody, TooLarge
from pilothouse.apiserver.http.heads import Malformed


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=6), CUTS, st.booleans())
def test_chunks_come_out_whole_however_they_are_cut(parts: list[bytes], cuts: list[int], extras: bool) -> None:
    extension = b";a=b" if extras else b""
    coded = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    coded += b"0\r\n" + (b"Trailer: x\r\n" if extras else b"") + b"\r\n"
    body = ChunkedBody(1000)
    results = [body.feed(piece) for piece in split(coded + b"next", cuts)]
    done = [index for index, rest in enumerate(results) if rest is not None]
    assert body.whole() == b"".join(parts)
    assert done
    assert results[done[0]] == b"next"[: len(results[done[0]] or b"")]


@given(st.binary(max_size=40), CUTS)
def test_plain_bodies_come_out_whole_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    body = PlainBody(len(data) + 1)
    for piece in split(data, cuts):
        assert body.feed(piece) is None
    assert body.feed(b"!rest") == b"rest"
    assert body.whole() == data + b"!"


@pytest.mark.parametrize(
    "coded",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1_0\r\n",
        b"123456789\r\n",
        b"1\n",
        b"1\r\nab\r\n",
        b"1\r\na\n\n",
        b"1;\x00\r\n",
        b"1;a\nb\r\n",
        b"0\r\nbad trailer\r\n",
        b"0\r\n folded\r\n",
        b"1" * 300 + b"\r\n",
        b"1;" + b"a" * 9000,
        b"0\r\n" + b"A: b\r\n" * 4000,
    ],
)
def test_malformed_chunks(coded: bytes) -> None:
    with pytest.raises(Malformed):
        ChunkedBody(1000).feed(coded)


def test_too_large_is_known_before_it_came() -> None:
    body = ChunkedBody(10)
    assert body.feed(b"a\r\n0123456789\r\n") is None
    with pytest.raises(TooLarge):
        body.feed(b"1\r\n")


@given(st.binary(max_size=100), CUTS)
def test_garbage_is_read_or_refused(data: bytes, cuts: list[int]) -> None:
    body = ChunkedBody(50)
    try:
        for piece in split(b"3\r\nabc\r\n" + data, cuts):
            if body.feed(piece) is not None:
                break
    except (Malformed, TooLarge):
        pass
    assert len(body.whole()) <= 50
