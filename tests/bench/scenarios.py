"""The courses a board takes, and what goes wrong meanwhile. Times are ms from the window's start.

The long windows are 10.04 s: a multiple of the 100 ms refresh would hide that a counter is stale at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass

IDLE_W, BUSY_W = 70, 500
IDLE = ((1, IDLE_W, IDLE_W),)
BUSY = ((1, BUSY_W, BUSY_W),)
SQUARE = ((50, 100, 100), (50, 600, 600))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One row.

    Attributes:
        has_instant: whether the driver has instantaneous power as a field, as recent ones do; zeus cannot do without.
        course: from when on the board draws which pieces (ms, W at their start, W at their end).
        faults: kind, and from when until when.
        reset_ms: when the counter starts anew.
        repeats: windows, each against another phase of the sensors' refresh.
        jobs: how many processes meter the board; each draws the same.
    """

    name: str
    length_ms: int
    course: tuple[tuple[int, tuple[tuple[int, int, int], ...]], ...]
    model: str = "H100"
    has_instant: bool = True
    faults: tuple[tuple[str, int, int], ...] = ()
    reset_ms: int | None = None
    repeats: int = 1
    jobs: int = 1


def scenarios() -> tuple[Scenario, ...]:
    """The rows, in order."""
    steady = ((-2000, BUSY),)
    return (
        Scenario(name="steady load, 10 s", length_ms=10_040, course=steady),
        # Against one phase of the wave a meter may be lucky.
        Scenario(name="10 Hz square wave, 10 s", length_ms=10_040, course=((-2000, SQUARE),), repeats=4),
        Scenario(
            name="ramp, board without a counter, 10 s",
            model="P100",
            length_ms=10_040,
            course=((-2000, ((1, 30, 30),)), (0, ((10_040, 30, 300),)), (10_040, ((1, 300, 300),))),
        ),
        Scenario(name="10 s job between idle", length_ms=10_040, course=((-2000, IDLE), (0, BUSY), (10_040, IDLE))),
        Scenario(name="200 ms job in idle", length_ms=200, course=((-2000, IDLE), (0, BUSY), (200, IDLE)), repeats=8),
        Scenario(name="counter reset in the middle of 10 s", length_ms=10_040, course=steady, reset_ms=5000),
        Scenario(
            name="readings fail in the last 3 s of 10 s",
            length_ms=10_040,
            course=((-2000, IDLE), (0, BUSY), (10_040, IDLE)),
            faults=(("failing", 7040, 10_540),),
        ),
        Scenario(
            name="half of the samples lost, 10 s",
            length_ms=10_040,
            course=steady,
            faults=(("half", -500, 10_500),),
        ),
        Scenario(name="two processes share a board, 10 s", length_ms=10_040, course=steady, jobs=2),
    )
