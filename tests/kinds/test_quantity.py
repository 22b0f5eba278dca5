from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import quantity
from pilothouse.kinds.quantity import ZERO, Quantity, QuantityError
from support.goldenvalues import cases

INT64 = 2**63
SUFFIXES = [
    "",
    "n",
    "u",
    "m",
    "k",
    "M",
    "G",
    "T",
    "P",
    "E",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "Pi",
    "Ei",
    "e3",
    "E-3",
    "e+6",
    "e-7",
]

texts = st.builds(
    lambda sign, whole, part, suffix: f"{sign}{whole}{part}{suffix}",
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 10**21).map(str),
    st.one_of(st.just(""), st.integers(0, 10**12).map(".{}".format)),
    st.sampled_from(SUFFIXES),
)
quantities = texts.map(quantity.parse)


@pytest.mark.parametrize(("text", "gave"), cases("quantity"))
def test_it_is_read_and_written_as_kubernetes_does(text: str, gave: dict[str, Any]) -> None:
    if "error" in gave:
        with pytest.raises(QuantityError) as caught:
            quantity.parse(text)
        assert str(caught.value) == gave["error"]
        return
    read = quantity.parse(text)
    assert read.format == gave["format"]
    if read.format != "DecimalSI" or abs(read.exact()) < 10**21:
        assert str(read) == gave["string"]
    # what Go says of long and of binary negative numbers is wrong: -82.6255911995 would be -81
    if not text.startswith("-") or (len(text) < 8 and not text.endswith("i")):
        for ours, theirs in ((read.value(), int(gave["value"])), (read.milli_value(), int(gave["milli"]))):
            # beyond 64 bits Go's numbers wrap around or are 0
            assert ours == theirs or abs(ours) >= INT64 - 1


@pytest.mark.parametrize(("pair", "gave"), cases("add"))
def test_arithmetic_is_that_of_kubernetes(pair: str, gave: dict[str, Any]) -> None:
    left, right = map(quantity.parse, json.loads(pair))
    assert (str(left + right), str(left - right), left.compare(right)) == (gave["add"], gave["sub"], gave["cmp"])


@given(quantities)
def test_the_canonical_text_gives_the_same_number_and_stays(read: Quantity) -> None:
    rewritten = str(Quantity(read.mantissa, read.scale, read.format))
    again = quantity.parse(rewritten)
    assert again == read
    assert str(Quantity(again.mantissa, again.scale, again.format)) == rewritten


@given(quantities, quantities)
def test_numbers_behave_as_fractions(left: Quantity, right: Quantity) -> None:
    a, b = left.exact(), right.exact()
    assert (left + right).exact() == a + b
    assert (left - right).exact() == a - b
    assert (left * 3).exact() == a * 3
    assert (left == right, left < right, left > right) == (a == b, a < b, a > b)
    assert (hash(left) == hash(right)) or a != b
    assert left + right == right + left
    assert left - left == ZERO


@given(quantities)
def test_whole_numbers_round_away_from_zero_within_64_bits(read: Quantity) -> None:
    exact = read.exact()
    for value, unit in ((read.value(), Fraction(1)), (read.milli_value(), Fraction(1, 1000))):
        if abs(value) < INT64 - 1:
            assert 0 <= abs(value) * unit - abs(exact) < unit
            assert value * exact >= 0


def test_equal_numbers_are_equal_whatever_their_notation() -> None:
    assert len({quantity.parse(text) for text in ("1Ki", "1024", "1024000m", "1.024e3")}) == 1


def test_huge_exponents_cost_little() -> None:
    huge, larger = quantity.parse("1e1000000000"), quantity.parse("-3e2000000000")
    assert larger < ZERO < huge
    assert quantity.parse("1e-2000000000") == quantity.parse("1n")
    assert (huge.value(), larger.milli_value()) == (INT64 - 1, -INT64)
    assert str(huge) == "10e999999999"
    with pytest.raises(OverflowError, match="quantity too large"):
        huge + quantity.parse("1")


def test_a_text_without_a_notation_for_its_size_keeps_its_number() -> None:
    assert str(quantity.parse("1000E")) == "1000E"
    assert quantity.parse("1000E") == quantity.parse("1e21")


@pytest.mark.parametrize(
    ("value", "text"), [("  1Gi ", "1Gi"), (2, "2"), (0.5, "500m"), (None, "0"), ("1000m", "1"), (1500, "1500")]
)
def test_json_values_are_read(value: Any, text: str) -> None:
    assert str(quantity.parse_json(value)) == text


@pytest.mark.parametrize("value", [True, [], {}, "1x", "1" * 5000])
def test_other_json_values_are_refused(value: Any) -> None:
    with pytest.raises(QuantityError, match="quantities must match the regular expression"):
        quantity.parse_json(value)


def test_what_the_server_stores_is_canonical() -> None:
    assert [quantity.canonical(text) for text in ("0.1", "1024Mi", " 1000m", "1.50Gi")] == [
        "100m",
        "1Gi",
        "1",
        "1536Mi",
    ]
    assert not ZERO
    assert repr(quantity.parse("1k")) == "Quantity('1k')"


def test_long_texts_are_not_remembered() -> None:
    assert quantity.parse("0" * 60 + "7") is quantity.parse("0" * 60 + "7")
    assert quantity.parse("0" * 600 + "7") is not quantity.parse("0" * 600 + "7")
