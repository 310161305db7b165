"""What a board draws when nobody holds it, from its sensor and its counter."""

from __future__ import annotations

from workers.telemetry.idle import IdlePower

MS = 1_000_000


def spell(idle: IdlePower, *, seconds: float, sensed_mw: int, counted_mw: int, from_ms: int = 0) -> None:
    """The board is looked at ten times a second; its sensor shows one figure and its counter grows by another."""
    for number in range(int(seconds * 10) + 1):
        now_ns = (from_ms + number * 100) * MS
        idle.sensed(now_ns, sensed_mw)
        idle.booked(now_ns, counted_mw * number // 10)


def test_nothing_is_known_while_the_sensor_looks_back_on_what_was_before() -> None:
    idle = IdlePower(looks_back_ns=1200 * MS)
    spell(idle, seconds=1.1, sensed_mw=70_000, counted_mw=70_000)
    assert idle.known_mw is None
    idle.sensed(1200 * MS, 70_000)
    assert idle.known_mw == 70_000


def test_a_sensor_near_what_the_counter_says_is_believed() -> None:
    idle = IdlePower(looks_back_ns=0)
    spell(idle, seconds=3, sensed_mw=75_000, counted_mw=70_000)
    assert idle.known_mw == 75_000


def test_a_sensor_that_misses_what_the_counter_counts_is_not() -> None:
    idle = IdlePower(looks_back_ns=0)
    spell(idle, seconds=3, sensed_mw=100_000, counted_mw=350_000)
    assert idle.known_mw == 350_000


def test_the_counter_is_asked_over_the_last_second_alone() -> None:
    idle = IdlePower(looks_back_ns=0)
    spell(idle, seconds=60, sensed_mw=70_000, counted_mw=70_000)
    total_mj = 70_000 * 60
    for number in range(1, 21):
        now_ns = (60_000 + number * 100) * MS
        idle.sensed(now_ns, 500_000)
        idle.booked(now_ns, total_mj + 500_000 * number // 10)
    assert idle.known_mw == 500_000


def test_what_was_learned_is_kept_while_somebody_holds_the_board_and_the_counter_is_asked_anew_after() -> None:
    idle = IdlePower(looks_back_ns=200 * MS)
    spell(idle, seconds=3, sensed_mw=70_000, counted_mw=70_000)
    idle.begin(3000 * MS)
    idle.sensed(3100 * MS, 650_000)
    assert idle.known_mw == 70_000
    idle.booked(3100 * MS, 10**6)
    idle.sensed(3300 * MS, 80_000)
    assert idle.known_mw == 80_000
