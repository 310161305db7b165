"""Recordings played back: what is not recorded is not shown, and the joules are the recording's."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.agent import open_meter
from workers.contract import Device, EnergyEntry, Lease, Method, Phase, Power, Quality
from workers.errors import CapError, InputError, MeterError
from workers.home import Home
from workers.telemetry.energy_log import EnergyLog
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.recording import read_recording
from workers.telemetry.replay import ReplayMeter
from workers.telemetry.track import Track
from workers.units import NS_PER_S

RECORDED_NS = 1_678_285_800 * NS_PER_S
"""2023-03-08 14:30:00 UTC."""
NOW_NS = 1_800_000_000 * NS_PER_S
UNEVEN = [(0.0, 100), (1.0, 100), (2.0, 300), (12.0, 300), (13.0, 100)]
"""Seconds and W of a log whose looks are not evenly spaced: 100 + 200 + 3000 + 200 J."""


class Clock:
    """Stands still until told the seconds since ``NOW_NS``."""

    def __init__(self) -> None:
        self.now_ns = NOW_NS

    def __call__(self) -> int:
        return self.now_ns

    def at_s(self, seconds: float) -> None:
        self.now_ns = NOW_NS + round(seconds * NS_PER_S)


def write_log(path: Path, points: list[tuple[float, int | str]], *, columns: str = "name", name: str = "T4") -> Path:
    """A log of one board: seconds and W."""
    rows = [f"2023/03/08 14:30:{second:06.3f}, {name}, {watts} W" for second, watts in points]
    path.write_text("\n".join([f"timestamp, {columns}, power.draw [W]", *rows, ""]))
    return path


def play(path: Path, clock: Clock) -> tuple[ReplayMeter, Device]:
    meter = ReplayMeter.open([path], clock_ns=clock)
    (device,) = meter.devices()
    meter.read(device.uuid)
    return meter, device


def entry(start_s: float, end_s: float, energy_mj: int, **changes: object) -> EnergyEntry:
    fields = {
        "start_ns": RECORDED_NS + round(start_s * NS_PER_S),
        "end_ns": RECORDED_NS + round(end_s * NS_PER_S),
        "device": "GPU-a",
        "model": "H100",
        "kind": "gpu",
        "energy_mj": energy_mj,
        "job_id": None,
        "attempt": None,
        "phase": None,
        "share": 1.0,
        "method": Method.COUNTER,
    }
    return EnergyEntry(**{**fields, **changes})


def write_entries(home: Path, *entries: EnergyEntry) -> Path:
    EnergyLog(Home(home).energy("node-1"), boot="boot").write(entries)
    return home


def test_a_recording_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv cannot be read: No such file or directory\. Name a CSV file"):
        read_recording(tmp_path / "none.csv")


def test_a_folder_without_an_energy_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no energy log that spans any time\. Name a ledger's home"):
        read_recording(tmp_path)


def test_a_single_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"only one sample of power, which spans no time"):
        read_recording(write_log(tmp_path / "log.csv", [(0.0, 100)]))


def test_one_device_in_two_recordings_is_refused(tmp_path: Path) -> None:
    first = write_log(tmp_path / "a.csv", [(0.0, 1), (1.0, 1)], columns="uuid", name="GPU-a")
    second = write_log(tmp_path / "b.csv", [(0.0, 1), (1.0, 1)], columns="uuid", name="GPU-a")
    with pytest.raises(InputError, match=r"GPU-a is in .*a\.csv and in .*b\.csv: its joules would count twice"):
        ReplayMeter.open([first, second], clock_ns=Clock())


def test_nothing_to_play_and_a_speed_of_nothing_are_refused(tmp_path: Path) -> None:
    recording = read_recording(write_log(tmp_path / "log.csv", [(0.0, 1), (1.0, 1)]))
    for recordings, speed in (([], 1.0), ([recording], 0.0), ([recording], -1.0)):
        with pytest.raises(InputError, match="cannot be played"):
            ReplayMeter(recordings, clock_ns=Clock(), speed=speed)


@pytest.mark.parametrize("wish", ["replay", "replay:", "recording:log.csv"])
def test_a_wish_that_names_no_recording_is_refused(wish: str) -> None:
    with pytest.raises(InputError, match="Known: auto, nvml, simulated:"):
        open_meter(wish, node="n")


def test_the_agent_plays_the_recordings_it_is_told(tmp_path: Path) -> None:
    first = write_log(tmp_path / "a.csv", [(0.0, 1), (1.0, 1)], name="NVIDIA A100-SXM4-80GB")
    second = write_log(tmp_path / "b.csv", [(0.0, 1), (1.0, 1)], name="Tesla T4")
    devices = open_meter(f"replay:{first},{second}", node="n").devices()
    assert [(d.index, d.model, d.method) for d in devices] == [
        (0, "A100-80GB", Method.REPLAYED),
        (1, "T4", Method.REPLAYED),
    ]


def test_the_agent_says_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_log(tmp_path / "a.csv", [(0.0, 1), (1.0, "[N/A]"), (2.0, 1)])
    open_meter(f"replay:{path}", node="n")
    assert capsys.readouterr().err == f"left out of {path}: line 3: '[N/A] W' is not a power\n"


def test_a_device_cannot_be_capped_and_is_as_fast_as_this_host(tmp_path: Path) -> None:
    meter, device = play(write_log(tmp_path / "log.csv", [(0.0, 1), (1.0, 1)]), Clock())
    for cap in (lambda: meter.limit_range(device.uuid), lambda: meter.set_limit(device.uuid, 100_000)):
        with pytest.raises(CapError, match=r"is played back from .*log\.csv and takes no power limit"):
            cap()
    assert meter.speed(device.uuid) == 1.0


def test_an_unknown_device_is_an_error_of_the_meter(tmp_path: Path) -> None:
    meter, device = play(write_log(tmp_path / "log.csv", [(0.0, 1), (1.0, 1)]), Clock())
    for ask in (meter.read, meter.speed):
        with pytest.raises(MeterError, match=f"GPU-x is not a device of this node: {device.uuid}"):
            ask("GPU-x")


def test_energy_is_the_trapezoid_over_time_and_never_a_sum_of_samples_times_a_duration(tmp_path: Path) -> None:
    (device,) = read_recording(write_log(tmp_path / "log.csv", UNEVEN)).devices
    assert device.track is not None
    assert device.track.energy_mj == 3_500_000
    watts = [power for _, power in UNEVEN]
    assert sum(watts) * UNEVEN[-1][0] == 11_700.0
    assert sum(watts) / len(watts) * UNEVEN[-1][0] == 2_340.0


def test_a_reading_lies_on_the_line_between_samples(tmp_path: Path) -> None:
    clock = Clock()
    meter, device = play(write_log(tmp_path / "log.csv", UNEVEN), clock)
    shown = []
    for second in (0.0, 0.5, 1.0, 1.5, 2.0):
        clock.at_s(second)
        reading = meter.read(device.uuid)
        shown.append((reading.time_ns - NOW_NS, reading.energy_mj, reading.power_mw))
    assert shown == [
        (0, 0, 100_000),
        (500_000_000, 50_000, 100_000),
        (1_000_000_000, 100_000, 100_000),
        (1_500_000_000, 175_000, 200_000),
        (2_000_000_000, 300_000, 300_000),
    ]


def test_playing_begins_at_the_first_look(tmp_path: Path) -> None:
    clock = Clock()
    meter = ReplayMeter.open([write_log(tmp_path / "log.csv", UNEVEN)], clock_ns=clock)
    clock.at_s(100)
    assert meter.read(meter.devices()[0].uuid).energy_mj == 0


def test_limit_and_utilisation_are_those_of_the_last_sample(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "timestamp, power.draw [W], power.limit [W], utilization.gpu [%]\n"
        "2023/03/08 14:30:00, 100.00 W, 300.00 W, 10 %\n"
        "2023/03/08 14:30:01, 100.00 W, [N/A], 20 %\n"
        "2023/03/08 14:30:02, 100.00 W, 250.00 W, [N/A]\n"
    )
    clock = Clock()
    meter, device = play(path, clock)
    shown = []
    for second in (0.9, 1.9, 2.0):
        clock.at_s(second)
        reading = meter.read(device.uuid)
        shown.append((reading.limit_mw, reading.utilization))
    assert shown == [(300_000, 0.1), (None, 0.2), (250_000, None)]


def test_after_its_end_a_recording_shows_its_end_once_and_then_nothing(tmp_path: Path) -> None:
    clock = Clock()
    meter, device = play(write_log(tmp_path / "log.csv", UNEVEN), clock)
    clock.at_s(60)
    last = meter.read(device.uuid)
    assert (last.time_ns, last.energy_mj, last.power_mw) == (NOW_NS + 13 * NS_PER_S, 3_500_000, 100_000)
    with pytest.raises(MeterError, match=r"log\.csv tells nothing of .* at 60 s of its 13 s"):
        meter.read(device.uuid)


def test_in_a_hole_of_the_log_the_device_cannot_be_read(tmp_path: Path) -> None:
    clock = Clock()
    points = [(float(second), 100) for second in (0, 1, 2, 3, 20, 21, 22, 23)]
    meter, device = play(write_log(tmp_path / "log.csv", points), clock)
    clock.at_s(3)
    assert meter.read(device.uuid).energy_mj == 300_000
    clock.at_s(10)
    with pytest.raises(MeterError, match="tells nothing of"):
        meter.read(device.uuid)
    clock.at_s(20)
    assert meter.read(device.uuid).energy_mj == 2_000_000


def test_a_log_of_one_sample_a_minute_has_no_holes(tmp_path: Path) -> None:
    rows = [f"2023/03/08 14:{minute}:00, 60.00 W" for minute in range(10, 20)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(["timestamp, power.draw [W]", *rows, ""]))
    clock = Clock()
    meter, device = play(path, clock)
    clock.at_s(30)
    assert meter.read(device.uuid).energy_mj == 1_800_000


def test_devices_recorded_together_keep_their_distance_in_time(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"2023/03/08 14:30:{second:02d}, 0, 10.00 W" for second in range(8)]
    rows += [f"2023/03/08 14:30:{second:02d}, 1, 20.00 W" for second in range(2, 5)]
    path.write_text("\n".join(["timestamp, index, power.draw [W]", *rows, ""]))
    clock = Clock()
    meter = ReplayMeter.open([path], clock_ns=clock)
    early, late = (device.uuid for device in meter.devices())
    meter.read(early)
    with pytest.raises(MeterError, match="at 0 s of its 7 s"):
        meter.read(late)
    clock.at_s(3)
    assert (meter.read(early).energy_mj, meter.read(late).energy_mj) == (30_000, 20_000)


def test_a_device_that_never_told_its_power_is_there_and_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"2023/03/08 14:30:{s:02d}, {i}, {power}" for s in range(3) for i, power in ((0, "9.00 W"), (1, "[N/A]"))]
    path.write_text("\n".join(["timestamp, index, power.draw [W]", *rows, ""]))
    meter = ReplayMeter.open([path], clock_ns=Clock())
    with pytest.raises(MeterError, match="never told its power"):
        meter.read(meter.devices()[1].uuid)
    assert meter.read(meter.devices()[0].uuid).power_mw == 9_000


def test_played_faster_the_joules_stay_and_the_watts_grow(tmp_path: Path) -> None:
    clock = Clock()
    meter = ReplayMeter(
        [read_recording(write_log(tmp_path / "log.csv", [(0.0, 100), (10.0, 100)]))], clock_ns=clock, speed=4
    )
    (device,) = meter.devices()
    meter.read(device.uuid)
    clock.at_s(1.25)
    half = meter.read(device.uuid)
    assert (half.energy_mj, half.power_mw) == (500_000, 400_000)
    clock.at_s(9)
    last = meter.read(device.uuid)
    assert (last.energy_mj, last.time_ns) == (1_000_000, NOW_NS + 2_500_000_000)


def test_a_recorded_uuid_is_kept_and_a_made_one_is_the_same_every_time(tmp_path: Path) -> None:
    known = write_log(tmp_path / "a.csv", [(0.0, 1), (1.0, 1)], columns="uuid", name="GPU-a")
    unknown = write_log(tmp_path / "b.csv", [(0.0, 1), (1.0, 1)])
    uuids = [[d.uuid for d in ReplayMeter.open([known, unknown], clock_ns=Clock()).devices()] for _ in range(2)]
    assert uuids[0] == uuids[1]
    assert uuids[0][0] == "GPU-a"
    assert uuids[0][1].startswith("GPU-replay-")


def test_an_energy_log_plays_back_what_was_booked_whoever_it_was_booked_to(tmp_path: Path) -> None:
    shared = frozenset({Quality.SHARED})
    home = write_entries(
        tmp_path / "ledger",
        entry(0, 4, 1_000_001),
        entry(4, 10, 600_000, job_id="a", attempt=1, phase=Phase.TRAIN, share=0.5, quality=shared),
        entry(4, 10, 600_000, job_id="b", attempt=1, phase=Phase.TRAIN, share=0.5, quality=shared),
    )
    clock = Clock()
    meter, device = play(home, clock)
    assert (device.uuid, device.model, device.method) == ("GPU-a", "H100", Method.REPLAYED)
    shown = []
    for second in (2, 4, 7, 10):
        clock.at_s(second)
        reading = meter.read(device.uuid)
        shown.append((reading.energy_mj, reading.power_mw))
    assert shown == [(500_000, 250_000), (1_000_001, 200_000), (1_600_001, 200_000), (2_200_001, 200_000)]


@pytest.mark.parametrize("below", ["", "energy", "energy/node=node-1", "energy/node=node-1/date=2023-03-08"])
def test_an_energy_log_is_found_by_any_of_its_folders(tmp_path: Path, below: str) -> None:
    home = write_entries(tmp_path / "ledger", entry(0, 4, 1_000))
    (device,) = read_recording(home / below).devices
    assert device.track is not None
    assert device.track.energy_mj == 1_000


def test_what_was_simulated_is_simulated_when_it_is_played_back(tmp_path: Path) -> None:
    home = write_entries(tmp_path, entry(0, 4, 1_000), entry(4, 8, 1_000, method=Method.SIMULATED))
    (device,) = read_recording(home).devices
    assert device.method is Method.SIMULATED


def test_time_of_which_an_energy_log_says_nothing_is_a_hole(tmp_path: Path) -> None:
    clock = Clock()
    meter, device = play(write_entries(tmp_path, entry(0, 2, 2_000), entry(10, 12, 2_000)), clock)
    clock.at_s(5)
    with pytest.raises(MeterError, match="tells nothing of"):
        meter.read(device.uuid)
    clock.at_s(11)
    assert meter.read(device.uuid).energy_mj == 3_000


def test_a_torn_file_of_an_energy_log_is_told(tmp_path: Path) -> None:
    home = write_entries(tmp_path, entry(0, 2, 2_000))
    torn = Home(home).energy("node-1") / "date=2023-03-08" / "torn.parquet"
    torn.write_bytes(b"PAR1")
    assert read_recording(home).skipped == (f"{torn} is torn",)


@pytest.mark.parametrize("make", [lambda: Track.from_power([(0, 1)]), lambda: Track.from_entries([entry(1, 1, 5)])])
def test_what_spans_no_time_is_no_track(make: Callable[[], Track]) -> None:
    with pytest.raises(ValueError, match="span no time"):
        make()


def test_an_entry_of_an_instant_goes_to_the_time_before_it() -> None:
    track = Track.from_entries([entry(0, 2, 1_000), entry(2, 2, 7), entry(2, 4, 1_000), entry(0, 0, 3)])
    assert track.energy_mj == 2_010
    moments = [track.at(RECORDED_NS + second * NS_PER_S) for second in (0, 2, 4)]
    assert [moment.energy_mj if moment else None for moment in moments] == [0, 1_010, 2_010]


def test_a_node_that_plays_a_log_books_its_joules_to_leases_and_idle_exactly(tmp_path: Path) -> None:
    points: list[tuple[float, int | str]] = [(float(s), w) for s, w in zip(range(30), itertools.cycle((80, 310, 295)))]
    path = write_log(tmp_path / "log.csv", [*points[:10], *points[20:]])
    clock = Clock()
    node = NodeMeter(ReplayMeter.open([path], clock_ns=clock), node="n", clock_ns=clock)
    for second in range(1, 32):
        clock.at_s(second)
        node.tick()
        if second == 4:
            lease = node.open(LeaseRequest(job_id="j", attempt=1, devices=("0",), pid=1, cpus=1.0, phase=Phase.TRAIN))
        if second == 24:
            node.close(lease.lease_id)
    entries = node.take_entries()
    (device,) = read_recording(path).devices
    assert device.track is not None
    assert sum(each.energy_mj for each in entries) == device.track.energy_mj
    assert {each.method for each in entries} == {Method.REPLAYED}
    in_hole = [each for each in entries if Quality.GAP in each.quality]
    assert [(each.start_ns - NOW_NS, each.end_ns - NOW_NS) for each in in_hole] == [(9 * NS_PER_S, 20 * NS_PER_S)]


def test_a_lease_with_a_cap_is_refused_on_a_replayed_device(tmp_path: Path) -> None:
    clock = Clock()
    meter = ReplayMeter.open([write_log(tmp_path / "log.csv", UNEVEN)], clock_ns=clock)
    node = NodeMeter(meter, node="n", clock_ns=clock)
    wish = LeaseRequest(job_id="j", attempt=1, devices=("0",), pid=1, cpus=1.0, power=Power(cap_watts=100))
    with pytest.raises(CapError, match="takes no power limit"):
        node.open(wish)
    assert node.snapshot().leases == ()


def test_attaching_and_closing_leave_a_recording_as_it_is(tmp_path: Path) -> None:
    clock = Clock()
    meter, device = play(write_log(tmp_path / "log.csv", UNEVEN), clock)
    lease = Lease(lease_id="l", job_id="j", attempt=1, devices=(device.uuid,), pid=1, cpus=1.0, opened_ns=0)
    meter.attach(lease)
    meter.detach(lease)
    assert meter.read(device.uuid).energy_mj == 0
    meter.close()
