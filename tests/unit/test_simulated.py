"""Simulated boards obey one known physics, and say so."""

from __future__ import annotations

import re
from itertools import pairwise

import psutil
import pytest

from tests.metering import START_NS, Clock, Processes, lease, simulated
from workers.contract import Method
from workers.errors import CapError, MeterError, UnknownNameError
from workers.telemetry.profiles import CAP_SPEED_EXPONENT, PROFILES, BoardProfile, board_profile
from workers.telemetry.simulated import SimulatedBoard, process_cpu_seconds
from workers.units import MW_PER_W, NS_PER_S, PJ_PER_MJ

V100 = board_profile("V100")
"""40 W idle, 300 W full, limits from 150 W, a counter that refreshes every 20 ms."""


def test_an_unknown_accelerator_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown simulated accelerator 'V10'\..*'V100'\? Known: A100"):
        simulated(Clock(), "V10")


@pytest.mark.parametrize("watts", [149.999, 300.001, 0.0])
def test_a_limit_outside_the_range_is_refused_and_changes_nothing(watts: float) -> None:
    meter = simulated(Clock(), "V100")
    (board,) = meter.devices()
    with pytest.raises(CapError, match=rf"{board.uuid} takes 150 to 300 W, not {watts:g} W"):
        meter.set_limit(board.uuid, round(watts * MW_PER_W))
    assert meter.limit_range(board.uuid).set_mw == 300_000


def test_a_device_of_another_node_is_refused_by_name() -> None:
    meter = simulated(Clock(), "V100")
    (board,) = meter.devices()
    for call in (meter.read, meter.limit_range, meter.speed):
        with pytest.raises(MeterError, match=rf"GPU-other is not a board of this node: {board.uuid}"):
            call("GPU-other")


def test_a_process_that_is_gone_contributes_nothing() -> None:
    clock, processes = Clock(), Processes()
    meter = simulated(clock, "V100", processes=processes)
    (board,) = meter.devices()
    processes.work(7, 10.0)
    meter.attach(lease("a", [board.uuid], pid=7))
    del processes.used_s[7]
    clock.pass_ms(1000)
    reading = meter.read(board.uuid)
    assert (reading.power_mw, reading.utilization) == (40_000, 0.0)


def test_a_process_that_was_never_there_contributes_nothing() -> None:
    clock = Clock()
    meter = simulated(clock, "V100")
    (board,) = meter.devices()
    meter.attach(lease("a", [board.uuid], pid=7))
    clock.pass_ms(1000)
    assert meter.read(board.uuid).power_mw == 40_000


def test_time_that_goes_back_changes_nothing() -> None:
    board = SimulatedBoard(V100, now_ns=START_NS)
    board.advance(START_NS + NS_PER_S, 1.0)
    before = board.reading("GPU-1")
    board.advance(START_NS, 0.0)
    assert board.reading("GPU-1") == before
    assert board.true_energy_pj == 300_000 * NS_PER_S


def test_looking_twice_at_one_instant_shows_the_same() -> None:
    clock, processes = Clock(), Processes()
    meter = simulated(clock, "V100", processes=processes)
    (board,) = meter.devices()
    processes.work(7, 0.0)
    meter.attach(lease("a", [board.uuid], pid=7))
    clock.pass_ms(1000)
    processes.work(7, 1.0)
    assert meter.read(board.uuid) == meter.read(board.uuid)
    assert meter.read(board.uuid).utilization == 1.0


def test_devices_are_named_as_nvml_names_them_and_say_that_they_are_simulated() -> None:
    clock = Clock()
    first, second = simulated(clock, "H100", "T4").devices()
    assert [(d.index, d.model, d.kind, d.method) for d in (first, second)] == [
        (0, "H100", "gpu", Method.SIMULATED),
        (1, "T4", "gpu", Method.SIMULATED),
    ]
    assert re.fullmatch(r"GPU-sim-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", first.uuid)
    assert first.uuid != second.uuid
    assert simulated(clock, "H100", "T4").devices() == (first, second)


def test_an_idle_board_draws_its_idle_power() -> None:
    clock = Clock()
    meter = simulated(clock, "V100")
    (board,) = meter.devices()
    clock.pass_ms(1000)
    reading = meter.read(board.uuid)
    assert (reading.time_ns, reading.energy_mj, reading.power_mw) == (START_NS + NS_PER_S, 40_000, 40_000)
    assert (reading.limit_mw, reading.utilization) == (300_000, 0.0)


def test_a_process_that_uses_all_its_cores_at_the_boards_pace_is_full_load() -> None:
    clock, processes = Clock(), Processes()
    meter = simulated(clock, "V100", processes=processes)
    (board,) = meter.devices()
    pace = meter.speed(board.uuid)
    assert pace == V100.speed == 15.7 / 66.9
    processes.work(7, 5.0)
    meter.attach(lease("a", [board.uuid], pid=7, cpus=2.0))
    clock.pass_ms(1000)
    processes.work(7, 2.0 * pace)
    assert meter.read(board.uuid).power_mw == 300_000
    meter.detach(lease("a", [board.uuid]))
    clock.pass_ms(1000)
    processes.work(7, 2.0)
    assert meter.read(board.uuid).power_mw == 40_000


def test_half_the_processor_time_is_half_the_way_from_idle_to_full() -> None:
    clock, processes = Clock(), Processes()
    meter = simulated(clock, "H100", processes=processes)
    (board,) = meter.devices()
    processes.work(7, 0.0)
    meter.attach(lease("a", [board.uuid], pid=7))
    clock.pass_ms(1000)
    processes.work(7, 0.5)
    assert meter.read(board.uuid).power_mw == 70_000 + (700_000 - 70_000) // 2


def test_the_counter_moves_in_steps_of_its_refresh() -> None:
    board = SimulatedBoard(V100, now_ns=START_NS)
    shown = []
    for milliseconds in range(5, 65, 5):
        board.advance(START_NS + milliseconds * 1_000_000, 0.0)
        shown.append(board.reading("GPU-1").energy_mj)
    # 40 W for 20 ms are 800 mJ.
    assert shown == [0, 0, 0, 800, 800, 800, 800, 1600, 1600, 1600, 1600, 2400]


def test_a_refresh_between_two_looks_shows_the_energy_at_the_refresh() -> None:
    board = SimulatedBoard(V100, now_ns=START_NS)
    board.advance(START_NS + 15_000_000, 0.0)
    board.advance(START_NS + 50_000_000, 1.0)
    # 15 ms at 40 W, then 25 of the 35 ms at 300 W: the counter last refreshed after 40 ms.
    assert board.reading("GPU-1").energy_mj == (15 * 40 + 25 * 300)
    assert board.true_energy_pj == (15 * 40 + 35 * 300) * PJ_PER_MJ


def test_the_true_energy_is_the_exact_integral_of_the_power_shown() -> None:
    board = SimulatedBoard(V100, now_ns=START_NS)
    expected_pj, now_ns = 0, START_NS
    for step, utilization in enumerate([0.0, 1 / 3, 0.123456789, 1.0, 7.0, -1.0] * 50):
        elapsed_ns = 1_234_567 * (step % 11) + 1
        now_ns += elapsed_ns
        board.advance(now_ns, utilization)
        power_mw = board.reading("GPU-1").power_mw
        assert power_mw is not None
        assert 40_000 <= power_mw <= 300_000
        expected_pj += power_mw * elapsed_ns
    assert board.true_energy_pj == expected_pj


def test_a_cap_lowers_full_power_to_itself_and_slows_by_the_documented_law() -> None:
    clock, processes = Clock(), Processes()
    meter = simulated(clock, "V100", processes=processes)
    (board,) = meter.devices()
    meter.set_limit(board.uuid, 170_000)
    # Half of the dynamic power (300 - 40 W) is left.
    assert meter.speed(board.uuid) == V100.speed * 0.5**CAP_SPEED_EXPONENT
    processes.work(7, 0.0)
    meter.attach(lease("a", [board.uuid], pid=7))
    clock.pass_ms(1000)
    processes.work(7, V100.speed * 0.5**CAP_SPEED_EXPONENT)
    reading = meter.read(board.uuid)
    assert (reading.power_mw, reading.limit_mw) == (170_000, 170_000)


def test_a_cap_changes_nothing_that_was_drawn_before_it() -> None:
    clock, processes = Clock(), Processes()
    meter = simulated(clock, "V100", processes=processes)
    (board,) = meter.devices()
    processes.work(7, 0.0)
    meter.attach(lease("a", [board.uuid], pid=7))
    clock.pass_ms(1000)
    processes.work(7, 1.0)
    meter.set_limit(board.uuid, 150_000)
    assert meter.boards[board.uuid].true_energy_pj == 300_000 * NS_PER_S


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_every_profile_is_possible(profile: BoardProfile) -> None:
    assert 0 < profile.idle_w < profile.min_limit_w < profile.tdp_w
    assert 0 < profile.speed <= 1
    assert 20 <= profile.refresh_ms <= 100
    board = SimulatedBoard(profile, now_ns=0)
    paces = []
    for limit_w in range(profile.min_limit_w, profile.tdp_w + 1):
        board.limit_mw = limit_w * MW_PER_W
        paces.append(board.speed)
    assert all(slower < faster for slower, faster in pairwise(paces))
    assert paces[-1] == profile.speed


def test_processor_time_is_a_real_processs_own_and_none_when_it_is_gone() -> None:
    own = process_cpu_seconds(psutil.Process().pid)
    assert own is not None
    assert own > 0
    assert process_cpu_seconds(2**22 + 1) is None
