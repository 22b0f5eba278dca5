from __future__ import annotations

import json
from fractions import Fraction
from math import ceil, floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import intstr
from pilothouse.kinds.intstr import IntOrStringError
from support.goldenvalues import cases


@pytest.mark.parametrize(("given_", "gave"), cases("percent"))
def test_it_is_scaled_as_kubernetes_does(given_: str, gave: dict[str, Any]) -> None:
    case = json.loads(given_)
    if "error" in gave:
        with pytest.raises(IntOrStringError) as caught:
            intstr.scaled(case["V"], case["Total"], round_up=case["Up"])
        assert str(caught.value) == gave["error"]
    else:
        assert intstr.scaled(case["V"], case["Total"], round_up=case["Up"]) == gave["value"]


@given(st.integers(-200, 200), st.integers(0, 10**6))
def test_a_percentage_is_rounded_up_or_down(percent: int, total: int) -> None:
    exact = Fraction(percent * total, 100)
    assert intstr.scaled(f"{percent}%", total, round_up=True) == ceil(exact)
    assert intstr.scaled(f"{percent}%", total, round_up=False) == floor(exact)
    assert intstr.scaled(percent, total, round_up=True) == percent


@given(st.integers())
def test_numbers_of_32_bits_are_numbers(number: int) -> None:
    read = intstr.parse(str(number))
    assert intstr.text(read) == str(number)
    assert isinstance(read, int) == (-(2**31) <= number < 2**31)


def test_nothing_has_no_share() -> None:
    with pytest.raises(IntOrStringError, match="nil value for IntOrString"):
        intstr.scaled(None, 1, round_up=True)
    assert intstr.parse("http") == "http"
