"""What every ``PowerMeter`` must do, as tests a class inherits and gives a meter to.

class TestMyMeter(MeterContract):
    @pytest.fixture
    def metered(self) -> Metered: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.metering import START_NS
from workers.contract import Lease, Method
from workers.errors import CapError, MeterError, UnknownNameError
from workers.telemetry.meter import LimitRange, PowerMeter, find_device

NOBODY = "no-such-device"


@dataclass(frozen=True, kw_only=True)
class Metered:
    """A meter that has just been made, and ``live``, which lets some time pass in which every device draws energy."""

    meter: PowerMeter
    live: Callable[[], None]


class MeterContract:
    """Inherit, and give ``metered``."""

    def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(self, metered: Metered) -> None:
        for ask in (metered.meter.read, metered.meter.sense, metered.meter.process_use, metered.meter.limit_range):
            with pytest.raises(MeterError, match=NOBODY) as error:
                ask(NOBODY)
            assert metered.meter.devices()[0].uuid in str(error.value)
        with pytest.raises(MeterError, match=NOBODY):
            metered.meter.set_limit(NOBODY, 100_000)

    def test_devices_are_the_same_at_every_call_and_each_is_named_once(self, metered: Metered) -> None:
        devices = metered.meter.devices()
        metered.live()
        metered.meter.read(devices[0].uuid)
        assert metered.meter.devices() == devices != ()
        assert len({device.uuid for device in devices}) == len(devices)
        assert len({(device.kind, device.index) for device in devices}) == len(devices)
        assert all(device.model for device in devices)

    def test_how_long_a_device_may_go_unread_is_told_and_no_shorter_than_a_sampler_is_late(
        self, metered: Metered
    ) -> None:
        assert all(device.gap_ms >= 2000 for device in metered.meter.devices())

    def test_a_reading_is_of_its_device_and_of_a_time_that_goes_on(self, metered: Metered) -> None:
        for device in metered.meter.devices():
            before = metered.meter.read(device.uuid)
            metered.live()
            after = metered.meter.read(device.uuid)
            assert before.device == after.device == device.uuid
            assert START_NS <= before.time_ns < after.time_ns

    def test_a_counter_is_in_whole_millijoules_and_only_grows(self, metered: Metered) -> None:
        for device in metered.meter.devices():
            if device.method is Method.INTEGRATED:
                continue
            seen = []
            for _ in range(4):
                energy_mj = metered.meter.read(device.uuid).energy_mj
                assert isinstance(energy_mj, int)
                seen.append(energy_mj)
                metered.live()
            assert seen == sorted(seen)
            assert seen[0] < seen[-1]

    def test_where_a_look_at_the_counter_is_dear_power_is_told_without(self, metered: Metered) -> None:
        for device in metered.meter.devices():
            before = metered.meter.read(device.uuid)
            metered.live()
            sensed = metered.meter.sense(device.uuid)
            assert sensed.device == device.uuid
            assert sensed.time_ns > before.time_ns
            if device.count_every_ms:
                assert sensed.energy_mj is None
                assert sensed.power_mw is not None
            else:
                assert (sensed.energy_mj is None) == (before.energy_mj is None)

    def test_figures_are_possible_or_unknown(self, metered: Metered) -> None:
        metered.live()
        for device in metered.meter.devices():
            reading = metered.meter.read(device.uuid)
            assert reading.power_mw is None or reading.power_mw >= 0
            assert reading.limit_mw is None or reading.limit_mw > 0
            assert reading.utilization is None or 0 <= reading.utilization <= 1
            assert (reading.energy_mj, reading.power_mw) != (None, None)

    def test_use_by_process_begins_with_the_first_call_or_is_not_known(self, metered: Metered) -> None:
        for device in metered.meter.devices():
            metered.live()
            begun = metered.meter.process_use(device.uuid)
            metered.live()
            used = metered.meter.process_use(device.uuid)
            assert (begun is None) == (used is None)
            if begun is not None and used is not None:
                assert not any(begun.values())
                assert all(pid > 0 and isinstance(busy_ns, int) and busy_ns >= 0 for pid, busy_ns in used.items())

    def test_a_limit_can_be_set_within_its_range_or_not_at_all(self, metered: Metered) -> None:
        for device in metered.meter.devices():
            limits = limits_of(metered.meter, device.uuid)
            if limits is None:
                with pytest.raises(CapError, match=device.uuid):
                    metered.meter.set_limit(device.uuid, 100_000)
                continue
            assert limits.min_mw <= limits.set_mw <= limits.max_mw
            for outside in (limits.min_mw - 1, limits.max_mw + 1):
                with pytest.raises(CapError):
                    metered.meter.set_limit(device.uuid, outside)
            metered.meter.set_limit(device.uuid, limits.set_mw)
            assert limits_of(metered.meter, device.uuid) == limits
            metered.meter.set_limit(device.uuid, limits.min_mw)
            lowered = limits_of(metered.meter, device.uuid)
            assert lowered is not None
            assert lowered.set_mw == limits.min_mw

    def test_leases_come_and_go_and_an_unknown_one_may_leave(self, metered: Metered) -> None:
        gpus = tuple(device.uuid for device in metered.meter.devices() if device.kind == "gpu")
        lease = Lease(lease_id="l", job_id="j", attempt=1, devices=gpus, pid=7, cpus=1.0, opened_ns=START_NS)
        metered.meter.detach(lease)
        metered.meter.attach(lease)
        metered.live()
        metered.meter.detach(lease)

    def test_only_a_device_that_is_not_here_has_a_pace(self, metered: Metered) -> None:
        for device in metered.meter.devices():
            is_here = device.method not in (Method.SIMULATED, Method.REPLAYED)
            assert (metered.meter.speed(device.uuid) is None) == is_here

    def test_a_launchers_token_never_means_a_device_of_the_host(self, metered: Metered) -> None:
        devices = metered.meter.devices()
        for device in devices:
            if device.kind == "gpu":
                assert find_device(devices, device.uuid) is device
                assert find_device(devices, str(device.index)) is device
            else:
                with pytest.raises(UnknownNameError):
                    find_device(devices, device.uuid)

    def test_it_lets_go(self, metered: Metered) -> None:
        metered.meter.close()


def limits_of(meter: PowerMeter, device: str) -> LimitRange | None:
    """The device's limits; ``None`` when it has none to set."""
    try:
        return meter.limit_range(device)
    except CapError:
        return None
