"""NVIDIA boards through NVML: what they do not tell is unknown, what they say wrongly is not believed."""

from __future__ import annotations

from pathlib import Path

import pynvml
import pytest

from tests.fake_nvml import U32_NOT_AVAILABLE, U64_NOT_AVAILABLE, Board, FakeNvml
from tests.metering import START_NS, Clock
from workers.contract import Method, Power, Reading
from workers.errors import CapError, MeterError
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.meter import LimitRange
from workers.telemetry.node import NodeMeter
from workers.telemetry.nvml import ABSURD_MW, NvmlMeter, has_nvidia_device
from workers.telemetry.products import accelerator_type

FIRST, SECOND = "GPU-11111111-2222-3333-4444-555555555555", "GPU-99999999-2222-3333-4444-555555555555"


def meter(*boards: Board, visible: str | None = None, root: bool = True, as_bytes: bool = False) -> NvmlMeter:
    fake = FakeNvml(*boards, root=root, as_bytes=as_bytes)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    return NvmlMeter(clock_ns=Clock(), nvml=fake, environ=environ)


def test_a_driver_that_does_not_answer_is_an_error_never_a_simulation() -> None:
    with pytest.raises(MeterError, match=r"NVML does not answer: Driver Not Loaded\. Check that `nvidia-smi` works"):
        NvmlMeter(nvml=FakeNvml(driver=False), environ={})


def test_a_machine_without_boards_is_an_error() -> None:
    with pytest.raises(MeterError, match=r"NVML shows no board \(CUDA_VISIBLE_DEVICES=None\)\. Check `nvidia-smi -L`"):
        meter()


@pytest.mark.parametrize("visible", ["", "1", "GPU-8", "MIG-1", ",", "-1"])
def test_boards_that_are_not_visible_are_not_metered(visible: str) -> None:
    with pytest.raises(MeterError, match=rf"CUDA_VISIBLE_DEVICES='{visible}'"):
        meter(Board(), visible=visible)


def test_a_board_of_another_process_is_refused_by_name() -> None:
    for call in (lambda m: m.read("GPU-2"), lambda m: m.limit_range("GPU-2"), lambda m: m.set_limit("GPU-2", 1)):
        with pytest.raises(MeterError, match=f"GPU-2 is not a board of this node: {FIRST}"):
            call(meter(Board()))


FAILING = {"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_UNKNOWN}


def test_no_board_that_answers_is_an_error_with_what_each_says_and_lets_go_of_the_driver() -> None:
    fake = FakeNvml(Board(lost=True), Board(errors=FAILING))
    with pytest.raises(
        MeterError, match=rf"shows no board that answers \(GPU 0: GPU is lost; GPU 1: Unknown Error \({FIRST}\)\)"
    ):
        NvmlMeter(nvml=fake, environ={})
    assert not fake.running


def test_a_driver_that_goes_while_it_is_opened_is_an_error_and_no_board_is_blamed() -> None:
    gone = {"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}
    with pytest.raises(MeterError, match="NVML cannot be read: Driver Not Loaded"):
        meter(Board(), Board(uuid=SECOND, errors=gone))
    with pytest.raises(MeterError, match="NVML does not answer: Driver Not Loaded"):
        meter(Board(errors={"nvmlDeviceGetUUID": pynvml.NVML_ERROR_DRIVER_NOT_LOADED}), Board(uuid=SECOND))


@pytest.mark.parametrize(
    ("silent", "why"),
    [(Board(lost=True), "GPU is lost"), (Board(errors=FAILING), f"Unknown Error ({FIRST})")],
)
def test_a_board_that_does_not_answer_at_the_start_is_left_out_and_the_others_keep_their_index(
    silent: Board, why: str
) -> None:
    opened = meter(silent, Board(uuid=SECOND))
    assert opened.silent == {"GPU 0": why}
    assert [(device.uuid, device.index) for device in opened.devices()] == [(SECOND, 1)]
    assert opened.read(SECOND).energy_mj == 1_000_000


@pytest.mark.parametrize(
    ("visible", "silent"),
    [("0,1", ["GPU 0"]), ("1", []), (SECOND, []), (f"{SECOND},GPU-3", ["GPU 0"]), (f"{SECOND},-1", [])],
)
def test_a_silent_board_of_somebody_else_is_not_spoken_of(visible: str, silent: list[str]) -> None:
    assert list(meter(Board(lost=True), Board(uuid=SECOND), visible=visible).silent) == silent


def test_a_lost_board_cannot_be_read_and_the_others_can() -> None:
    lost, fine = Board(), Board(uuid=SECOND)
    both = meter(lost, fine)
    lost.lost = True
    with pytest.raises(MeterError, match=r"NVML cannot be read: GPU is lost\. Check `nvidia-smi`"):
        both.read(FIRST)
    assert both.read(SECOND).energy_mj == 1_000_000


@pytest.mark.parametrize(
    "silent",
    [
        Board(energy_mj=None, instant_mw=None, average_mw=None),
        Board(energy_mj=U64_NOT_AVAILABLE, instant_mw=U32_NOT_AVAILABLE, average_mw=U32_NOT_AVAILABLE),
    ],
    ids=["unsupported", "sentinels"],
)
def test_a_board_that_tells_neither_energy_nor_power_cannot_be_metered(silent: Board) -> None:
    with pytest.raises(MeterError, match=rf"{FIRST} tells neither energy nor power\. Check `nvidia-smi -q"):
        meter(silent).read(FIRST)


@pytest.mark.parametrize("sentinel", [2**63 - 1, 2**63, U64_NOT_AVAILABLE, 2**62])
def test_a_sentinel_is_no_energy(sentinel: int) -> None:
    assert meter(Board(energy_mj=sentinel)).read(FIRST).energy_mj is None


def test_a_sentinel_is_no_power_and_no_limit() -> None:
    board = Board(instant_mw=U32_NOT_AVAILABLE, enforced_mw=U32_NOT_AVAILABLE)
    assert meter(board).read(FIRST).power_mw == 250_000
    board.average_mw = U32_NOT_AVAILABLE
    reading = meter(board).read(FIRST)
    assert (reading.energy_mj, reading.power_mw, reading.limit_mw) == (1_000_000, None, None)


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_DATA,
    ],
)
def test_what_a_board_or_an_old_driver_does_not_offer_is_unknown(code: int) -> None:
    functions = (
        "nvmlDeviceGetTotalEnergyConsumption",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetEnforcedPowerLimit",
    )
    read = meter(Board(errors=dict.fromkeys(functions, code))).read(FIRST)
    assert read == Reading(device=FIRST, time_ns=START_NS, energy_mj=None, power_mw=250_000)


def test_a_board_without_limits_cannot_be_capped() -> None:
    with pytest.raises(CapError, match=rf"{FIRST} has no settable power limit\. Remove power from the manifest"):
        meter(Board(range_mw=None)).limit_range(FIRST)


def test_only_root_may_set_a_limit() -> None:
    board = Board()
    with pytest.raises(CapError, match=rf"{FIRST} cannot be set: Insufficient Permissions\. Only root may set it: run"):
        meter(board, root=False).set_limit(FIRST, 300_000)
    assert board.limit_mw == 650_000


def test_a_limit_out_of_range_is_refused_by_the_board_itself() -> None:
    board = Board()
    with pytest.raises(CapError, match="cannot be set: Invalid Argument"):
        meter(board).set_limit(FIRST, 1)
    assert board.limit_mw == 650_000


def test_a_reading_is_the_counter_the_instantaneous_power_and_the_enforced_limit() -> None:
    assert meter(Board(enforced_mw=500_000)).read(FIRST) == Reading(
        device=FIRST, time_ns=START_NS, energy_mj=1_000_000, power_mw=300_000, limit_mw=500_000, utilization=0.75
    )


def test_an_idle_reading_of_zero_is_a_zero() -> None:
    reading = meter(Board(energy_mj=0, instant_mw=0, busy_percent=0)).read(FIRST)
    assert (reading.energy_mj, reading.power_mw, reading.utilization) == (0, 0, 0.0)


def test_without_the_instantaneous_field_the_average_serves() -> None:
    assert meter(Board(instant_mw=None)).read(FIRST).power_mw == 250_000


def test_the_method_of_a_board_is_what_it_offers() -> None:
    both = meter(Board(), Board(uuid=SECOND, name="Tesla P100-PCIE-16GB", energy_mj=None))
    assert [(d.uuid, d.index, d.model, d.method) for d in both.devices()] == [
        (FIRST, 0, "H100", Method.COUNTER),
        (SECOND, 1, "P100", Method.INTEGRATED),
    ]
    assert both.speed(FIRST) is None


@pytest.mark.parametrize("visible", ["1", SECOND, "GPU-9999", "7, 1 ", f"{SECOND},MIG-1"])
def test_visible_devices_may_be_indices_or_uuids_or_their_beginnings(visible: str) -> None:
    (device,) = meter(Board(), Board(uuid=SECOND), visible=visible).devices()
    assert (device.uuid, device.index) == (SECOND, 1)


def test_old_versions_of_the_module_answer_in_bytes() -> None:
    (device,) = meter(Board(), as_bytes=True).devices()
    assert (device.uuid, device.model) == (FIRST, "H100")


def test_limits_are_read_and_set() -> None:
    board = Board()
    capped = meter(board)
    assert capped.limit_range(FIRST) == LimitRange(min_mw=200_000, max_mw=700_000, default_mw=700_000, set_mw=650_000)
    capped.set_limit(FIRST, 300_000)
    assert board.limit_mw == 300_000


def test_a_node_puts_back_the_limit_that_was_set_not_the_maximum_nor_the_one_enforced() -> None:
    board, clock = Board(enforced_mw=500_000), Clock()
    node = NodeMeter(NvmlMeter(clock_ns=clock, nvml=FakeNvml(board), environ={}), node="n1", clock_ns=clock)
    lease = node.open(
        LeaseRequest(job_id="a", attempt=1, devices=("0",), pid=7, cpus=1.0, power=Power(cap_percent=50.0))
    )
    assert board.limit_mw == 350_000
    node.close(lease.lease_id)
    assert board.limit_mw == 650_000


def test_closing_twice_or_after_the_driver_is_harmless() -> None:
    fake = FakeNvml(Board())
    opened = NvmlMeter(nvml=fake, environ={})
    opened.close()
    assert not fake.running
    opened.close()
    with pytest.raises(MeterError, match="Uninitialized"):
        opened.read(FIRST)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H200 NVL", "H200"),
        ("NVIDIA GH200 480GB", "GH200-480GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("A100-PCIE-40GB", "A100-40GB"),
        ("NVIDIA A100X", "A100X"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla V100S-PCIE-32GB", "V100"),
        ("Tesla P100-PCIE-16GB", "P100"),
        ("Tesla K80", "K80"),
        ("Tesla T4", "T4"),
        ("NVIDIA T400 4GB", "T400-4GB"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40", "L40"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A40", "A40"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("GeForce GTX 1080 Ti", "GTX-1080-Ti"),
        ("NVIDIA RTX A4000", "RTX-A4000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX-6000-Ada-Generation"),
    ],
)
def test_product_names_become_accelerator_types(name: str, model: str) -> None:
    assert accelerator_type(name) == model


def test_a_device_is_seen_by_its_node_whether_or_not_a_library_is_installed(tmp_path: Path) -> None:
    assert not has_nvidia_device(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    assert has_nvidia_device(tmp_path)


def test_a_counter_that_grows_faster_than_any_board_draws_is_not_believed_until_it_is_possible_again() -> None:
    board, clock = Board(), Clock()
    opened = NvmlMeter(clock_ns=clock, nvml=FakeNvml(board), environ={})
    board.energy_mj = 1_000_000 + ABSURD_MW
    assert opened.read(FIRST).energy_mj == 11_000_000
    board.energy_mj += ABSURD_MW + 1
    assert (opened.read(FIRST).energy_mj, opened.read(FIRST).power_mw) == (None, 300_000)
    board.energy_mj = 12_000_000
    assert opened.read(FIRST).energy_mj == 12_000_000
    board.energy_mj = 5
    assert opened.read(FIRST).energy_mj == 5


def test_a_counter_is_believed_again_soon_after_a_clock_was_set_back() -> None:
    board, clock = Board(), Clock()
    opened = NvmlMeter(clock_ns=clock, nvml=FakeNvml(board), environ={})
    opened.read(FIRST)
    clock.pass_ms(-3_600_000)
    # Nobody looked for a minute, in which it drew 1 kW.
    board.energy_mj += 60_000_000
    assert opened.read(FIRST).energy_mj is None
    clock.pass_ms(10_000)
    assert opened.read(FIRST).energy_mj == 61_000_000


@pytest.mark.parametrize("absurd", [ABSURD_MW, U32_NOT_AVAILABLE])
def test_a_power_no_board_draws_is_unknown(absurd: int) -> None:
    board = Board()
    opened = meter(board)
    board.instant_mw = board.average_mw = absurd
    assert opened.read(FIRST).power_mw is None


def test_a_counter_that_fails_leaves_the_power_and_is_back_when_it_answers() -> None:
    board = Board()
    opened = meter(board)
    board.errors = {"nvmlDeviceGetTotalEnergyConsumption": pynvml.NVML_ERROR_UNKNOWN}
    assert (opened.read(FIRST).energy_mj, opened.read(FIRST).power_mw) == (None, 300_000)
    board.errors = {}
    assert opened.read(FIRST).energy_mj == 1_000_000


def test_a_board_that_comes_back_is_found_by_its_uuid() -> None:
    board = Board()
    opened = meter(board)
    board.lost = True
    for _ in range(2):
        with pytest.raises(MeterError, match="GPU is lost"):
            opened.read(FIRST)
    board.lost = False
    assert opened.read(FIRST).energy_mj == 1_000_000


@pytest.mark.parametrize(
    ("name", "architecture", "window_ms"),
    [
        ("NVIDIA H100 80GB HBM3", pynvml.NVML_DEVICE_ARCH_HOPPER, 1000),
        ("NVIDIA A40", pynvml.NVML_DEVICE_ARCH_AMPERE, 1000),
        ("NVIDIA A100-SXM4-80GB", pynvml.NVML_DEVICE_ARCH_AMPERE, 0),
        ("Tesla T4", pynvml.NVML_DEVICE_ARCH_TURING, 0),
    ],
)
def test_what_a_plain_power_reading_is_averaged_over_is_told_with_the_board(
    name: str, architecture: int, window_ms: int
) -> None:
    plain = meter(Board(name=name, architecture=architecture, instant_mw=None))
    assert [device.power_window_ms for device in plain.devices()] == [window_ms]
    assert [device.power_window_ms for device in meter(Board(name=name)).devices()] == [0]


def test_limit_and_utilisation_are_asked_for_once_a_second_and_after_a_limit_was_set() -> None:
    board, clock = Board(), Clock()
    watched = NvmlMeter(clock_ns=clock, nvml=FakeNvml(board), environ={})
    seen = []
    for now_percent in range(15):
        board.busy_percent, board.enforced_mw = now_percent, 600_000 + now_percent
        reading = watched.read(FIRST)
        seen.append((reading.utilization, reading.limit_mw))
        clock.pass_ms(100)
    assert seen == [(0.0, 600_000)] * 10 + [(0.1, 600_010)] * 5
    board.enforced_mw = None
    watched.set_limit(FIRST, 500_000)
    assert watched.read(FIRST).limit_mw == 500_000


def test_a_clock_that_is_set_back_makes_no_limit_old_news() -> None:
    board, clock = Board(limit_mw=650_000), Clock()
    watched = NvmlMeter(clock_ns=clock, nvml=FakeNvml(board), environ={})
    watched.read(FIRST)
    clock.pass_ms(-3_600_000)
    board.limit_mw = 300_000
    assert watched.read(FIRST).limit_mw == 300_000


class TestSense:
    """A look at the counter is dear, one at the power is not."""

    def test_a_board_that_does_not_tell_its_power_just_now_is_an_error(self) -> None:
        board = Board(instant_mw=300_000)
        found = meter(board)
        board.errors = dict.fromkeys(
            ("nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"), pynvml.NVML_ERROR_NOT_SUPPORTED
        )
        with pytest.raises(MeterError, match=rf"{FIRST} does not tell its power just now\. Check `nvidia-smi"):
            found.sense(FIRST)

    def test_a_board_that_is_lost_is_an_error(self) -> None:
        board = Board()
        found = meter(board)
        board.lost = True
        with pytest.raises(MeterError, match="GPU is lost"):
            found.sense(FIRST)

    @pytest.mark.parametrize("board", [Board(energy_mj=None), Board(instant_mw=None, average_mw=None)])
    def test_where_power_or_counter_stands_alone_every_look_is_at_it(self, board: Board) -> None:
        (device,) = meter(board).devices()
        assert device.count_every_ms == 0

    def test_power_is_told_while_the_counter_is_not_even_asked(self) -> None:
        board = Board()
        found = meter(board)
        (device,) = found.devices()
        board.errors = dict(FAILING)
        told = found.sense(FIRST)
        assert device.count_every_ms == 1000
        assert (told.energy_mj, told.power_mw, told.limit_mw, told.utilization) == (None, 300_000, 650_000, 0.75)
