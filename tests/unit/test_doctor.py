"""What the doctor finds on machines that lack something, each with the step that mends it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pynvml
import pytest

from orchestrator.doctor import PACKAGES, Finding, Machine, examine, installed_version, is_usable
from orchestrator.doctor.refresh import LOOK_NS, Refresh, measure_refresh
from tests.fake_host import FakeHost, forbid
from tests.fake_nvml import Board, FakeNvml
from workers.home import Home
from workers.telemetry.host import HostMeters, open_host_meters
from workers.telemetry.meter import PowerMeter
from workers.telemetry.nvml import NvmlMeter
from workers.telemetry.rapl import permission

HEALTHY = Machine(
    version=lambda _: "1.2.3",
    has_nvidia=lambda: False,
    is_root=lambda: True,
    host=HostMeters,
    refresh=lambda _meter, _device: Refresh(interval_ms=100.4, look_ms=1.1),
    prometheus=lambda: Path("/usr/bin/prometheus"),
    free_bytes=lambda _: 50_000_000_000,
)
BOARD = Board(uuid="GPU-a", range_mw=(200_000, 700_000), default_mw=700_000)


def machine_with(*boards: Board, **more: object) -> Machine:
    """A healthy machine with these boards."""

    def open_() -> NvmlMeter:
        return NvmlMeter(nvml=FakeNvml(*boards), environ={})

    return replace(HEALTHY, has_nvidia=lambda: True, nvml=open_, **more)


def counted_host(folder: Path) -> FakeHost:
    """A host with RAPL counters of one package and its DRAM."""
    host = FakeHost(folder / "host")
    host.zone("intel-rapl:0", "package-0")
    host.zone("intel-rapl:0:0", "dram")
    return host


def on(host: FakeHost) -> Machine:
    """A healthy machine with that CPU."""

    def open_() -> HostMeters:
        return open_host_meters("auto", node="n1", powercap=host.powercap, proc=host.proc)

    return replace(HEALTHY, host=open_)


def look(home: Path, machine: Machine) -> dict[str, Finding]:
    return {finding.what: finding for finding in examine(Home(home), machine)}


class TestMissing:
    @pytest.mark.parametrize(("module", "extra"), PACKAGES.items())
    def test_a_package_that_is_not_installed_comes_with_the_command_that_installs_it(
        self, tmp_path: Path, module: str, extra: str
    ) -> None:
        found = look(tmp_path, replace(HEALTHY, version=lambda name: None if name == module else "1"))
        assert found[module] == Finding(
            what=module,
            level="missing",
            found="not installed",
            remedy=f"pip install -c constraints.txt 'wattledger[{extra}]'",
        )
        assert not is_usable(tuple(found.values()))

    def test_a_driver_that_does_not_answer_is_told_and_never_simulated_away(self, tmp_path: Path) -> None:
        def dead() -> NvmlMeter:
            return NvmlMeter(nvml=FakeNvml(BOARD, driver=False), environ={})

        found = look(tmp_path, replace(HEALTHY, has_nvidia=lambda: True, nvml=dead))
        assert found["GPU"].level == "missing"
        assert found["GPU"].found.startswith("NVML does not answer: Driver Not Loaded")
        assert found["GPU"].remedy == "`sudo modprobe nvidia`"
        assert "simulated" not in found["GPU"].found
        assert not is_usable(tuple(found.values()))

    def test_a_board_whose_limits_cannot_be_read_is_missing_while_the_others_are_told(self, tmp_path: Path) -> None:
        gone = {"nvmlDeviceGetPowerManagementLimitConstraints": pynvml.NVML_ERROR_GPU_IS_LOST}
        boards = Board(uuid="GPU-x", name="Tesla T4", errors=gone), BOARD
        found = look(tmp_path, machine_with(*boards))
        assert found["GPU 0 power cap"].level == "missing"
        assert "GPU is lost" in found["GPU 0 power cap"].found
        assert found["GPU 1 power cap"].level == "ok"

    def test_a_folder_that_cannot_be_written_comes_with_the_remedy(self, tmp_path: Path) -> None:
        found = look(tmp_path / "ledger", replace(HEALTHY, may_write=lambda _: False))
        assert found["ledger"] == Finding(
            what="ledger",
            level="missing",
            found=f"{tmp_path} cannot be written",
            remedy="name another folder with --home or WATTLEDGER_HOME",
        )

    def test_a_file_where_the_folder_should_be_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        found = look(tmp_path / "file" / "ledger", HEALTHY)["ledger"]
        assert (found.level, found.found) == ("missing", f"{tmp_path / 'file'} is not a folder")

    def test_a_link_that_leads_nowhere_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(tmp_path / "gone")
        assert look(tmp_path / "link", HEALTHY)["ledger"].found == f"{tmp_path / 'link'} is not a folder"

    def test_a_full_disk_comes_with_the_remedy(self, tmp_path: Path) -> None:
        found = look(tmp_path / "ledger", replace(HEALTHY, free_bytes=lambda _: 1_440_000_000))
        assert found["ledger"] == Finding(
            what="ledger",
            level="missing",
            found=f"1.4 GB free in {tmp_path}",
            remedy="free disk space, or name another folder with --home or WATTLEDGER_HOME",
        )
        assert not is_usable(tuple(found.values()))

    def test_a_board_that_cannot_be_read_is_missing_with_why(self, tmp_path: Path) -> None:
        failing = {
            "nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_NO_PERMISSION,
            "nvmlDeviceGetFieldValues": pynvml.NVML_ERROR_NO_PERMISSION,
            "nvmlDeviceGetPowerUsage": pynvml.NVML_ERROR_NO_PERMISSION,
            "nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_UNKNOWN,
        }
        found = look(tmp_path, machine_with(replace(BOARD, errors=failing), replace(BOARD, uuid="GPU-b")))
        assert found["GPU 0, H100"] == Finding(
            what="GPU 0, H100",
            level="missing",
            found="GPU-a cannot be read: GPU-a tells neither energy nor power. "
            "Check `nvidia-smi -q -d POWER -i GPU-a`.",
            remedy="`nvidia-smi -q -i GPU-a` says more",
        )
        assert found["GPU 0 state"].level == "missing"
        assert found["GPU 1, H100"].level == "ok"
        assert not is_usable(tuple(found.values()))

    def test_a_machine_whose_boards_are_hidden_is_told_what_hides_them(self, tmp_path: Path) -> None:
        def hidden() -> NvmlMeter:
            return NvmlMeter(nvml=FakeNvml(BOARD), environ={"CUDA_VISIBLE_DEVICES": ""})

        found = look(tmp_path, replace(HEALTHY, has_nvidia=lambda: True, nvml=hidden))["GPU"]
        assert found.level == "missing"
        assert "`unset CUDA_VISIBLE_DEVICES`" in str(found.remedy)


class TestNotes:
    def test_a_board_that_is_slowed_by_heat_says_so(self, tmp_path: Path) -> None:
        found = look(tmp_path, machine_with(replace(BOARD, reasons=0x44, temperature_c=94)))["GPU 0 state"]
        assert found == Finding(
            what="GPU 0 state",
            level="note",
            found="2.0 of 80.0 GiB used; 94 °C; SM clock 1980 MHz; held back by power cap, heat, by hardware",
            remedy="`nvidia-smi -q -d PERFORMANCE,TEMPERATURE -i GPU-a`",
        )

    def test_what_a_board_does_not_tell_of_its_state_is_left_out(self, tmp_path: Path) -> None:
        silent = replace(BOARD, used_gib=None, temperature_c=None, reasons=None)
        assert look(tmp_path, machine_with(silent))["GPU 0 state"].found == "SM clock 1980 MHz"
        mute = replace(silent, sm_clock_mhz=None)
        assert look(tmp_path, machine_with(mute))["GPU 0 state"].found == "nothing told"

    def test_no_gpu_is_no_fault_and_says_what_is_simulated(self, tmp_path: Path) -> None:
        found = examine(Home(tmp_path), HEALTHY)
        (board,) = [finding for finding in found if finding.what == "GPU"]
        assert board.level == "note"
        assert board.found == "no NVIDIA device: accelerators are simulated, and every figure of theirs says so"
        assert is_usable(found)

    def test_without_prometheus_the_energy_log_serves(self, tmp_path: Path) -> None:
        found = look(tmp_path, replace(HEALTHY, prometheus=lambda: None))["Prometheus"]
        assert (found.level, found.remedy) == ("note", "apt-get install prometheus")
        assert "the energy log alone serves" in found.found

    def test_who_is_not_root_is_told_that_caps_need_it(self, tmp_path: Path) -> None:
        found = look(tmp_path, machine_with(BOARD, is_root=lambda: False))["GPU 0 power cap"]
        assert (found.level, found.found) == ("note", "200 to 700 W, default 700 W; only root may set it")
        assert found.remedy == "`sudo ray start …` on this node, or leave power out of manifests"

    def test_a_board_without_a_settable_limit_says_so(self, tmp_path: Path) -> None:
        found = look(tmp_path, machine_with(replace(BOARD, range_mw=None)))["GPU 0 power cap"]
        assert (found.level, found.found) == (
            "note",
            "GPU-a has no settable power limit. Remove power from the manifest.",
        )

    def test_a_board_without_a_counter_is_sampled_and_says_so(self, tmp_path: Path) -> None:
        found = look(tmp_path, machine_with(replace(BOARD, energy_mj=None)))["GPU 0, H100"]
        assert (found.level, found.found) == (
            "note",
            "GPU-a, method integrated: no energy counter; power is sampled and integrated; "
            "power is its sensor's latest sample",
        )

    def test_a_cpu_that_cannot_be_metered_says_why_and_what_would_help(self, tmp_path: Path) -> None:
        host = FakeHost(tmp_path / "host", model="AMD EPYC")
        found = look(tmp_path, on(host))
        assert found["CPU energy"] == Finding(
            what="CPU energy",
            level="note",
            found=f"there is no RAPL zone in {host.powercap}, "
            "and the CPU 'AMD EPYC' is not in the table of rated powers",
            remedy="On bare metal run `sudo modprobe intel_rapl_msr`; virtual machines and containers are shown none. "
            "Or give accounting.cpu_watts in the manifest, and its energy is modelled from that.",
        )
        assert found["DRAM energy"].level == "note"
        assert is_usable(tuple(found.values()))

    def test_counters_that_may_not_be_read_come_with_the_command_that_opens_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = counted_host(tmp_path)
        forbid(monkeypatch, "energy_uj")
        found = look(tmp_path, on(host))
        assert found["CPU energy, cpu-package-0"] == Finding(
            what="CPU energy, cpu-package-0",
            level="note",
            found="method modelled: AMD EPYC 7742 64-Core Processor, 225 W by its maker × utilisation, "
            "24 % of it idle (assumed); averaged over the time between two looks",
            remedy=permission(host.powercap),
        )
        assert found["DRAM energy"].remedy == (
            f"{permission(host.powercap)} "
            "Or give accounting.dram_watts in the manifest, and its energy is modelled from that."
        )

    def test_a_platform_that_stands_for_the_cpu_says_that_it_is_more(self, tmp_path: Path) -> None:
        host = FakeHost(tmp_path / "host")
        host.zone("intel-rapl:0", "psys")
        found = look(tmp_path, on(host))["CPU energy, cpu-psys"]
        assert found.level == "note"
        assert "the whole platform, which is more than the CPU" in found.found


class TestGood:
    def test_counters_of_cpu_and_dram_are_what_one_wants(self, tmp_path: Path) -> None:
        found = look(tmp_path, on(counted_host(tmp_path)))
        for what in ("CPU energy, cpu-package-0", "DRAM energy, dram-package-0"):
            assert (found[what].level, found[what].remedy) == ("ok", None)
            assert found[what].found == (
                "method counter: RAPL of AMD EPYC 7742 64-Core Processor, refreshed every 100 ms (measured)"
            )

    def test_a_board_shows_how_it_is_metered_and_the_range_of_its_cap(self, tmp_path: Path) -> None:
        found = look(tmp_path, machine_with(BOARD))
        assert found["GPU 0, H100"] == Finding(
            what="GPU 0, H100",
            level="ok",
            found="GPU-a, method counter: hardware energy counter, mJ, refreshed every 100 ms (measured); "
            "power is its sensor's latest sample",
        )
        assert found["GPU 0 power cap"] == Finding(
            what="GPU 0 power cap", level="ok", found="200 to 700 W, default 700 W"
        )
        assert is_usable(tuple(found.values()))

    def test_the_driver_is_let_go_of(self, tmp_path: Path) -> None:
        nvml = FakeNvml(BOARD)
        machine = replace(HEALTHY, has_nvidia=lambda: True, nvml=lambda: NvmlMeter(nvml=nvml, environ={}))
        examine(Home(tmp_path), machine)
        assert not nvml.running

    def test_looking_changes_nothing(self, tmp_path: Path) -> None:
        home = tmp_path / "a" / "b"
        assert look(home, HEALTHY)["ledger"] == Finding(what="ledger", level="ok", found=f"{home}, 50 GB free")
        assert list(tmp_path.iterdir()) == []

    def test_findings_are_ready_for_json(self, tmp_path: Path) -> None:
        found = [asdict(finding) for finding in examine(Home(tmp_path), HEALTHY)]
        assert json.loads(json.dumps(found)) == found
        assert found[1] == {"what": "ray", "level": "ok", "found": "1.2.3", "remedy": None}


class Counting:
    """A board whose counter shows a new value every ``every_ms`` on a clock that passes 2 ms per look."""

    def __init__(self, every_ms: int | None) -> None:
        self._every_ms, self._now_ms = every_ms, 0

    def clock_ns(self) -> int:
        return self._now_ms * 1_000_000

    def pause(self, seconds: float) -> None:
        self._now_ms += 2 * round(1000 * seconds)

    def measured(self) -> Refresh | None:
        board = Board(uuid="GPU-a")
        meter = NvmlMeter(nvml=FakeNvml(board), environ={})

        def pause(seconds: float) -> None:
            self.pause(seconds)
            board.energy_mj = 1_000_000 + (self._now_ms // self._every_ms if self._every_ms else 0)

        return measure_refresh(meter, "GPU-a", clock_ns=self.clock_ns, pause_s=pause)


class TestRefresh:
    def test_a_counter_that_stands_still_or_cannot_be_read_tells_nothing(self, tmp_path: Path) -> None:
        assert Counting(None).measured() is None
        assert Counting(every_ms=LOOK_NS).measured() is None
        assert measure_refresh(NvmlMeter(nvml=FakeNvml(BOARD), environ={}), "GPU-b") is None
        unseen = machine_with(BOARD, refresh=lambda _meter, _device: None)
        assert "refresh not seen while it was watched" in look(tmp_path, unseen)["GPU 0, H100"].found

    @pytest.mark.parametrize("every_ms", [20, 50, 100])
    def test_the_time_between_two_moves_is_the_refresh(self, every_ms: int) -> None:
        assert Counting(every_ms).measured() == Refresh(interval_ms=every_ms, look_ms=2)

    def test_a_counter_that_moves_at_every_look_is_bounded_only(self, tmp_path: Path) -> None:
        measured = Counting(every_ms=1).measured()
        assert measured == Refresh(interval_ms=2, look_ms=2)
        fast = machine_with(BOARD, refresh=lambda _meter, _device: measured)
        assert "refreshed every 2 ms or less (measured)" in look(tmp_path, fast)["GPU 0, H100"].found

    def test_boards_of_one_type_are_measured_once(self, tmp_path: Path) -> None:
        asked = []

        def measure(_: PowerMeter, device: str) -> Refresh:
            asked.append(device)
            return Refresh(interval_ms=20, look_ms=1)

        boards = BOARD, replace(BOARD, uuid="GPU-b"), replace(BOARD, uuid="GPU-c", name="NVIDIA L4")
        found = look(tmp_path, machine_with(*boards, refresh=measure))
        assert asked == ["GPU-a", "GPU-c"]
        assert "refreshed every 20 ms (measured)" in found["GPU 1, H100"].found


class TestVersions:
    def test_a_module_that_is_not_there_has_none(self) -> None:
        assert installed_version("no_such_module_anywhere") is None

    def test_a_folder_of_that_name_is_not_the_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "lookalike").mkdir()
        monkeypatch.syspath_prepend(tmp_path)
        assert installed_version("lookalike") is None

    def test_a_module_without_a_record_of_its_installation_is_there_all_the_same(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "unrecorded.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        assert installed_version("unrecorded") == "of no known version"

    def test_a_module_whose_package_is_called_otherwise_is_found(self) -> None:
        version = installed_version("sklearn")
        assert version is not None
        assert version[0].isdigit()
