"""NVIDIA boards through NVML. The only door of ``pynvml`` (package ``nvidia-ml-py``).

The hardware energy counter comes first (``nvmlDeviceGetTotalEnergyConsumption``, mJ, Volta and later); instantaneous
power is asked for explicitly (``NVML_FI_DEV_POWER_INSTANT``), because ``nvmlDeviceGetPowerUsage`` is a one-second
average on Ampere and later.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pynvml

from workers.contract import Device, Lease, Method, Reading
from workers.errors import CapError, MeterError
from workers.telemetry.meter import LimitRange

ABSURD_MJ = 2**62
"""NVML's 64-bit sentinels lie above this; a counter that large would be 146,000 years at 1 kW."""
ABSURD_MW = 2**31
"""NVML's 32-bit sentinels lie above this; no board draws 2.1 MW."""

_NAMES: tuple[tuple[str, str], ...] = (
    (r"\bH200\b", "H200"),
    (r"\bH100\b", "H100"),
    (r"\bA100\b.*80G", "A100-80GB"),
    (r"\bA100\b", "A100-40GB"),
    (r"\bV100", "V100"),
    (r"\bP100\b", "P100"),
    (r"\bK80\b", "K80"),
    (r"\bT4\b", "T4"),
    (r"\bL40S\b", "L40S"),
    (r"\bL4\b", "L4"),
    (r"\bA40\b", "A40"),
    (r"\bA10G\b", "A10G"),
)


def accelerator_type(name: str) -> str:
    """The accelerator type of a board by NVML's product name: ``NVIDIA A100-SXM4-80GB`` is ``A100-80GB``."""
    for pattern, model in _NAMES:
        if re.search(pattern, name):
            return model
    bare = re.sub(r"^(NVIDIA|Tesla)\s+|GeForce\s+", "", re.sub(r"^NVIDIA\s+", "", name))
    return re.sub(r"\s+", "-", bare.strip())


def has_nvidia_device(root: Path = Path("/")) -> bool:
    """Whether the kernel shows an NVIDIA device, driver library or not."""
    return (root / "dev/nvidiactl").exists() or (root / "dev/nvidia0").exists()


class NvmlMeter:
    """The NVIDIA boards this process may see. Behaves as ``PowerMeter`` says.

    ``CUDA_VISIBLE_DEVICES`` limits the boards, since a node's launcher divides a machine with it.

    Raises:
        MeterError: no driver, or no board.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        environ: Mapping[str, str] = os.environ,
        nvml: Any = pynvml,  # noqa: ANN401 - the module itself is the port
    ) -> None:
        self._clock_ns, self._nvml = clock_ns, nvml
        chosen = environ.get("CUDA_VISIBLE_DEVICES")
        try:
            nvml.nvmlInit()
            count = nvml.nvmlDeviceGetCount()
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
            found = [(self._describe(index, handle), handle) for index, handle in enumerate(handles)]
        except nvml.NVMLError as error:
            raise MeterError(f"NVML does not answer: {error}. Check that `nvidia-smi` works for this user.") from error
        kept = [(d, h) for d, h in found if _is_visible(d, chosen)]
        if not kept:
            raise MeterError(f"NVML shows no board (CUDA_VISIBLE_DEVICES={chosen!r}). Check `nvidia-smi -L`.")
        self._devices = tuple(device for device, _ in kept)
        self._handles = {device.uuid: handle for device, handle in kept}

    def _describe(self, index: int, handle: object) -> Device:
        counted = self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle) is not None
        return Device(
            uuid=_text(self._nvml.nvmlDeviceGetUUID(handle)),
            index=index,
            model=accelerator_type(_text(self._nvml.nvmlDeviceGetName(handle))),
            method=Method.COUNTER if counted else Method.INTEGRATED,
        )

    def devices(self) -> tuple[Device, ...]:
        """The visible boards, by NVML index."""
        return self._devices

    def read(self, device: str) -> Reading:
        """Counter, instantaneous power, limit and utilisation."""
        handle = self._handle(device)
        energy = _sane(self._ask(self._nvml.nvmlDeviceGetTotalEnergyConsumption, handle), ABSURD_MJ)
        time_ns = self._clock_ns()
        power = self._power_mw(handle)
        if energy is None and power is None:
            raise MeterError(f"{device} tells neither energy nor power. Check `nvidia-smi -q -d POWER -i {device}`.")
        rates = self._ask(self._nvml.nvmlDeviceGetUtilizationRates, handle)
        return Reading(
            device=device,
            time_ns=time_ns,
            energy_mj=energy,
            power_mw=power,
            limit_mw=_sane(self._ask(self._nvml.nvmlDeviceGetEnforcedPowerLimit, handle), ABSURD_MW),
            utilization=None if rates is None else rates.gpu / 100,
        )

    def _power_mw(self, handle: object) -> int | None:
        """Instantaneous power where the board has the field, else what ``nvmlDeviceGetPowerUsage`` says."""
        values = self._ask(self._nvml.nvmlDeviceGetFieldValues, handle, [self._nvml.NVML_FI_DEV_POWER_INSTANT])
        instant = values[0].value.uiVal if values and values[0].nvmlReturn == self._nvml.NVML_SUCCESS else None
        told = _sane(instant, ABSURD_MW)
        return _sane(self._ask(self._nvml.nvmlDeviceGetPowerUsage, handle), ABSURD_MW) if told is None else told

    def limit_range(self, device: str) -> LimitRange:
        """The board's constraints, its default, and the limit that was set last."""
        handle = self._handle(device)
        constraints = self._ask(self._nvml.nvmlDeviceGetPowerManagementLimitConstraints, handle)
        default = self._ask(self._nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
        now = self._ask(self._nvml.nvmlDeviceGetPowerManagementLimit, handle)
        if constraints is None or default is None or now is None:
            raise CapError(f"{device} has no settable power limit. Remove power from the manifest.")
        return LimitRange(min_mw=constraints[0], max_mw=constraints[1], default_mw=default, set_mw=now)

    def set_limit(self, device: str, limit_mw: int) -> None:
        """Needs root."""
        handle = self._handle(device)
        try:
            self._nvml.nvmlDeviceSetPowerManagementLimit(handle, limit_mw)
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
        try:
            self._nvml.nvmlShutdown()
        except self._nvml.NVMLError:
            return

    def _handle(self, device: str) -> object:
        if device not in self._handles:
            raise MeterError(f"{device} is not a board of this node: {', '.join(self._handles)}.")
        return self._handles[device]

    def _ask(self, call: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - NVML's own types
        """What NVML answers; ``None`` where the board does not offer it.

        Raises:
            MeterError: the board or driver is gone.
        """
        # An old driver lacks newer functions; a field it knows may still have no data.
        not_offered = (
            self._nvml.NVML_ERROR_NOT_SUPPORTED,
            self._nvml.NVML_ERROR_NO_PERMISSION,
            self._nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            self._nvml.NVML_ERROR_NO_DATA,
        )
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            if error.value in not_offered:
                return None
            raise MeterError(f"NVML cannot be read: {error}. Check `nvidia-smi`.") from error


def _is_visible(device: Device, chosen: str | None) -> bool:
    if chosen is None:
        return True
    tokens = [token.strip() for token in chosen.split(",")]
    return any(token == str(device.index) or (token and device.uuid.startswith(token)) for token in tokens)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _sane(value: int | None, absurd: int) -> int | None:
    """The value, or ``None`` for NVML's sentinels, which lie at ``absurd`` and above."""
    return None if value is None or not 0 <= value < absurd else int(value)
