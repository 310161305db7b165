"""The model of a CPU: a known CPU by its maker's figure, an unknown one not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_host import EPYC_7742, FakeHost
from tests.metering import START_NS, Clock
from workers.contract import Device, Method
from workers.errors import CapError, UnmeteredError
from workers.telemetry.modelled import IDLE_PERCENT, ModelledCpuMeter, model_mw, rated_cpus, table_name

PACKAGE = "cpu-package-0@n1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def modelled(host: FakeHost, clock: Clock) -> ModelledCpuMeter:
    return ModelledCpuMeter(node="n1", proc=host.proc, clock_ns=clock)


class TestUnknown:
    @pytest.mark.parametrize("name", ["AMD EPYC", "Intel(R) Xeon(R) CPU @ 2.20GHz", "AMD EPYC 7742P", "Xeon"])
    def test_a_cpu_that_is_not_in_the_table_is_not_guessed(self, tmp_path: Path, clock: Clock, name: str) -> None:
        with pytest.raises(UnmeteredError) as error:
            modelled(FakeHost(tmp_path / "host", model=name), clock)
        assert error.value.reason == f"the CPU {name!r} is not in the table of rated powers"
        assert "accounting.cpu_watts" in error.value.remedy

    def test_a_cpu_without_a_name_is_not_guessed(self, tmp_path: Path, clock: Clock) -> None:
        with pytest.raises(UnmeteredError, match="The CPU has no name"):
            modelled(FakeHost(tmp_path / "host", model=None), clock)

    def test_without_a_procfs_there_is_nothing_to_model_from(self, tmp_path: Path) -> None:
        with pytest.raises(UnmeteredError, match=r"cpuinfo cannot be read: No such file or directory\. CPU"):
            ModelledCpuMeter(node="n1", proc=tmp_path)

    def test_a_file_that_is_no_stat_says_where_procfs_belongs(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host")
        (host.proc / "stat").write_text("intr 1 2 3\n")
        with pytest.raises(UnmeteredError, match=r"does not begin with the processors' times\. Mount procfs at"):
            modelled(host, clock)

    def test_a_model_has_no_limit(self, tmp_path: Path, clock: Clock) -> None:
        with pytest.raises(CapError, match="no power limit"):
            modelled(FakeHost(tmp_path / "host"), clock).set_limit(PACKAGE, 1)


class TestPower:
    def test_nothing_is_known_before_the_first_tick(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host")
        meter = modelled(host, clock)
        clock.pass_ms(3)
        reading = meter.read(PACKAGE)
        assert (reading.energy_mj, reading.power_mw, reading.utilization) == (0, None, None)
        clock.pass_ms(7)
        host.pass_ticks(busy=4, idle=0)
        # The 3 ms are not lost: 10 ms at 225 W.
        assert meter.read(PACKAGE).energy_mj == 2_250

    @pytest.mark.parametrize(
        ("busy", "idle", "power_mw"), [(0, 100, 54_000), (50, 50, 139_500), (100, 0, 225_000), (25, 75, 96_750)]
    )
    def test_power_is_idle_and_the_rest_in_proportion(
        self, tmp_path: Path, clock: Clock, busy: int, idle: int, power_mw: int
    ) -> None:
        host = FakeHost(tmp_path / "host")
        meter = modelled(host, clock)
        clock.pass_ms(1000)
        host.pass_ticks(busy=busy, idle=idle)
        reading = meter.read(PACKAGE)
        assert (reading.power_mw, reading.energy_mj, reading.utilization) == (power_mw, power_mw, busy / 100)
        assert reading.limit_mw is None

    def test_energy_adds_up_over_looks_of_any_length(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host")
        meter = modelled(host, clock)
        for milliseconds, busy, idle in ((100, 40, 0), (10, 0, 4), (1000, 100, 300)):
            clock.pass_ms(milliseconds)
            host.pass_ticks(busy=busy, idle=idle)
            reading = meter.read(PACKAGE)
        # 225 W x 0.1 s + 54 W x 0.01 s + 96.75 W x 1 s
        assert reading.energy_mj == 22_500 + 540 + 96_750

    def test_between_ticks_the_counter_has_not_refreshed(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host")
        meter = modelled(host, clock)
        clock.pass_ms(10)
        host.pass_ticks(busy=4, idle=0)
        first = meter.read(PACKAGE)
        clock.pass_ms(5)
        second = meter.read(PACKAGE)
        assert (second.energy_mj, second.power_mw) == (first.energy_mj, first.power_mw)
        assert second.time_ns == START_NS + 15_000_000

    def test_a_clock_that_is_set_back_adds_nothing_and_takes_nothing(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host")
        meter = modelled(host, clock)
        clock.pass_ms(1000)
        host.pass_ticks(busy=400, idle=0)
        meter.read(PACKAGE)
        clock.pass_ms(-500)
        host.pass_ticks(busy=10, idle=0)
        assert meter.read(PACKAGE).energy_mj == 225_000
        clock.pass_ms(1000)
        host.pass_ticks(busy=0, idle=400)
        assert meter.read(PACKAGE).energy_mj == 225_000 + 54_000

    def test_ticks_that_fall_begin_a_new_look(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host")
        meter = modelled(host, clock)
        clock.pass_ms(1000)
        host.pass_ticks(busy=-900, idle=-8000)
        assert meter.read(PACKAGE).energy_mj == 0
        clock.pass_ms(1000)
        host.pass_ticks(busy=400, idle=0)
        assert meter.read(PACKAGE).energy_mj == 225_000

    @given(st.integers(1, 10**6), st.integers(0, 10**9), st.integers(1, 10**9))
    def test_the_model_stays_between_idle_and_rated_power(self, rated_mw: int, busy: int, total: int) -> None:
        power_mw = model_mw(rated_mw, busy=min(busy, total), total=total)
        assert rated_mw * IDLE_PERCENT // 100 <= power_mw <= rated_mw


class TestPackages:
    def test_each_package_is_a_device_that_says_modelled(self, tmp_path: Path, clock: Clock) -> None:
        assert modelled(FakeHost(tmp_path / "host", packages=2), clock).devices() == (
            Device(uuid=PACKAGE, index=0, model=EPYC_7742, kind="cpu", method=Method.MODELLED, gap_ms=60_000),
            Device(
                uuid="cpu-package-1@n1", index=1, model=EPYC_7742, kind="cpu", method=Method.MODELLED, gap_ms=60_000
            ),
        )

    def test_each_package_draws_its_own_power_at_the_hosts_utilisation(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host", packages=2)
        meter = modelled(host, clock)
        clock.pass_ms(1000)
        host.pass_ticks(busy=400, idle=0)
        assert [meter.read(device.uuid).energy_mj for device in meter.devices()] == [225_000, 225_000]

    def test_a_virtual_machine_has_its_threads_part_of_one_package(self, tmp_path: Path, clock: Clock) -> None:
        host = FakeHost(tmp_path / "host", packages=4, threads=4, virtual=True)
        meter = modelled(host, clock)
        clock.pass_ms(1000)
        host.pass_ticks(busy=400, idle=0)
        (package,) = meter.devices()
        # 4 of 128 threads of 225 W.
        assert meter.read(package.uuid).energy_mj == 225_000 * 4 // 128


class TestTable:
    @pytest.mark.parametrize(
        ("name", "tdp_w", "threads"),
        [
            ("AMD EPYC 7742 64-Core Processor", 225, 128),
            ("AMD EPYC 9654 96-Core Processor", 360, 192),
            ("AMD Ryzen 9 5950X 16-Core Processor", 105, 32),
            ("AMD Ryzen Threadripper PRO 5995WX 64-Cores", 280, 128),
            ("Intel(R) Xeon(R) Platinum 8280 CPU @ 2.70GHz", 205, 56),
            ("Intel(R) Xeon(R) Platinum 8480+", 350, 112),
            ("INTEL(R) XEON(R) PLATINUM 8568Y+", 350, 96),
            ("Intel(R) Xeon(R) Gold 6148 CPU @ 2.40GHz", 150, 40),
            ("Intel(R) Xeon(R) CPU E5-2698 v4 @ 2.20GHz", 135, 40),
            ("Intel(R) Xeon(R) W-2295 CPU @ 3.00GHz", 165, 36),
            ("Intel(R) Core(TM) i9-9900K CPU @ 3.60GHz", 95, 16),
            ("11th Gen Intel(R) Core(TM) i9-11900K @ 3.50GHz", 125, 16),
        ],
    )
    def test_a_cpu_is_found_by_the_name_the_kernel_shows(self, name: str, tdp_w: int, threads: int) -> None:
        rated = rated_cpus()[table_name(name)]
        assert (rated.tdp_w, rated.threads) == (tdp_w, threads)

    def test_every_row_is_possible_and_has_its_source(self) -> None:
        for row in rated_cpus().values():
            assert 35 <= row.tdp_w <= 500
            assert 4 <= row.threads <= 384
            maker = row.model.split()[0]
            assert row.source.startswith(
                (f"{maker} product specifications", "Intel ARK, by its copy", "mlco2/codecarbon")
            )
            assert "memory" not in row.source
        assert len(rated_cpus()) > 150
