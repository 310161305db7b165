"""A recording played back gives back its joules, whatever the moments at which it is looked at."""

from __future__ import annotations

import itertools
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.contract import Device, EnergyEntry, Method
from workers.errors import InputError
from workers.telemetry.booking import DeviceBook
from workers.telemetry.recording import RecordedDevice, Recording
from workers.telemetry.replay import ReplayMeter
from workers.telemetry.smi_log import parse_smi_log
from workers.telemetry.track import Track
from workers.units import NS_PER_S, PJ_PER_MJ

T0 = 1_700_000_000 * NS_PER_S
STEPS = st.lists(st.tuples(st.integers(1, 10 * NS_PER_S), st.integers(0, 700_000)), min_size=2, max_size=20)


def samples_of(steps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Time since the sample before and power, as time and power."""
    times = itertools.accumulate((gap_ns for gap_ns, _ in steps), initial=T0)
    return [(time_ns, power_mw) for time_ns, (_, power_mw) in zip(times, steps, strict=False)]


SAMPLES = STEPS.map(samples_of)
LINE = st.lists(
    st.sampled_from(
        [
            "2023/03/08 14:30:04",
            "1678285805",
            ",",
            ", ",
            ";",
            "8.27 W",
            "8,27",
            "[N/A]",
            "0",
            '"',
            "\0",
            "GPU-a",
            "-",
            "é",
        ]
    ),
    max_size=8,
).map("".join)


def entry(start_ns: int, end_ns: int, energy_mj: int) -> EnergyEntry:
    return EnergyEntry(
        start_ns=start_ns,
        end_ns=end_ns,
        device="GPU-a",
        model="H100",
        kind="gpu",
        energy_mj=energy_mj,
        job_id=None,
        attempt=None,
        phase=None,
        share=1.0,
        method=Method.COUNTER,
    )


def recording(track: Track) -> Recording:
    device = RecordedDevice(uuid="GPU-a", model="H100", kind="gpu", method=Method.REPLAYED, track=track)
    return Recording(source="log", devices=(device,), skipped=())


@given(SAMPLES)
def test_the_energy_of_sampled_power_is_the_trapezoid_to_the_millijoule(samples: list[tuple[int, int]]) -> None:
    exact_pj = sum(Fraction(b[1] + a[1], 2) * (b[0] - a[0]) for a, b in itertools.pairwise(samples))
    assert Track.from_power(samples).energy_mj == exact_pj // PJ_PER_MJ


@given(SAMPLES, st.lists(st.integers(0, 200 * NS_PER_S), max_size=20))
def test_energy_only_rises_and_power_stays_between_its_neighbours(
    samples: list[tuple[int, int]], after_ns: list[int]
) -> None:
    track = Track.from_power(samples)
    moments = [moment for at_ns in sorted(after_ns) if (moment := track.at(T0 + at_ns)) is not None]
    energies = [moment.energy_mj for moment in moments]
    assert energies == sorted(energies)
    assert all(0 <= energy <= track.energy_mj for energy in energies)
    for moment in moments:
        near = [power for _, power in samples[moment.knot : moment.knot + 2]]
        assert min(near) <= moment.power_mw <= max(near)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 10**9)), min_size=1, max_size=12))
def test_booked_energy_is_played_back_whole(spans: list[tuple[int, int, int]]) -> None:
    entries = [entry(T0 + min(a, b) * NS_PER_S, T0 + max(a, b) * NS_PER_S, energy_mj) for a, b, energy_mj in spans]
    if len({time for each in entries for time in (each.start_ns, each.end_ns)}) < 2:
        return
    track = Track.from_entries(entries)
    assert track.energy_mj == sum(each.energy_mj for each in entries)


@settings(max_examples=300)
@given(SAMPLES, st.lists(st.integers(1, 3 * NS_PER_S), max_size=30))
def test_an_agent_that_plays_a_log_books_exactly_its_energy(samples: list[tuple[int, int]], looks: list[int]) -> None:
    track = Track.from_power(samples)
    now_ns = 5 * T0
    meter = ReplayMeter([recording(track)], clock_ns=lambda: now_ns)
    book = DeviceBook(Device(uuid="GPU-a", index=0, model="H100", method=Method.REPLAYED))
    book.observe(meter.read("GPU-a"))
    for step_ns in [*looks, track.end_ns - track.start_ns + 1]:
        now_ns += step_ns
        moment = track.at(track.start_ns + now_ns - 5 * T0)
        if moment is not None or now_ns - 5 * T0 > track.end_ns - track.start_ns:
            book.observe(meter.read("GPU-a"))
            if now_ns - 5 * T0 > track.end_ns - track.start_ns:
                break
    assert book.booked_mj == track.energy_mj == sum(each.energy_mj for each in book.take())


def refusal_of(data: bytes) -> str | None:
    """Why a file is refused; ``None`` when it has at least one sample."""
    try:
        log = parse_smi_log(data, source="power.csv")
    except InputError as error:
        return str(error)
    assert any(board.samples for board in log.boards)
    return None


@given(st.lists(LINE, max_size=8), st.sampled_from(["", "\n", "\r\n"]), st.sampled_from([", ", ",", ";"]))
def test_any_lines_are_read_or_refused_in_words(lines: list[str], end: str, separator: str) -> None:
    header = separator.join(["timestamp", "uuid", "power.draw [W]"])
    refusal = refusal_of(("\n".join([header, *lines]) + end).encode())
    assert refusal is None or refusal.startswith("power.csv")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_words(data: bytes) -> None:
    refusal = refusal_of(data)
    assert refusal is None or refusal.startswith("power.csv")
