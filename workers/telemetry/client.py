"""An attempt's end of the agent's door: open a lease, change phases, keep the device's pace, close."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from workers.contract import Phase, Power
from workers.errors import InputError, JobError, MeterError, UnreachableError
from workers.telemetry.protocol import MAX_LINE, Message, connect, decode, encode

PACE_EVERY_S = 0.5
"""How often a simulated device's speed is asked for again, since an admin may cap it while a job runs."""


class AgentConnection:
    """Requests to one agent, in turn. A context manager; leaving it closes the connection, and with it any lease."""

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self._path = path
        self._socket = connect(path, timeout_s=timeout_s)
        self._lines = self._socket.makefile("rb")

    def ask(self, operation: str, **fields: object) -> Message:
        """Send a request and give its reply.

        Raises:
            UnreachableError: the agent is gone or does not answer in time.
            InputError: the agent cannot use the request.
            MeterError: the agent cannot do it: a power limit cannot be set, or the disk refuses the energy log.
        """
        try:
            self._socket.sendall(encode({"op": operation, **fields}))
            line = self._lines.readline(MAX_LINE)
        except OSError as error:
            raise UnreachableError(f"the agent at {self._path} does not answer: {error}. See its log.") from error
        if not line:
            raise UnreachableError(f"the agent at {self._path} has gone. See its log, and start it again.")
        reply = decode(line)
        if "error" in reply:
            kind = InputError if reply.get("exit_code") == InputError.exit_code else MeterError
            raise kind(str(reply["error"]))
        return reply

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HeldLease:
    """A lease this process holds.

    ``devices`` are UUIDs; ``cap_watts`` is the limit asked for, or ``None``; ``unmetered`` says why a kind of device
    (``cpu``, ``dram``) is not metered here.
    """

    def __init__(
        self,
        connection: AgentConnection,
        *,
        job_id: str,
        attempt: int,
        devices: Sequence[str],
        cpus: float,
        phase: Phase,
        power: Power,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection, self._monotonic_s, self._sleep_s = connection, monotonic_s, sleep_s
        reply = connection.ask(
            "open",
            job_id=job_id,
            attempt=attempt,
            devices=list(devices),
            cpus=cpus,
            phase=phase.value,
            power=power.model_dump(),
        )
        self.devices: tuple[str, ...] = tuple(reply["devices"])
        self.cap_watts: float | None = reply["cap_watts"]
        # An agent that was started by an earlier version does not say.
        self.unmetered: dict[str, str] = reply.get("unmetered", {})
        self._speed: float | None = reply["speed"]
        self._asked_s = self._worked_s = monotonic_s()

    @property
    def visible_devices(self) -> str:
        """What ``CUDA_VISIBLE_DEVICES`` must say, so that the work lands on the very devices whose joules it is booked.

        Empty for simulated devices, whose work must not land on a real one beside them, and for a lease without any.
        """
        return "" if self._speed is not None else ",".join(self.devices)

    def set_phase(self, phase: Phase) -> None:
        """From now on the device's joules are of ``phase``."""
        self._speed = self._connection.ask("phase", phase=phase.value)["speed"]
        self._asked_s = self._worked_s = self._monotonic_s()

    def pace(self) -> None:
        """Call after each piece of work. On a simulated device, wait as long as that device would have needed more.

        On a real device nothing is asked and nothing waits.
        """
        if self._speed is None:
            return
        now_s = self._monotonic_s()
        if now_s - self._asked_s >= PACE_EVERY_S:
            self._speed = self._connection.ask("pace")["speed"]
            self._asked_s = now_s
        if self._speed < 1:
            self._sleep_s((now_s - self._worked_s) * (1 / self._speed - 1))
        self._worked_s = self._monotonic_s()

    def close(self) -> int:
        """End the lease; gives the millijoules booked to it, all on disk."""
        try:
            return int(self._connection.ask("close")["energy_mj"])
        except (UnreachableError, MeterError) as error:
            raise JobError(f"the job's work is done, but its energy is not confirmed: {error}") from error
