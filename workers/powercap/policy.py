"""Which limit a wish for less power comes to on a given board. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from workers.contract import Power
from workers.errors import CapError, InputError
from workers.units import MW_PER_W


def wanted_limit_mw(power: Power, *, default_mw: int) -> int | None:
    """The limit a job asks for on a board whose limit is ``default_mw`` when nobody asks, mW; ``None``: no wish.

    Raises:
        InputError: it asks twice.
    """
    if power.cap_watts is not None and power.cap_percent is not None:
        raise InputError("power.cap_watts and power.cap_percent are both given. Give one.")
    if power.cap_watts is not None:
        return round(power.cap_watts * MW_PER_W)
    if power.cap_percent is not None:
        return round(default_mw * power.cap_percent / 100)
    return None


def check_limit(limit_mw: int, *, min_mw: int, max_mw: int, device: str) -> int:
    """``limit_mw`` when the board takes it.

    Raises:
        CapError: it is outside the board's range; a limit is never moved into range silently, since the figures of
            a job that ran at another limit than its manifest says would be about another experiment.
    """
    if min_mw <= limit_mw <= max_mw:
        return limit_mw
    raise CapError(
        f"{device} cannot be limited to {limit_mw / MW_PER_W:g} W: it takes {min_mw / MW_PER_W:g} to "
        f"{max_mw / MW_PER_W:g} W. Set power.cap_watts or power.cap_percent within that range."
    )


def effective_limit_mw(wishes: Sequence[int], *, original_mw: int) -> int:
    """The limit to set while ``wishes`` hold: the lowest; with none, what it *was* before the first."""
    return min(wishes, default=original_mw)
