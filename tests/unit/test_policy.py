"""A wish for less power comes to exactly one limit, or is refused; nothing is bent into range."""

from __future__ import annotations

import pytest

from workers.contract import Power
from workers.errors import CapError, InputError
from workers.powercap.policy import check_limit, effective_limit_mw, wanted_limit_mw


@pytest.mark.parametrize("limit_mw", [99_999, 300_001, 0])
def test_a_limit_outside_the_range_is_refused_with_the_range_and_the_remedy(limit_mw: int) -> None:
    with pytest.raises(CapError) as raised:
        check_limit(limit_mw, min_mw=100_000, max_mw=300_000, device="GPU-1")
    assert str(raised.value) == (
        f"GPU-1 cannot be limited to {limit_mw / 1000:g} W: it takes 100 to 300 W. "
        "Set power.cap_watts or power.cap_percent within that range."
    )


def test_two_wishes_in_one_job_are_refused() -> None:
    with pytest.raises(InputError, match="both given"):
        wanted_limit_mw(Power(cap_watts=100.0, cap_percent=50.0), default_mw=300_000)


@pytest.mark.parametrize("limit_mw", [100_000, 300_000])
def test_the_ends_of_the_range_are_in_it(limit_mw: int) -> None:
    assert check_limit(limit_mw, min_mw=100_000, max_mw=300_000, device="GPU-1") == limit_mw


def test_no_wish_is_no_limit() -> None:
    assert wanted_limit_mw(Power(), default_mw=300_000) is None


def test_watts_are_taken_to_the_milliwatt() -> None:
    assert wanted_limit_mw(Power(cap_watts=250.0004), default_mw=300_000) == 250_000
    assert wanted_limit_mw(Power(cap_watts=250.0006), default_mw=300_000) == 250_001


def test_percent_is_of_the_default_limit() -> None:
    assert wanted_limit_mw(Power(cap_percent=50.0), default_mw=325_000) == 162_500
    assert wanted_limit_mw(Power(cap_percent=100.0), default_mw=325_000) == 325_000


def test_the_lowest_wish_is_set_and_without_any_the_limit_from_before() -> None:
    assert effective_limit_mw([300_000, 200_000, 250_000], original_mw=100_000) == 200_000
    assert effective_limit_mw([], original_mw=275_000) == 275_000
