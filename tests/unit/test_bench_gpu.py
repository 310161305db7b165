"""What the GPU benchmark computes, and that it runs; what a real board says is for it to save, not a test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from tests.bench import bench_gpu
from tests.bench.bench_gpu import QWEN, TRIAL, steps_of
from tests.bench.gpu_results import IDLE, NO_BOARD, beside_counter
from tests.bench.nvml_look import Board, Look
from tests.fake_nvml import Board as FakeBoard
from tests.fake_nvml import FakeNvml
from tests.unit.ledger import at, entry
from workers.contract import Quality


class Moving(FakeNvml):
    """A driver whose board's counter moves at every third look, and which tells what the meter never asks for."""

    looks = 0

    def nvmlDeviceGetTotalEnergyConsumption(self, board: FakeBoard) -> int:  # noqa: N802
        self.looks += 1
        return 1_000_000 + 8_000 * (self.looks // 3)

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "580.159.04"

    def nvmlDeviceGetPersistenceMode(self, board: FakeBoard) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetEccMode(self, board: FakeBoard) -> list[int]:  # noqa: N802
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetMaxClockInfo(self, board: FakeBoard, clock: int) -> int:  # noqa: N802
        return 1980

    def nvmlDeviceGetComputeRunningProcesses(self, board: FakeBoard) -> list[SimpleNamespace]:  # noqa: N802
        return [SimpleNamespace(pid=7), SimpleNamespace(pid=8)]

    def nvmlDeviceGetFieldValues(self, board: FakeBoard, fields: list[int]) -> list[SimpleNamespace]:  # noqa: N802
        return super().nvmlDeviceGetFieldValues(board, [(name, 0) for name in fields])


def test_an_entry_across_a_look_counts_in_part_and_idle_is_told_apart() -> None:
    entries = [
        entry(0.0, 10.0, 1000, job_id="a"),
        entry(10.0, 12.0, 100, job_id="b", quality=frozenset({Quality.SHARED})),
        replace(entry(12.0, 20.0, 800), job_id=None, attempt=None),
    ]
    found = beside_counter(entries, (at(5.0), 7_000_000), (at(16.0), 8_010_000))
    assert found["booked_j"] == {"a": 500.0, "b": 100.0, IDLE: 400.0}
    assert (found["counter_j"], found["total_booked_j"]) == (1010.0, 1000.0)
    assert found["difference_percent"] == pytest.approx(-100 * 10 / 1010)
    assert found["quality"] == ["fallback", "shared"]
    assert found["duration_s"] == 11.0


def test_against_a_counter_that_stood_still_there_is_no_percentage() -> None:
    assert beside_counter([entry(0.0, 1.0, 1)], (at(0.0), 5), (at(1.0), 5))["difference_percent"] is None


def test_a_look_at_the_edge_is_of_the_moment_the_counter_moved() -> None:
    board = Board(nvml=Moving(FakeBoard()))
    first, second = board.at_edge(), board.at_edge()
    assert isinstance(first, Look)
    assert (first.energy_mj, second.energy_mj) == (1_008_000, 1_016_000)
    assert first.time_ns < second.time_ns


def test_a_board_is_named_with_driver_and_limit_and_what_it_does_not_tell_is_null() -> None:
    facts = Board(nvml=Moving(FakeBoard(name="NVIDIA H200", limit_mw=650_000))).facts()
    assert (facts["name"], facts["driver"], facts["power_limit_w"]) == ("NVIDIA H200", "580.159.04", 650.0)
    assert facts["ecc"] is None


def test_what_was_seen_while_it_worked_is_the_most_of_every_look() -> None:
    nvml = Moving(board := FakeBoard(used_gib=3, reasons=4, sm_clock_mhz=1500))
    with Board(nvml=nvml).watched(every_s=60) as watch:
        assert board.used_gib == 3
    assert watch.told() == {
        "looks": 1,
        "memory_peak_gib": 3.0,
        "sm_clock_mhz_median": 1500,
        "sm_clock_mhz_least": 1500,
        "power_w_most": 300.0,
        "throttle_bits": "0x4",
        "processes": 2,
    }


def test_the_model_has_half_a_billion_weights() -> None:
    hidden, wide = int(QWEN["hidden_size"]), int(QWEN["intermediate_size"])
    heads = int(QWEN["num_key_value_heads"]) * hidden // int(QWEN["num_attention_heads"])
    attention = 2 * hidden * hidden + 2 * hidden * heads + hidden + 2 * heads
    layer = attention + 3 * hidden * wide + 2 * hidden
    assert int(QWEN["vocab_size"]) * hidden + int(QWEN["num_hidden_layers"]) * layer + hidden == 494_032_768


def test_every_job_of_a_step_has_a_name_of_its_own_and_the_shared_board_is_not_overbooked() -> None:
    steps = steps_of(Path("/model"), TRIAL)
    names = [spec.job_id for specs in steps.values() for spec in specs]
    assert len(set(names)) == len(names)
    assert all(sum(spec.resources.gpus for spec in specs) == 1 for specs in steps.values())


@pytest.mark.heavy
def test_it_runs_without_a_gpu_and_says_that_no_board_was_metered(tmp_path: Path) -> None:
    home = ["--home", str(tmp_path / "home")]
    bench_gpu.main(["--small", "--meter", "simulated:H200", "--only", "ask-4bit,two share", *home])
    bench_gpu.main(["--report", str(tmp_path / "home"), "--save", str(tmp_path / "saved")])
    (run,) = json.loads((tmp_path / "saved/gpu.json").read_text())
    assert {job_id: job["row"]["state"] for job_id, job in run["jobs"].items()} == dict.fromkeys(
        ("ask-4bit", "half-a", "half-b"), "succeeded"
    )
    assert {job["row"]["energy_method"] for job in run["jobs"].values()} == {"simulated"}
    text = (tmp_path / "saved/gpu.txt").read_text()
    assert NO_BOARD in text
    assert str(tmp_path) not in json.dumps(run)
