"""Which meter a host gets: counters before the model, the model before nothing, and always why not more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_host import FakeHost, forbid
from workers.contract import Method
from workers.errors import InputError, UnmeteredError
from workers.telemetry.host import HostMeters, open_host_meters

UNKNOWN = "AMD EPYC"
OR_GIVE_DRAM_WATTS = "Or give accounting.dram_watts in the manifest, and its energy is modelled from that."


def opened(host: FakeHost, wish: str = "auto") -> HostMeters:
    return open_host_meters(wish, node="n1", powercap=host.powercap, proc=host.proc)


def methods(meters: HostMeters) -> dict[str, Method]:
    return {device.kind: device.method for meter in meters.meters for device in meter.devices()}


@pytest.fixture
def counted(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path / "counted")
    host.zone("intel-rapl:0", "package-0")
    host.zone("intel-rapl:0:0", "dram")
    return host


def test_no_such_wish_is_refused(counted: FakeHost) -> None:
    with pytest.raises(InputError, match=r"unknown way to meter the CPU 'nvml'\. Known: auto, rapl, modelled, none"):
        opened(counted, "nvml")


def test_rapl_that_cannot_be_had_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnmeteredError, match="There is no RAPL zone"):
        opened(FakeHost(tmp_path / "bare"), "rapl")


def test_a_model_that_cannot_be_had_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UnmeteredError, match="The CPU 'AMD EPYC' is not in the table"):
        opened(FakeHost(tmp_path / "unknown", model=UNKNOWN), "modelled")


def test_a_host_of_which_nothing_is_known_has_no_meter_and_both_reasons(tmp_path: Path) -> None:
    host = FakeHost(tmp_path / "unknown", model=UNKNOWN)
    meters = opened(host)
    assert (meters.meters, meters.usage) == ((), None)
    assert meters.reasons == {
        "cpu": f"there is no RAPL zone in {host.powercap}, and the CPU 'AMD EPYC' is not in the table of rated powers",
        "dram": f"there is no RAPL zone in {host.powercap}",
    }
    assert meters.missing["dram"].remedy.endswith(OR_GIVE_DRAM_WATTS)
    assert meters.missing["cpu"].remedy.endswith(
        "Or give accounting.cpu_watts in the manifest, and its energy is modelled from that."
    )


def test_without_a_procfs_nothing_is_metered_and_nothing_fails(tmp_path: Path) -> None:
    meters = open_host_meters("auto", node="n1", powercap=tmp_path, proc=tmp_path)
    assert meters.meters == ()
    assert "cpuinfo cannot be read" in meters.reasons["cpu"]


def test_counters_that_may_not_be_read_make_way_for_the_model_which_says_how_to_open_them(
    counted: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, "energy_uj")
    meters = opened(counted)
    assert methods(meters) == {"cpu": Method.MODELLED}
    assert meters.fallback is not None
    assert "sudo chmod a+r" in meters.fallback.remedy
    assert meters.reasons == {"dram": "DRAM is not modelled: a constant per GB would be no measurement"}
    assert meters.missing["dram"].remedy == f"{meters.fallback.remedy} {OR_GIVE_DRAM_WATTS}"


def test_counters_come_first_even_where_the_cpu_is_known(counted: FakeHost) -> None:
    for wish in ("auto", "rapl"):
        meters = opened(counted, wish)
        assert methods(meters) == {"cpu": Method.COUNTER, "dram": Method.COUNTER}
        assert (meters.reasons, meters.fallback) == ({}, None)
        assert meters.usage is not None


def test_a_cpu_without_a_counter_of_its_dram_says_so(tmp_path: Path) -> None:
    host = FakeHost(tmp_path / "client", model=UNKNOWN)
    host.zone("intel-rapl:0", "package-0")
    meters = opened(host)
    assert methods(meters) == {"cpu": Method.COUNTER}
    assert meters.reasons == {"dram": "the CPU has no RAPL counter of its DRAM"}
    assert "give accounting.dram_watts in the manifest" in meters.missing["dram"].remedy


def test_the_model_is_taken_where_it_was_asked_for(counted: FakeHost) -> None:
    meters = opened(counted, "modelled")
    assert methods(meters) == {"cpu": Method.MODELLED}
    assert meters.fallback is None


def test_none_is_none_and_says_who_wished_it(counted: FakeHost) -> None:
    meters = opened(counted, "none")
    assert (meters.meters, meters.usage) == ((), None)
    assert meters.reasons == dict.fromkeys(("cpu", "dram"), "the node's agent runs with --cpu none")
