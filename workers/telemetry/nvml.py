"""NVIDIA boards through NVML.

The hardware energy counter comes first (``nvmlDeviceGetTotalEnergyConsumption``, mJ, Volta and later). Power is asked
for explicitly (``NVML_FI_DEV_POWER_INSTANT``), because ``nvmlDeviceGetPowerUsage`` is a one-second average on Ampere
and later; which of them a board answers is settled once, when it is opened, and told with the device. A MIG board is
metered whole, since its slices have neither power nor energy. On Grace Hopper the figures are the whole module's, as
the counter's are said to be (ml-energy/zeus), and power is asked for in the same scope.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pynvml

from workers.contract import Device, Lease, Method, Quality, Reading
from workers.errors import CapError, MeterError
from workers.telemetry.meter import LimitRange
from workers.telemetry.nvml_driver import NvmlDriver, text
from workers.telemetry.nvml_use import ProcessUse
from workers.telemetry.products import accelerator_type
from workers.units import NS_PER_S

ABSURD_MJ = 2**62
"""NVML's 64-bit sentinels lie above this; a counter that large would be 146,000 years at 1 kW."""
ABSURD_MW = 10_000_000
"""10 kW: no board or module draws a third of that, so a power or a growth of the counter above it is no reading."""
COUNT_EVERY_MS = 1000
"""A look at the counter took the driver 3.8 ms of CPU on an H200 (580.159.04), all other questions under 0.03 ms each:
ten looks a second at each of eight boards would be a third of a core."""
AVERAGE_MS = 1000
"""What ``nvmlDeviceGetPowerUsage`` is averaged over on Ampere and later, but for GA100 (NVML's reference)."""
BESIDE_NS = NS_PER_S
"""How long limit and utilisation are told again before they are asked anew: no joule depends on them, the driver
samples utilisation every 1/6 s to 1 s, and a limit changes by somebody's hand."""
THROTTLE = {
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "heat, by software",
    0x40: "heat, by hardware",
    0x80: "power brake",
    0x100: "display clocks",
}
"""NVML's clocks event reasons but for 0x1, which is an idle board."""


def has_nvidia_device(root: Path = Path("/")) -> bool:
    """Whether the kernel shows an NVIDIA device, driver library or not."""
    return (root / "dev/nvidiactl").exists() or (root / "dev/nvidia0").exists()


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """How a board is, beside what it draws; ``None`` is what it does not tell.

    Attributes:
        memory_used_bytes: of ``memory_total_bytes``.
        temperature_c: of the chip, degrees Celsius; ``sm_clock_mhz``: what its multiprocessors run at.
        throttle: what holds its clocks back; empty: nothing does.
    """

    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_c: int | None
    sm_clock_mhz: int | None
    throttle: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Beside:
    """What a reading tells beside energy and power, as it was at ``asked_ns``."""

    asked_ns: int
    limit_mw: int | None
    utilization: float | None


class NvmlMeter:
    """The NVIDIA boards this process may see. Behaves as ``PowerMeter`` says.

    ``CUDA_VISIBLE_DEVICES`` limits the boards, since a node's launcher divides a machine with it. A board that does not
    answer when it is opened is left out for the life of this meter: how its joules are obtained is settled then.

    Attributes:
        silent: each of those (``GPU 3``, by NVML index), to why: a clause.

    Raises:
        MeterError: no driver, or no board that answers.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        environ: Mapping[str, str] = os.environ,
        nvml: Any = pynvml,  # noqa: ANN401 - the module itself is the port
    ) -> None:
        self._clock_ns, self._nvml = clock_ns, nvml
        self._driver = NvmlDriver(clock_ns=clock_ns, nvml=nvml)
        self._instant_field = {
            "board": [(nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_POWER_SCOPE_GPU)],
            "module": [(nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_POWER_SCOPE_MODULE)],
        }
        self._believed: dict[str, tuple[int, int]] = {}
        self._beside: dict[str, _Beside] = {}
        self._uses: dict[str, ProcessUse] = {}
        chosen = environ.get("CUDA_VISIBLE_DEVICES")
        visible = None if chosen is None else self._boards_of(chosen)
        self.silent: dict[str, str] = {}
        self._devices = tuple(self._open(visible))
        self._boards = {device.uuid: device for device in self._devices}
        if not self._devices:
            self._driver.close()
            silent = "; ".join(f"{board}: {why}" for board, why in self.silent.items())
            found = f"NVML shows no board that answers ({silent})" if silent else "NVML shows no board"
            raise MeterError(f"{found} (CUDA_VISIBLE_DEVICES={chosen!r}). Check `nvidia-smi -L`.")

    def _open(self, visible: Sequence[str] | None) -> Iterator[Device]:
        """The visible boards that answer; why the others do not is noted.

        Raises:
            MeterError: the driver is gone.
        """
        uuids = self._driver.uuids
        for index, why in self._driver.silent.items():
            if visible is None or _may_be_visible(index, visible, uuids.values()):
                self.silent[f"GPU {index}"] = why
        for index, uuid in uuids.items():
            if visible is not None and not _is_visible(index, uuid, visible):
                continue
            try:
                yield self._describe(index, uuid)
            except MeterError as error:
                if self._driver.is_gone:
                    raise
                self.silent[f"GPU {index}"] = f"{error.__cause__ or error} ({uuid})"

    def _boards_of(self, chosen: str) -> list[str]:
        """The tokens of ``CUDA_VISIBLE_DEVICES``, a MIG slice (``MIG-…``) as the board it is cut from."""
        tokens = [token.strip() for token in chosen.split(",")]
        return [(self._driver.parent(token) or token) if token.startswith("MIG-") else token for token in tokens]

    def _describe(self, index: int, uuid: str) -> Device:
        name = text(self._driver.ask(uuid, "nvmlDeviceGetName"))
        c2c = self._driver.ask(uuid, "nvmlDeviceGetC2cModeInfoV")
        slices = self._driver.ask(uuid, "nvmlDeviceGetMigMode")
        device = Device(
            uuid=uuid,
            index=index,
            model=accelerator_type(name),
            method=Method.INTEGRATED if self._counted_mj(uuid) is None else Method.COUNTER,
            scope="module" if c2c is not None and c2c.isC2cEnabled else "board",
            quality=frozenset({Quality.SHARED}) if slices is not None and slices[0] else frozenset(),
        )
        window_ms = self._power_window_ms(device, name)
        # A board that tells no power is known by its counter alone, and one without a counter has none to look at.
        is_followed = device.method is Method.COUNTER and window_ms is not None
        return replace(device, power_window_ms=window_ms, count_every_ms=COUNT_EVERY_MS if is_followed else 0)

    def _power_window_ms(self, device: Device, name: str) -> int | None:
        """What the board's power readings are averaged over; ``None``: it does not tell its power."""
        if self._instant_mw(device) is not None:
            return 0
        if self._driver.ask(device.uuid, "nvmlDeviceGetPowerUsage") is None:
            return None
        architecture = self._driver.ask(device.uuid, "nvmlDeviceGetArchitecture") or 0
        is_averaged = architecture >= self._nvml.NVML_DEVICE_ARCH_AMPERE and not re.search(r"\bA(100|800|30)\b", name)
        return AVERAGE_MS if is_averaged else 0

    def devices(self) -> tuple[Device, ...]:
        """The visible boards, by NVML index."""
        return self._devices

    def read(self, device: str) -> Reading:
        """Counter and power now, limit and utilisation of the last second; one figure that fails leaves the others."""
        board, counted, power, failure = self._board(device), None, None, None
        asked_ns = self._clock_ns()
        try:
            counted = self._counted_mj(device)
        except MeterError as error:
            failure = error
        # On a busy host the answer may be a while on its way.
        time_ns = asked_ns + (self._clock_ns() - asked_ns) // 2
        energy = None if counted is None else self._believe(device, counted, time_ns)
        try:
            power = self._power_mw(board)
        except MeterError as error:
            failure = failure or error
        if energy is None and power is None:
            silent = f"{device} tells neither energy nor power. Check `nvidia-smi -q -d POWER -i {device}`."
            raise failure or MeterError(silent)
        return self._reading(device, time_ns, energy_mj=energy, power_mw=power)

    def sense(self, device: str) -> Reading:
        """Power now, and the rest as ``read`` tells it."""
        board, asked_ns = self._board(device), self._clock_ns()
        power = self._power_mw(board)
        if power is None:
            raise MeterError(f"{device} does not tell its power just now. Check `nvidia-smi -q -d POWER -i {device}`.")
        time_ns = asked_ns + (self._clock_ns() - asked_ns) // 2
        return self._reading(device, time_ns, energy_mj=None, power_mw=power)

    def _reading(self, device: str, time_ns: int, *, energy_mj: int | None, power_mw: int | None) -> Reading:
        beside = self._beside.get(device)
        if beside is None or not 0 <= time_ns - beside.asked_ns < BESIDE_NS:
            beside = self._beside[device] = self._ask_beside(device, time_ns)
        return Reading(
            device=device,
            time_ns=time_ns,
            energy_mj=energy_mj,
            power_mw=power_mw,
            limit_mw=beside.limit_mw,
            utilization=beside.utilization,
        )

    def _ask_beside(self, device: str, time_ns: int) -> _Beside:
        limit, rates = None, None
        with contextlib.suppress(MeterError):
            rates = self._driver.ask(device, "nvmlDeviceGetUtilizationRates")
        with contextlib.suppress(MeterError):
            limit = self._driver.ask(device, "nvmlDeviceGetEnforcedPowerLimit")
        return _Beside(
            asked_ns=time_ns,
            limit_mw=_sane(limit, ABSURD_MW),
            utilization=rates.gpu / 100 if rates is not None and rates.gpu <= 100 else None,
        )

    def process_use(self, device: str) -> Mapping[int, int] | None:
        """By the driver's samples, see ``nvml_use``; ``None`` on a board in slices, or that takes no samples."""
        if Quality.SHARED in self._board(device).quality:
            return None
        now_ns = self._clock_ns()
        use = self._uses.setdefault(device, ProcessUse(asked_ns=now_ns))
        if not use.is_due(now_ns):
            return use.take((), now_ns) if use.is_told else None
        samples = self._driver.listed(device, "nvmlDeviceGetProcessUtilization", use.since_us(now_ns))
        use.is_told = samples is not None
        return None if samples is None else use.take(samples, now_ns)

    def condition(self, device: str) -> Condition:
        """Memory, temperature, clock and what holds it back.

        Four calls that no joule depends on, so they are not part of every reading.

        Raises:
            MeterError: the board cannot be asked.
        """
        self._board(device)
        memory = self._driver.ask(device, "nvmlDeviceGetMemoryInfo")
        reasons = self._driver.ask(device, "nvmlDeviceGetCurrentClocksThrottleReasons")
        return Condition(
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            temperature_c=self._driver.ask(device, "nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            sm_clock_mhz=self._driver.ask(device, "nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            throttle=None if reasons is None else tuple(why for bit, why in THROTTLE.items() if reasons & bit),
        )

    def _counted_mj(self, uuid: str) -> int | None:
        counted = self._driver.ask(uuid, "nvmlDeviceGetTotalEnergyConsumption")
        return None if counted is None else int(counted)

    def _believe(self, device: str, counted_mj: int, time_ns: int) -> int | None:
        """The counter, unless it is a sentinel or grew faster than any board can draw since it was last believed."""
        if not 0 <= counted_mj < ABSURD_MJ:
            return None
        before_ns, before_mj = self._believed.get(device, (time_ns, counted_mj))
        # A clock that was set back begins the time anew; a second more than passed allows for the counter's refresh.
        before_ns = min(before_ns, time_ns)
        most_mj = ABSURD_MW * (time_ns - before_ns + NS_PER_S) // NS_PER_S
        if counted_mj > before_mj + most_mj:
            self._believed[device] = (before_ns, before_mj)
            return None
        self._believed[device] = (time_ns, counted_mj)
        return counted_mj

    def _power_mw(self, device: Device) -> int | None:
        """Power by the source that answered when the board was opened."""
        instant_mw = self._instant_mw(device) if device.power_window_ms == 0 else None
        if instant_mw is not None:
            return instant_mw
        return _sane(self._driver.ask(device.uuid, "nvmlDeviceGetPowerUsage"), ABSURD_MW)

    def _instant_mw(self, device: Device) -> int | None:
        values = self._driver.ask(device.uuid, "nvmlDeviceGetFieldValues", self._instant_field[device.scope])
        if not values:
            return None
        told = values[0]
        return _sane(told.value.uiVal, ABSURD_MW) if told.nvmlReturn == self._nvml.NVML_SUCCESS else None

    def limit_range(self, device: str) -> LimitRange:
        """The board's constraints, its default, and the limit that was set last."""
        self._board(device)
        constraints = self._driver.ask(device, "nvmlDeviceGetPowerManagementLimitConstraints")
        default = self._driver.ask(device, "nvmlDeviceGetPowerManagementDefaultLimit")
        now = self._driver.ask(device, "nvmlDeviceGetPowerManagementLimit")
        if constraints is None or default is None or now is None:
            raise CapError(f"{device} has no settable power limit. Remove power from the manifest.")
        return LimitRange(min_mw=constraints[0], max_mw=constraints[1], default_mw=default, set_mw=now)

    def set_limit(self, device: str, limit_mw: int) -> None:
        """Needs root."""
        self._board(device)
        self._beside.pop(device, None)
        try:
            self._driver.order(device, "nvmlDeviceSetPowerManagementLimit", limit_mw)
        except self._nvml.NVMLError as error:
            raise CapError(
                f"the power limit of {device} cannot be set: {error}. "
                "Only root may set it: run the agent as root, or remove power from the manifest."
            ) from error

    def attach(self, lease: Lease) -> None:
        """The driver knows its processes."""

    def detach(self, lease: Lease) -> None:
        """The driver knows its processes."""

    def speed(self, device: str) -> float | None:  # noqa: ARG002 - the port's signature
        """Real boards set their own pace."""
        return None

    def close(self) -> None:
        """Shut NVML down; a driver that is gone already has nothing to let go of."""
        self._driver.close()

    def _board(self, device: str) -> Device:
        board = self._boards.get(device)
        if board is None:
            raise MeterError(f"{device} is not a board of this node: {', '.join(self._boards)}.")
        return board


def _is_visible(index: int, uuid: str, tokens: Sequence[str]) -> bool:
    return any(token == str(index) or (token and uuid.startswith(token)) for token in tokens)


def _may_be_visible(index: int, tokens: Sequence[str], known: Iterable[str]) -> bool:
    """Whether a board that does not say which it is may be meant: by its index, or by a UUID that no other has."""
    strangers = (token for token in tokens if token.startswith(("GPU-", "MIG-")))
    return str(index) in tokens or any(not any(uuid.startswith(token) for uuid in known) for token in strangers)


def _sane(value: int | None, absurd: int) -> int | None:
    """The value, or ``None`` for NVML's sentinels, which lie at ``absurd`` and above."""
    return None if value is None or not 0 <= value < absurd else int(value)
