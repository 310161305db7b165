"""The real ``pynvml`` and the NVML meter over a simulated driver: what goes wrong is told, what is told is true.

The driver's clock stands still but for ``advance``, so every figure is compared exactly.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.agents import running_agent
from tests.clusters import wait_until
from tests.driver.driver import ROOT, Driver, nvml_library
from tests.driver.probe import Probe, ProbeError
from workers.contract import EnergyEntry, Method, Phase, Power, Quality
from workers.errors import InputError
from workers.telemetry.client import HeldLease

__all__ = ["nvml_library"]

S, MS = 1_000_000_000, 1_000_000
BUSY = {"4242": 1.0}
ALL = ("H100", "H200", "A100-80GB", "A40", "L4", "T4", "V100", "RTX-4090")


@pytest.fixture(scope="module")
def rig(nvml_library: Path) -> Iterator[tuple[Driver, Probe]]:
    """A driver whose clock stands still, with an H100 and a board that is older than energy counters."""
    with Driver(nvml_library, [{}, {"model": "P100"}], clock="manual") as driver, Probe(driver) as probe:
        yield driver, probe


@pytest.fixture
def driver(rig: tuple[Driver, Probe]) -> Iterator[Driver]:
    """Idle for 2 s, without a fault; left so."""
    driver = rig[0]
    for board in range(2):
        driver.order("load", board=board, processes={})
    driver.order("advance", ns=2 * S)
    yield driver
    driver.order("clear")


@pytest.fixture
def probe(driver: Driver, rig: tuple[Driver, Probe]) -> Probe:
    """With a meter open on both boards."""
    rig[1].ask("open")
    return rig[1]


@pytest.fixture
def h100(driver: Driver) -> str:
    return str(driver.order("uuids")[0])


class TestWithoutADriver:
    def test_no_library_at_all_is_an_error_with_the_remedy(self) -> None:
        code = "from workers.telemetry.nvml import NvmlMeter; NvmlMeter()"
        environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
        ended = subprocess.run(
            [sys.executable, "-c", f"import ctypes\nctypes.CDLL = lambda name: open('/no/{{name}}')\n{code}"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.stderr.strip().splitlines()[-1] == (
            "workers.errors.MeterError: NVML does not answer: NVML Shared Library Not Found. "
            "Check that `nvidia-smi` works for this user."
        )

    def test_a_library_without_a_driver_is_an_error_and_the_agent_says_so_in_one_line(
        self, nvml_library: Path, tmp_path: Path
    ) -> None:
        with Driver(nvml_library, [{}]) as driver:
            driver.kill()
            ended = subprocess.run(
                [sys.executable, "-m", "workers.agent", "--meter", "nvml", "--home", str(tmp_path)],
                env=driver.environment,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == (
            "NVML does not answer: Driver Not Loaded. Check that `nvidia-smi` works for this user.\n"
        )

    def test_a_driver_that_dies_under_the_meter_is_an_error_until_another_is_loaded(self, nvml_library: Path) -> None:
        with Driver(nvml_library, [{}], clock="manual") as driver, Probe(driver) as probe:
            (board,) = probe.ask("open")
            driver.order("fault", kind="gone")
            with pytest.raises(ProbeError, match=r"MeterError: NVML cannot be read: Driver Not Loaded"):
                probe.ask("read", board["uuid"])
            with pytest.raises(ProbeError, match=r"the NVIDIA driver is gone: Driver Not Loaded\. Load it again"):
                _later(driver, probe, board["uuid"])
            with pytest.raises(ProbeError, match=r"gone, and is looked for every second"):
                probe.ask("read", board["uuid"])
            driver.order("clear")
            driver.order("reset", board=0)
            assert _later(driver, probe, board["uuid"])["energy_mj"] < board["index"] + 10**6

    def test_a_killed_driver_process_says_not_loaded_and_a_new_one_needs_a_new_start(self, nvml_library: Path) -> None:
        with Driver(nvml_library, [{}]) as driver, Probe(driver) as probe:
            probe.ask("nvml", "nvmlInit")
            driver.kill()
            for _ in range(2):
                with pytest.raises(ProbeError, match="Driver Not Loaded"):
                    probe.ask("nvml", "nvmlDeviceGetCount")
            driver.restart()
            with pytest.raises(ProbeError, match="Driver Not Loaded"):
                probe.ask("nvml", "nvmlDeviceGetCount")
            probe.ask("nvml", "nvmlInit")
            assert probe.ask("nvml", "nvmlDeviceGetCount") == 1


def _later(driver: Driver, probe: Probe, uuid: str) -> dict[str, int]:
    """A reading a second later."""
    driver.order("advance", ns=S)
    return dict(probe.ask("read", uuid))


class TestFaults:
    def test_a_lost_board_is_an_error_the_other_is_read_and_it_comes_back(
        self, driver: Driver, probe: Probe, h100: str
    ) -> None:
        other = driver.order("uuids")[1]
        driver.order("fault", kind="lost", board=0)
        for _ in range(2):
            with pytest.raises(ProbeError, match=r"MeterError: NVML cannot be read: GPU is lost\. Check `nvidia-smi`"):
                probe.ask("read", h100)
        assert probe.ask("read", other)["power_mw"] == 30_000
        driver.order("clear")
        assert probe.ask("read", h100)["power_mw"] == 70_000

    def test_sensors_that_fail_are_an_error_and_answer_again(self, driver: Driver, probe: Probe, h100: str) -> None:
        driver.order("fault", kind="failing", board=0)
        with pytest.raises(ProbeError, match="MeterError: NVML cannot be read: Unknown Error"):
            probe.ask("read", h100)
        driver.order("clear")
        assert probe.ask("read", h100)["power_mw"] == 70_000

    def test_half_of_the_samples_lost_leaves_the_other_half_true(self, driver: Driver, probe: Probe, h100: str) -> None:
        driver.order("fault", kind="half", board=0)
        told = []
        for _ in range(40):
            driver.order("advance", ns=50 * MS)
            try:
                told.append(probe.ask("read", h100))
            except ProbeError:
                continue
        assert 10 <= len(told) <= 30
        assert {reading["power_mw"] for reading in told} == {70_000}
        assert all(r["energy_mj"] == driver.order("counter", board=0, at_ns=r["time_ns"]) for r in told)

    @pytest.mark.parametrize("value", [None, 2**63 - 1, 2**63, 10**13])
    def test_a_sentinel_or_an_absurd_value_is_unknown_never_a_figure(
        self, driver: Driver, probe: Probe, h100: str, value: int | None
    ) -> None:
        assert probe.ask("read", h100)["energy_mj"] is not None
        driver.order("fault", kind="sentinel", board=0, value=value)
        with pytest.raises(ProbeError, match="tells neither energy nor power"):
            probe.ask("read", h100)
        driver.order("clear")
        reading = probe.ask("read", h100)
        assert (reading["power_mw"], reading["utilization"]) == (70_000, 0.0)
        assert reading["energy_mj"] == driver.order("counter", board=0, at_ns=reading["time_ns"])

    def test_sensors_this_user_may_not_read_are_an_error_until_it_may(
        self, driver: Driver, probe: Probe, h100: str
    ) -> None:
        driver.order("fault", kind="forbidden", board=0)
        with pytest.raises(ProbeError, match=r"tells neither energy nor power\. Check `nvidia-smi -q -d POWER -i GPU-"):
            probe.ask("read", h100)
        driver.order("clear")
        assert probe.ask("read", h100)["power_mw"] == 70_000

    def test_a_limit_that_may_not_be_set_is_a_cap_error_and_nothing_changes(
        self, driver: Driver, probe: Probe, h100: str
    ) -> None:
        driver.order("fault", kind="denied", board=0)
        with pytest.raises(ProbeError, match=r"CapError: .*Insufficient Permissions\. Only root may set it: run the"):
            probe.ask("set_limit", h100, 300_000)
        assert driver.order("limit", board=0) == 700_000


class TestFigures:
    def test_the_counter_is_the_truth_at_its_last_refresh_and_stands_still_between(
        self, driver: Driver, probe: Probe, h100: str
    ) -> None:
        driver.order("load", board=0, processes=BUSY)
        readings = []
        for _ in range(30):
            driver.order("advance", ns=30 * MS)
            readings.append(probe.ask("read", h100))
        counted = [reading["energy_mj"] for reading in readings]
        assert counted == sorted(counted)
        # 900 ms hold nine refreshes, or ten values with the one before them.
        assert len(set(counted)) in {9, 10}
        assert counted == [driver.order("counter", board=0, at_ns=reading["time_ns"]) for reading in readings]
        start_ns, end_ns = readings[0]["time_ns"], readings[-1]["time_ns"]
        true_mj = driver.order("truth", board=0, start_ns=start_ns, end_ns=end_ns) // 10**9
        assert abs(counted[-1] - counted[0] - true_mj) <= 70_000

    def test_a_counter_that_was_reset_begins_again(self, driver: Driver, probe: Probe, h100: str) -> None:
        before = probe.ask("read", h100)["energy_mj"]
        driver.order("reset", board=0)
        assert probe.ask("read", h100)["energy_mj"] == 0 < before
        driver.order("advance", ns=S)
        assert 63_000 <= probe.ask("read", h100)["energy_mj"] <= 70_000

    def test_a_board_without_a_counter_is_integrated_from_its_power(self, driver: Driver, probe: Probe) -> None:
        (old,) = [device for device in probe.ask("open") if device["model"] == "P100"]
        assert (old["method"], old["power_window_ms"]) == ("integrated", 0)
        driver.order("load", board=1, processes=BUSY)
        driver.order("advance", ns=S)
        reading = probe.ask("read", old["uuid"])
        assert (reading["energy_mj"], reading["power_mw"]) == (None, 300_000)

    def test_a_limit_clips_power_and_shows_in_clock_and_reasons(self, driver: Driver, probe: Probe, h100: str) -> None:
        driver.order("load", board=0, processes=BUSY)
        assert probe.ask("condition", h100) == {
            "memory_used_bytes": 2 << 30,
            "memory_total_bytes": 80 << 30,
            "temperature_c": 75,
            "sm_clock_mhz": 1980,
            "throttle": [],
        }
        probe.ask("set_limit", h100, 350_000)
        driver.order("advance", ns=S)
        reading, condition = probe.ask("read", h100), probe.ask("condition", h100)
        assert (reading["power_mw"], reading["limit_mw"], reading["utilization"]) == (350_000, 350_000, 1.0)
        assert condition["throttle"] == ["power cap"]
        assert condition["sm_clock_mhz"] < 1980
        assert probe.ask("limits", h100) == {
            "min_mw": 200_000,
            "max_mw": 700_000,
            "default_mw": 700_000,
            "set_mw": 350_000,
        }
        with pytest.raises(ProbeError, match=r"CapError: .*Invalid Argument"):
            probe.ask("set_limit", h100, 100_000)
        probe.ask("set_limit", h100, 700_000)

    def test_usage_and_the_fields_tell_different_powers_after_a_step(
        self, driver: Driver, probe: Probe, h100: str
    ) -> None:
        driver.order("load", board=0, processes=BUSY)
        driver.order("advance", ns=500 * MS)
        usage = probe.ask("nvml", "nvmlDeviceGetPowerUsage", ["board", 0])
        average, instant, module = probe.ask("nvml", "nvmlDeviceGetFieldValues", ["board", 0], [185, 186, [186, 1]])
        assert (usage, average, instant) == (385_000, [0, 385_000], [0, 700_000])
        assert module[0] == 3
        assert probe.ask("read", h100)["power_mw"] == 700_000

    def test_processes_and_their_shares_are_told(self, driver: Driver, probe: Probe) -> None:
        driver.order("load", board=0, processes={"11": 0.25, "12": 0.5})
        running = probe.ask("nvml", "nvmlDeviceGetComputeRunningProcesses", ["board", 0])
        shares = probe.ask("nvml", "nvmlDeviceGetProcessUtilization", ["board", 0], 0)
        assert [(process["pid"], process["usedGpuMemory"]) for process in running] == [(11, 1 << 30), (12, 1 << 30)]
        assert [(sample["pid"], sample["smUtil"]) for sample in shares] == [(11, 25), (12, 50)]

    def test_a_forked_child_asks_for_itself_and_its_parent_goes_on(self, driver: Driver, probe: Probe) -> None:
        in_child = probe.ask("fork", "nvmlDeviceGetUUID")
        assert in_child == probe.ask("nvml", "nvmlDeviceGetUUID", ["board", 0]) == driver.order("uuids")[0]


class TestSharing:
    def test_two_leases_have_what_their_processes_used_and_together_what_the_counter_grew_by(
        self, driver: Driver, probe: Probe, h100: str
    ) -> None:
        probe.ask("node")
        driver.order("load", board=0, processes={"4242": 0.75, "4343": 0.25})
        driver.order("advance", ns=S)
        probe.ask("tick")
        probe.ask("entries")
        before_mj = driver.order("counter", board=0, at_ns=driver.order("now"))
        for job, pid in (("a", 4242), ("b", 4343)):
            probe.ask("lease", job, h100, pid)
        entries = _ticked(driver, probe, h100, times=100)
        grown_mj = driver.order("counter", board=0, at_ns=driver.order("now")) - before_mj
        mine = {job: sum(e["energy_mj"] for e in entries if e["job_id"] == job) for job in ("a", "b", None)}
        assert sum(mine.values()) == grown_mj > 6_900_000
        # The refresh before the first lease, which is half of it idle's.
        assert mine[None] <= 35_000
        assert abs(mine["a"] - 0.75 * grown_mj) <= 0.02 * 0.75 * grown_mj
        assert abs(mine["b"] - 0.25 * grown_mj) <= 0.02 * 0.25 * grown_mj
        assert {tuple(e["quality"]) for e in entries if e["job_id"]} == {("shared",)}

    def test_what_a_stranger_used_of_a_shared_board_is_nobodys(self, driver: Driver, probe: Probe, h100: str) -> None:
        probe.ask("node")
        driver.order("load", board=0, processes={"4242": 0.4, "4343": 0.4, "4444": 0.2})
        leases = [probe.ask("lease", job, h100, pid) for job, pid in (("a", 4242), ("b", 4343))]
        entries = _ticked(driver, probe, h100, times=10)
        shares = {job: {round(e["share"], 6) for e in entries[-3:] if e["job_id"] == job} for job in ("a", "b", None)}
        assert shares == {"a": {0.4}, "b": {0.4}, None: {0.2}}
        for lease in leases:
            probe.ask("end_lease", lease)

    def test_processes_that_are_no_leases_leave_the_parts_equal(self, driver: Driver, probe: Probe, h100: str) -> None:
        probe.ask("node")
        driver.order("load", board=0, processes={"5151": 0.9})
        for job, pid in (("a", 4242), ("b", 4343)):
            probe.ask("lease", job, h100, pid)
        entries = _ticked(driver, probe, h100, times=10)
        assert {e["share"] for e in entries[-2:]} == {0.5}

    def test_a_board_in_slices_tells_no_use_by_process(self, nvml_library: Path) -> None:
        with Driver(nvml_library, [{"slices": ["MIG-a"]}], clock="manual") as driver, Probe(driver) as probe:
            (cut,) = probe.ask("open")
            assert probe.ask("use", cut["uuid"]) is None


def _ticked(driver: Driver, probe: Probe, device: str, *, times: int) -> list[dict[str, Any]]:
    """The device's entries of looks 100 ms apart."""
    for _ in range(times):
        driver.order("advance", ns=100 * MS)
        probe.ask("tick")
    return [entry for entry in probe.ask("entries") if entry["device"] == device]


class TestBoards:
    def test_every_profile_is_a_board_the_meter_knows_by_uuid(self, nvml_library: Path) -> None:
        boards = [{"model": model} for model in (*ALL, "P100", "GH200")]
        with Driver(nvml_library, boards, clock="manual") as driver, Probe(driver) as probe:
            found = probe.ask("open")
            assert [device["uuid"] for device in found] == driver.order("uuids")
            assert [device["model"] for device in found] == [*ALL, "P100", "GH200-480GB"]
            assert {device["method"] for device in found if device["model"] != "P100"} == {"counter"}
            assert [device["scope"] for device in found if device["scope"] != "board"] == ["module"]
            assert probe.ask("read", found[-1]["uuid"])["power_mw"] == 70_000

    @pytest.mark.parametrize(("model", "window_ms"), [("A40", 1000), ("T4", 0), ("A100-80GB", 0)])
    def test_without_the_instantaneous_field_the_window_of_the_plain_reading_is_recorded(
        self, nvml_library: Path, model: str, window_ms: int
    ) -> None:
        old_driver = {"model": model, "changes": {"has_instant": False}}
        with Driver(nvml_library, [old_driver], clock="manual") as driver, Probe(driver) as probe:
            assert [device["power_window_ms"] for device in probe.ask("open")] == [window_ms]

    def test_a_board_in_mig_mode_is_metered_whole_and_marked_shared(self, nvml_library: Path) -> None:
        boards = [{}, {"slices": ["MIG-aaaa", "MIG-bbbb"]}]
        with Driver(nvml_library, boards, clock="manual") as driver, Probe(driver) as probe:
            whole, cut = probe.ask("open")
            assert (whole["quality"], cut["quality"]) == ([], ["shared"])
            (visible,) = probe.ask("open", "MIG-bbbb")
            assert visible == cut
            assert probe.ask("read", cut["uuid"])["energy_mj"] == 123_456_789
            with pytest.raises(ProbeError, match=r"shows no board \(CUDA_VISIBLE_DEVICES='MIG-cccc'\)"):
                probe.ask("open", "MIG-cccc")

    def test_slices_of_several_boards_make_those_boards_visible_once_each(self, nvml_library: Path) -> None:
        boards = [{"slices": ["MIG-aaaa", "MIG-bbbb"]}, {}, {"slices": ["MIG-cccc"]}]
        with Driver(nvml_library, boards, clock="manual") as driver, Probe(driver) as probe:
            first, _, third = driver.order("uuids")
            visible = probe.ask("open", "MIG-bbbb,MIG-aaaa,MIG-cccc")
            assert [(device["uuid"], device["index"]) for device in visible] == [(first, 0), (third, 2)]

    @pytest.mark.parametrize("chosen", ["", "-1", "NoDevFiles", "GPU-0000", "2", "MIG-aaaa"])
    def test_where_no_board_is_visible_the_error_says_what_hides_them(
        self, driver: Driver, probe: Probe, chosen: str
    ) -> None:
        with pytest.raises(ProbeError, match=rf"shows no board \(CUDA_VISIBLE_DEVICES='{chosen}'\)"):
            probe.ask("open", chosen)

    def test_visible_devices_may_be_the_beginning_of_a_uuid_or_an_index(self, driver: Driver, probe: Probe) -> None:
        first, second = driver.order("uuids")
        assert [device["uuid"] for device in probe.ask("open", first[:12])] == [first]
        assert [device["uuid"] for device in probe.ask("open", "1")] == [second]
        assert [device["uuid"] for device in probe.ask("open", f" {second[:12]} , 0 ")] == [first, second]

    def test_visible_devices_may_be_uuids(self, driver: Driver, probe: Probe) -> None:
        first, second = driver.order("uuids")
        assert [device["uuid"] for device in probe.ask("open", second)] == [second]
        assert [device["index"] for device in probe.ask("open", f"{second},{first}")] == [0, 1]
        with pytest.raises(ProbeError, match="is not a board of this node"):
            probe.ask("open", second) and probe.ask("read", first)


DOCTOR = (
    "import json, sys\nfrom dataclasses import asdict, replace\nfrom pathlib import Path\n"
    "from workers.home import Home\nfrom orchestrator.doctor import Machine, examine\n"
    "root = sys.argv[1] == 'root'\n"
    "machine = replace(Machine(), has_nvidia=lambda: True, is_root=lambda: root)\n"
    "print(json.dumps([asdict(finding) for finding in examine(Home(Path('.')), machine)]))"
)


def doctor(driver: Driver, *, user: str = "root") -> dict[str, dict[str, str]]:
    """What ``wattledger doctor --json`` finds of the GPUs, by what it is about."""
    command = [sys.executable, "-c", DOCTOR, user]
    said = subprocess.run(command, env=driver.environment, cwd=ROOT, capture_output=True, check=True, timeout=60)
    return {each["what"]: each for each in json.loads(said.stdout) if each["what"].startswith("GPU")}


class TestDoctor:
    def test_a_driver_without_boards_and_one_that_is_gone_come_with_the_command(self, nvml_library: Path) -> None:
        with Driver(nvml_library, []) as driver:
            found = doctor(driver)
            assert list(found) == ["GPU"]
            assert (found["GPU"]["level"], found["GPU"]["found"][:19]) == ("missing", "NVML shows no board")
            driver.kill()
            assert doctor(driver)["GPU"]["remedy"] == "`sudo modprobe nvidia`"

    def test_a_counters_refresh_is_measured_exactly_and_a_board_without_one_has_none(self, nvml_library: Path) -> None:
        boards = [{"model": "H100"}, {"model": "V100"}, {"model": "P100"}]
        with Driver(nvml_library, boards, clock="manual") as driver, Probe(driver) as probe:
            measured = [probe.ask("refresh", device["uuid"]) for device in probe.ask("open")]
        assert measured == [{"interval_ms": 100, "look_ms": 1}, {"interval_ms": 20, "look_ms": 1}, None]

    def test_eight_boards_are_each_told(self, nvml_library: Path) -> None:
        with Driver(nvml_library, [{"model": model} for model in ALL]) as driver:
            found = doctor(driver)
            uuids = driver.order("uuids")
        assert len(found) == 3 * len(ALL)
        for index, (model, uuid) in enumerate(zip(ALL, uuids, strict=True)):
            board = found[f"GPU {index}, {model}"]
            assert board["level"] == "ok"
            # How often depends on how busy the machine is that runs the test, up to not at all.
            assert re.fullmatch(
                rf"{uuid}, method counter: hardware energy counter, mJ, refresh[^;]+; "
                "power is its sensor's latest sample",
                board["found"],
            )
            assert "not held back" in found[f"GPU {index} state"]["found"]

    def test_who_may_not_set_limits_and_a_board_that_may_not_be_read_are_told(self, nvml_library: Path) -> None:
        with Driver(nvml_library, [{}, {}]) as driver:
            driver.order("fault", kind="forbidden", board=0)
            found = doctor(driver, user="somebody")
        assert found["GPU 0, H100"]["level"] == "missing"
        assert "tells neither energy nor power" in found["GPU 0, H100"]["found"]
        assert found["GPU 1, H100"]["level"] == "ok"
        assert found["GPU 1 power cap"]["found"] == "200 to 700 W, default 700 W; only root may set it"

    @pytest.mark.parametrize(("fault", "why"), [("lost", "GPU is lost"), ("failing", "Unknown Error")])
    def test_a_board_that_is_down_is_missing_and_the_other_is_told(
        self, nvml_library: Path, fault: str, why: str
    ) -> None:
        with Driver(nvml_library, [{}, {}]) as driver:
            driver.order("fault", kind=fault, board=0)
            found = doctor(driver)
        assert (found["GPU 0"]["level"], found["GPU 1, H100"]["level"]) == ("missing", "ok")
        assert found["GPU 0"]["found"].startswith(f"left out, the others are metered: {why}")
        assert found["GPU 0"]["remedy"].startswith("`nvidia-smi` says more")

    def test_slices_modules_and_old_boards_say_what_to_know(self, nvml_library: Path) -> None:
        boards = [{"model": "H200", "slices": ["MIG-a"]}, {"model": "GH200"}, {"model": "P100"}]
        with Driver(nvml_library, boards) as driver:
            found = doctor(driver)
        assert {found[what]["level"] for what in ("GPU 0, H200", "GPU 1, GH200-480GB", "GPU 2, P100")} == {"note"}
        assert found["GPU 0, H200"]["found"].endswith(
            "; MIG is on: the whole board is metered, and its figures are marked shared"
        )
        assert found["GPU 1, GH200-480GB"]["found"].endswith("; figures are the whole module's, its CPU included")
        assert "method integrated: no energy counter" in found["GPU 2, P100"]["found"]


@pytest.mark.parametrize(("fault", "why"), [("lost", "GPU is lost"), ("failing", "Unknown Error")])
def test_a_board_that_is_down_when_an_agent_starts_is_said_and_left_out_until_the_next_one_starts(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, why: str
) -> None:
    with Driver(nvml_library, [{}, {"model": "T4"}]) as driver:
        down, up = driver.order("uuids")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name in ("LD_LIBRARY_PATH", "FAKE_NVML_SOCKET"):
            monkeypatch.setenv(name, driver.environment[name])
        driver.order("fault", kind=fault, board=0)
        with running_agent(tmp_path, meter="nvml", node="n1") as agent:
            driver.order("clear")
            assert [device["uuid"] for device in agent.info["devices"]] == [up]
            assert agent.info["unmetered"]["GPU 0"].startswith(why)
            assert agent.errors.read_text().startswith(f"GPU 0 is left out: {why}")
            assert agent.count("wattledger_agent_read_errors_total") == 1
            with agent.connect() as connection, pytest.raises(InputError, match=r"'0'.*1 \(GPU-"):
                connection.ask("open", job_id="a", attempt=1, devices=["0"])
            with agent.connect() as connection:
                assert connection.ask("open", job_id="a", attempt=1, devices=["1"])["devices"] == [up]
            agent.child.release(timeout_s=10)
            assert {entry.device for entry in agent.entries()} == {up}
        with running_agent(tmp_path, meter="nvml", node="n1") as agent:
            assert [device["uuid"] for device in agent.info["devices"]] == [down, up]
            assert "GPU 0" not in agent.info["unmetered"]


NOTHING = [(1, 0, 0)]
"""A board that draws nothing: its counter stands, so that what it counted is known exactly."""


@pytest.mark.parametrize("fault", [None, "half", "lost"])
def test_an_agent_over_the_driver_books_the_counter_exactly_and_the_truth_with_it(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    boards = [{}, {"model": "P100"}, {"model": "A100-80GB", "slices": ["MIG-a", "MIG-b"]}]
    with Driver(nvml_library, boards) as driver:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name in ("LD_LIBRARY_PATH", "FAKE_NVML_SOCKET"):
            monkeypatch.setenv(name, driver.environment[name])
        driver.order("draw", board=0, pieces=NOTHING)
        wait_until(lambda: _stands(driver), what="the counter stands")
        before_mj = driver.order("counter", board=0, at_ns=driver.order("now"))
        with running_agent(tmp_path, meter="nvml") as agent:
            with agent.connect() as connection:
                lease = HeldLease(
                    connection,
                    job_id="a",
                    attempt=1,
                    devices=[driver.order("uuids")[0]],
                    cpus=1.0,
                    phase=Phase.LOAD,
                    power=Power(cap_watts=500.0),
                )
                assert driver.order("limit", board=0) == 500_000
                start_ns = driver.order("load", board=0, processes=BUSY)
                lease.set_phase(Phase.TRAIN)
                wait_until(lambda: driver.order("now") > start_ns + S // 2, what="half a second of load")
                if fault:
                    driver.order("fault", kind=fault, board=0)
                wait_until(lambda: driver.order("now") > start_ns + 6 * S // 5, what="the load's end")
                driver.order("clear")
                end_ns = driver.order("draw", board=0, pieces=NOTHING)
                wait_until(lambda: _stands(driver), what="the counter stands")
                lease.close()
            assert driver.order("limit", board=0) == 700_000
            agent.child.release(timeout_s=10)
            entries = agent.entries()
        after_mj = driver.order("counter", board=0, at_ns=driver.order("now"))
        true_mj = driver.order("truth", board=0, start_ns=start_ns, end_ns=end_ns) // 10**9
        counted = [entry for entry in entries if entry.model == "H100"]
        assert _total(counted) == after_mj - before_mj
        assert abs(after_mj - before_mj - true_mj) <= 1
        assert {entry.method for entry in counted} == {Method.COUNTER}
        # An edge falls between two refreshes, 100 ms apart: at 500 W no more than 50 J may be on its wrong side.
        assert abs(_total([entry for entry in counted if entry.job_id == "a"]) - true_mj) <= 50_000
        assert {entry.phase for entry in counted if entry.job_id} <= {Phase.LOAD, Phase.TRAIN}

        integrated = [entry for entry in entries if entry.model == "P100"]
        first_ns, last_ns = min(e.start_ns for e in integrated), max(e.end_ns for e in integrated)
        drawn_pj = driver.order("truth", board=1, start_ns=first_ns, end_ns=last_ns)
        assert {entry.method for entry in integrated} == {Method.INTEGRATED}
        assert abs(_total(integrated) - drawn_pj // 10**9) <= 1

        assert {entry.quality for entry in entries if entry.model == "A100-80GB"} == {frozenset({Quality.SHARED})}


def _stands(driver: Driver) -> bool:
    """Whether the first board's counter has caught up with a board that draws nothing."""
    now_ns = driver.order("now")
    recent_pj = driver.order("truth", board=0, start_ns=now_ns - S // 5, end_ns=now_ns)
    return bool(recent_pj == 0)


def _total(entries: list[EnergyEntry]) -> int:
    return sum(entry.energy_mj for entry in entries)
