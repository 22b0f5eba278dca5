from __future__ import annotations

import base64
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.ids import NAME_ALPHABET, Ids, SeededIds, SystemIds


@pytest.mark.parametrize("ids", [SystemIds(), SeededIds(7)])
def test_shapes(ids: Ids) -> None:
    parsed = uuid.UUID(ids.uuid())
    assert parsed.version == 4
    assert parsed.variant == uuid.RFC_4122
    assert 0 < ids.int63() < 1 << 63
    assert len(base64.urlsafe_b64decode(ids.token(20) + "==")) == 20
    assert len(ids.name_suffix()) == 5
    assert set(ids.name_suffix(200)) <= set(NAME_ALPHABET)
    assert len({ids.uuid() for _ in range(1000)}) == 1000


@given(st.integers(), st.integers(0, 64))
def test_a_seed_replays(seed: int, size: int) -> None:
    def draw(ids: SeededIds) -> list[object]:
        return [ids.uuid(), ids.token(size), ids.int63(), ids.name_suffix(size)]

    assert draw(SeededIds(seed)) == draw(SeededIds(seed))


def test_seeds_differ() -> None:
    assert SeededIds(1).uuid() != SeededIds(2).uuid()


def test_generated_names_have_no_vowels_and_no_look_alikes() -> None:
    assert not set(NAME_ALPHABET) & set("aeiou013")
    assert len(set(NAME_ALPHABET)) == 27
