"""The NVIDIA driver: calls by a board's UUID, while boards and the driver itself may leave and come back.

What a board or an old driver does not offer is ``None``. A board that fell off the bus is looked up again by its UUID
at every call; a driver that was unloaded is opened again, at most every ``REOPEN_NS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pynvml

from workers.errors import MeterError
from workers.units import NS_PER_S

REOPEN_NS = NS_PER_S
"""Opening takes up to a second where no persistence daemon holds the driver, so it is not tried at every call."""


class NvmlDriver:
    """NVML, initialised.

    Attributes:
        nvml: the module, or what stands in for it.
        uuids: NVML index to the UUID of each board that says which it is.
        silent: NVML index of those that do not, to why: a clause.

    Raises:
        MeterError: no library or no driver.
    """

    def __init__(self, *, clock_ns: Callable[[], int], nvml: Any = pynvml) -> None:  # noqa: ANN401 - the port
        self.nvml = nvml
        # An old driver lacks newer functions; a field it knows may still have no data.
        self._not_offered = frozenset(
            (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_NO_PERMISSION,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_NO_DATA,
            )
        )
        # pynvml raises success too when a list is empty; a list that grows while it is asked for comes the next time.
        self._nothing_listed = frozenset(
            (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INSUFFICIENT_SIZE)
        )
        self._clock_ns = clock_ns
        self._handles: dict[str, object] = {}
        self.is_gone = self._is_closed = False
        self._opened_ns = clock_ns()
        self.uuids: dict[int, str] = {}
        self.silent: dict[int, str] = {}
        try:
            nvml.nvmlInit()
            for index in range(nvml.nvmlDeviceGetCount()):
                self._find(index)
        except nvml.NVMLError as error:
            raise MeterError(f"NVML does not answer: {error}. Check that `nvidia-smi` works for this user.") from error

    def _find(self, index: int) -> None:
        """Ask the board at ``index`` which it is; one that fell off the bus must not hide the others.

        Raises:
            NVMLError: the driver is gone.
        """
        try:
            handle = self.nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = text(self.nvml.nvmlDeviceGetUUID(handle))
        except self.nvml.NVMLError as error:
            if self._is_of_driver(error):
                raise
            self.silent[index] = str(error)
            return
        self.uuids[index], self._handles[uuid] = uuid, handle

    def ask(self, uuid: str, function: str, *arguments: object) -> Any:  # noqa: ANN401 - NVML's own types
        """What ``function`` answers for a board; ``None`` where the board or the driver does not offer it.

        Raises:
            MeterError: the board or the driver is gone, or the call failed.
        """
        try:
            # Handles are there as a rule; this is called more often than anything else here.
            return getattr(self.nvml, function)(self._handles.get(uuid) or self._handle(uuid), *arguments)
        except self.nvml.NVMLError as error:
            if error.value in self._not_offered:
                return None
            raise self._failed(uuid, error) from error

    def listed(self, uuid: str, function: str, *arguments: object) -> Sequence[Any] | None:
        """The same for a function whose answer is a list, and may be empty.

        Raises:
            MeterError: as for ``ask``.
        """
        handle = self._handle(uuid)
        try:
            return list(getattr(self.nvml, function)(handle, *arguments))
        except self.nvml.NVMLError as error:
            if error.value in self._not_offered:
                return None
            if error.value in self._nothing_listed:
                return []
            raise self._failed(uuid, error) from error

    def order(self, uuid: str, function: str, *arguments: object) -> None:
        """Change something of a board.

        Raises:
            NVMLError: it refuses.
            MeterError: it is not there.
        """
        getattr(self.nvml, function)(self._handle(uuid), *arguments)

    def parent(self, slice_uuid: str) -> str | None:
        """The board a MIG slice is cut from; ``None`` when there is no such slice."""
        try:
            handle = self.nvml.nvmlDeviceGetHandleByUUID(slice_uuid)
            board = self.nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
            return text(self.nvml.nvmlDeviceGetUUID(board))
        except self.nvml.NVMLError:
            return None

    def close(self) -> None:
        """Shut NVML down; a driver that is gone already has nothing to let go of."""
        self._is_closed = True
        self._shutdown()

    def _shutdown(self) -> None:
        try:
            self.nvml.nvmlShutdown()
        except self.nvml.NVMLError:
            return

    def _handle(self, uuid: str) -> object:
        if self.is_gone and not self._is_closed:
            self._reopen()
        if uuid not in self._handles:
            try:
                self._handles[uuid] = self.nvml.nvmlDeviceGetHandleByUUID(uuid)
            except self.nvml.NVMLError as error:
                raise self._failed(uuid, error) from error
        return self._handles[uuid]

    def _reopen(self) -> None:
        """Initialise again; the boards are looked up as they are asked for."""
        now_ns = self._clock_ns()
        if 0 <= now_ns - self._opened_ns < REOPEN_NS:
            raise MeterError("the NVIDIA driver is gone, and is looked for every second. Check `nvidia-smi`.")
        self._opened_ns = now_ns
        self._shutdown()
        try:
            self.nvml.nvmlInit()
        except self.nvml.NVMLError as error:
            raise MeterError(f"the NVIDIA driver is gone: {error}. Load it again; see `nvidia-smi`.") from error
        self.is_gone = False

    def _failed(self, uuid: str, error: Exception) -> MeterError:
        """The error for a call that failed; what it says of handles is remembered."""
        if self._is_of_driver(error):
            self.is_gone = True
            self._handles.clear()
        elif getattr(error, "value", None) == self.nvml.NVML_ERROR_GPU_IS_LOST:
            self._handles.pop(uuid, None)
        return MeterError(f"NVML cannot be read: {error}. Check `nvidia-smi`.")

    def _is_of_driver(self, error: Exception) -> bool:
        """Whether the driver is gone, and not a board."""
        gone = (self.nvml.NVML_ERROR_UNINITIALIZED, self.nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return getattr(error, "value", None) in gone


def text(value: str | bytes) -> str:
    """A text of the module, which old versions give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
