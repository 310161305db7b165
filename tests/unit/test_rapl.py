"""RAPL: what cannot be read says how it could be, and no microjoule is lost, wraps included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_host import EPYC_7742, RANGE_UJ, FakeHost, forbid
from tests.metering import MS, START_NS, Clock, energy_by_job
from workers.contract import Device, Method, Quality
from workers.errors import CapError, MeterError, UnmeteredError
from workers.telemetry.booking import DeviceBook
from workers.telemetry.rapl import PLAUSIBLE_W, RaplMeter, growth_uj, once_around_ms, permission

PACKAGE = "cpu-package-0@n1"
SECOND_NS = 1_000_000_000


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """One package with its DRAM and its cores."""
    made = FakeHost(tmp_path / "host")
    made.zone("intel-rapl:0", "package-0", energy_uj=5_000_400)
    made.zone("intel-rapl:0:0", "core", energy_uj=1)
    made.zone("intel-rapl:0:1", "dram", energy_uj=2_000_900)
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rapl(host: FakeHost, clock: Clock) -> RaplMeter:
    return RaplMeter(node="n1", root=host.powercap, proc=host.proc, clock_ns=clock, monotonic_ns=clock)


def energy_mj(meter: RaplMeter, device: str = PACKAGE) -> int:
    energy = meter.read(device).energy_mj
    assert energy is not None
    return energy


class TestUnmetered:
    def test_a_host_without_zones_says_how_to_get_them(self, tmp_path: Path, clock: Clock) -> None:
        bare = FakeHost(tmp_path / "bare")
        with pytest.raises(UnmeteredError) as error:
            rapl(bare, clock)
        assert error.value.reason == f"there is no RAPL zone in {bare.powercap}"
        assert "`sudo modprobe intel_rapl_msr`" in error.value.remedy

    def test_a_host_without_powercap_says_the_same(self, tmp_path: Path) -> None:
        with pytest.raises(UnmeteredError, match="There is no RAPL zone in"):
            RaplMeter(node="n1", root=tmp_path / "nowhere", proc=FakeHost(tmp_path / "host").proc)

    def test_counters_for_root_alone_come_with_the_command_that_opens_them(
        self, host: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forbid(monkeypatch, "energy_uj")
        with pytest.raises(UnmeteredError) as error:
            rapl(host, clock)
        assert error.value.reason == "only root may read the RAPL counters (CVE-2020-8694)"
        assert error.value.remedy == permission(host.powercap)
        assert f"`sudo chmod a+r {host.powercap}/intel-rapl:*/energy_uj`" in error.value.remedy

    def test_the_command_for_this_host_is_exact(self) -> None:
        assert permission() == (
            "Run `sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj`, and to keep it after a reboot "
            '`echo \'SUBSYSTEM=="powercap", ACTION=="add", KERNEL=="intel-rapl:*", '
            'RUN+="/bin/chmod a+r /sys%p/energy_uj"\' | sudo tee /etc/udev/rules.d/70-rapl.rules`; '
            "or run the agent as root."
        )

    def test_a_zone_without_a_number_is_no_counter(self, host: FakeHost, clock: Clock) -> None:
        (host.powercap / "intel-rapl:0" / "max_energy_range_uj").write_text("many\n")
        with pytest.raises(UnmeteredError, match=r"intel-rapl:0 cannot be read: .*many.*dmesg"):
            rapl(host, clock)

    def test_a_package_has_no_limit_that_a_job_may_set(self, host: FakeHost, clock: Clock) -> None:
        with pytest.raises(CapError, match=rf"{PACKAGE} has no power limit that a job may set\. Cap its GPUs"):
            rapl(host, clock).set_limit(PACKAGE, 100_000)


class TestZones:
    def test_packages_are_cpu_and_their_dram_is_dram_and_their_cores_are_not_counted_again(
        self, host: FakeHost, clock: Clock
    ) -> None:
        assert rapl(host, clock).devices() == (
            Device(uuid=PACKAGE, index=0, model=EPYC_7742, kind="cpu", method=Method.COUNTER, gap_ms=60_000),
            Device(
                uuid="dram-package-0@n1", index=0, model=EPYC_7742, kind="dram", method=Method.COUNTER, gap_ms=60_000
            ),
        )

    def test_two_packages_are_in_the_order_of_their_numbers_whatever_their_zones_are_called(
        self, tmp_path: Path, clock: Clock
    ) -> None:
        twin = FakeHost(tmp_path / "twin")
        twin.zone("intel-rapl:0", "package-1", energy_uj=1000)
        twin.zone("intel-rapl:0:0", "dram", energy_uj=2000)
        twin.zone("intel-rapl:1", "package-0", energy_uj=3000)
        twin.zone("intel-rapl:1:0", "dram", energy_uj=4000)
        meter = rapl(twin, clock)
        assert [(device.uuid, device.index, energy_mj(meter, device.uuid)) for device in meter.devices()] == [
            ("cpu-package-0@n1", 0, 3),
            ("cpu-package-1@n1", 1, 1),
            ("dram-package-0@n1", 0, 4),
            ("dram-package-1@n1", 1, 2),
        ]

    def test_a_package_with_several_dies_has_a_zone_for_each(self, tmp_path: Path, clock: Clock) -> None:
        wide = FakeHost(tmp_path / "wide")
        for die in range(2):
            wide.zone(f"intel-rapl:{die}", f"package-0-die-{die}")
        uuids = [device.uuid for device in rapl(wide, clock).devices()]
        assert uuids == ["cpu-package-0-die-0@n1", "cpu-package-0-die-1@n1"]

    def test_a_platform_beside_its_packages_is_left_out(self, host: FakeHost, clock: Clock) -> None:
        host.zone("intel-rapl:1", "psys")
        assert [device.kind for device in rapl(host, clock).devices()] == ["cpu", "dram"]

    def test_a_platform_alone_is_metered_under_its_own_name(self, tmp_path: Path, clock: Clock) -> None:
        laptop = FakeHost(tmp_path / "laptop")
        laptop.zone("intel-rapl:0", "psys", energy_uj=7000)
        meter = rapl(laptop, clock)
        (platform,) = meter.devices()
        assert (platform.uuid, platform.kind, energy_mj(meter, platform.uuid)) == ("cpu-psys@n1", "cpu", 7)

    def test_the_same_package_shown_through_another_interface_is_not_counted_twice(
        self, host: FakeHost, clock: Clock
    ) -> None:
        host.zone("intel-rapl-mmio:0", "package-0")
        assert len(rapl(host, clock).devices()) == 2

    def test_a_cpu_without_a_name_is_unknown(self, tmp_path: Path, clock: Clock) -> None:
        nameless = FakeHost(tmp_path / "nameless", model=None)
        nameless.zone("intel-rapl:0", "package-0")
        assert rapl(nameless, clock).devices()[0].model == "unknown"


class TestCounter:
    def test_it_begins_at_what_the_hardware_shows(self, host: FakeHost, clock: Clock) -> None:
        assert energy_mj(rapl(host, clock)) == 5_000

    def test_parts_of_a_millijoule_are_kept(self, host: FakeHost, clock: Clock) -> None:
        meter = rapl(host, clock)
        seen = []
        for _ in range(4):
            host.draw("intel-rapl:0", 300)
            seen.append(energy_mj(meter))
        # 5,000.4 mJ and 0.3 mJ each time.
        assert seen == [5_000, 5_001, 5_001, 5_001]

    def test_a_wrap_is_exact_to_the_microjoule(self, host: FakeHost, clock: Clock) -> None:
        host.reset("intel-rapl:0", RANGE_UJ - 1_500)
        meter = rapl(host, clock)
        before = energy_mj(meter)
        clock.pass_ms(100)
        host.draw("intel-rapl:0", 4_000_000)
        assert energy_mj(meter) - before == 4_000
        clock.pass_ms(100)
        host.draw("intel-rapl:0", 250_000)
        assert energy_mj(meter) - before == 4_250

    def test_it_grows_through_many_wraps(self, tmp_path: Path, clock: Clock) -> None:
        small = FakeHost(tmp_path / "small")
        small.zone("intel-rapl:0", "package-0", energy_uj=999_999, range_uj=1_000_000)
        meter = rapl(small, clock)
        for _ in range(100):
            clock.pass_ms(1000)
            small.draw("intel-rapl:0", 700_001)
            meter.read(PACKAGE)
        assert energy_mj(meter) == (999_999 + 100 * 700_001) // 1000

    def test_rapl_tells_no_power_and_no_limit(self, host: FakeHost, clock: Clock) -> None:
        reading = rapl(host, clock).read(PACKAGE)
        assert (reading.power_mw, reading.limit_mw, reading.utilization) == (None, None, None)
        assert reading.time_ns == START_NS

    @given(
        before=st.integers(0, RANGE_UJ - 1),
        drawn=st.integers(0, RANGE_UJ - 1),
        elapsed_ns=st.integers(0, 1000 * SECOND_NS),
    )
    def test_growth_is_what_was_drawn_wherever_that_is_possible(self, before: int, drawn: int, elapsed_ns: int) -> None:
        now = (before + drawn) % RANGE_UJ
        grown = growth_uj(before, now, range_uj=RANGE_UJ, elapsed_ns=elapsed_ns)
        possible = drawn <= PLAUSIBLE_W * elapsed_ns // 1000
        assert grown == (drawn if now >= before or possible else None)

    @pytest.mark.parametrize(("range_uj", "gap_ms"), [(RANGE_UJ, 60_000), (65_532_610_987, 32_766), (999_999, 0)])
    def test_looks_may_be_a_minute_apart_unless_the_counter_could_go_around_meanwhile(
        self, tmp_path: Path, clock: Clock, range_uj: int, gap_ms: int
    ) -> None:
        host = FakeHost(tmp_path / "host")
        host.zone("intel-rapl:0", "package-0", range_uj=range_uj)
        assert rapl(host, clock).devices()[0].gap_ms == gap_ms

    @given(range_uj=st.integers(1, 2**48), watts=st.integers(0, PLAUSIBLE_W))
    def test_no_wrap_is_missed_between_looks_that_are_near_enough(self, range_uj: int, watts: int) -> None:
        drawn_uj = watts * once_around_ms(range_uj) * 1000
        assert drawn_uj <= range_uj


class TestTrouble:
    def test_a_zone_that_vanishes_is_an_error_and_counts_on_when_it_is_back(self, host: FakeHost, clock: Clock) -> None:
        meter = rapl(host, clock)
        before = energy_mj(meter)
        host.vanish("intel-rapl:0")
        with pytest.raises(MeterError, match=rf"{PACKAGE} cannot be read: .*Check that .*intel-rapl:0 is there"):
            meter.read(PACKAGE)
        assert energy_mj(meter, "dram-package-0@n1") == 2_000
        clock.pass_ms(5000)
        host.draw("intel-rapl:0", 300_000_000)
        host.come_back("intel-rapl:0")
        assert energy_mj(meter) - before == 300_000

    def test_permission_that_is_taken_away_is_an_error(
        self, host: FakeHost, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meter = rapl(host, clock)
        forbid(monkeypatch, "energy_uj")
        with pytest.raises(MeterError, match="Permission denied"):
            meter.read(PACKAGE)

    def test_a_file_that_is_torn_is_an_error(self, host: FakeHost, clock: Clock) -> None:
        meter = rapl(host, clock)
        (host.powercap / "intel-rapl:0" / "energy_uj").write_text("")
        with pytest.raises(MeterError, match="cannot be read"):
            meter.read(PACKAGE)

    def test_a_counter_that_fell_too_far_to_have_wrapped_was_reset_and_the_books_say_so(
        self, host: FakeHost, clock: Clock
    ) -> None:
        meter = rapl(host, clock)
        book = DeviceBook(meter.devices()[0])
        book.observe(meter.read(PACKAGE))
        clock.pass_ms(1000)
        host.reset("intel-rapl:0", 3_000_000)
        book.observe(meter.read(PACKAGE))
        clock.pass_ms(1000)
        host.draw("intel-rapl:0", 1_000_000)
        book.observe(meter.read(PACKAGE))
        reset, clean = book.take()
        assert (reset.energy_mj, reset.quality) == (3_000, {Quality.RESET, Quality.GAP})
        assert (clean.energy_mj, clean.quality) == (1_000, frozenset())

    def test_a_look_away_that_may_hide_a_wrap_is_flagged_by_the_books(self, host: FakeHost, clock: Clock) -> None:
        meter = rapl(host, clock)
        book = DeviceBook(meter.devices()[0])
        book.observe(meter.read(PACKAGE))
        clock.now_ns += meter.devices()[0].gap_ms * MS + 1
        host.draw("intel-rapl:0", 9_000_000)
        book.observe(meter.read(PACKAGE))
        (entry,) = book.take()
        assert (entry.energy_mj, entry.quality) == (9_000, {Quality.GAP})
        assert energy_by_job([entry]) == {None: 9_000}
