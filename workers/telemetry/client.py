"""An attempt's end of the agent's door: open a lease, change phases, keep the device's pace, close."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from workers.contract import Phase, Power
from workers.errors import InputError, MeterError, UnreachableError, WattledgerError
from workers.telemetry.protocol import MAX_LINE, Message, connect, decode, encode, leave_note

PACE_EVERY_S = 0.5
"""How often a simulated device's speed is asked for again, since an admin may cap it while a job runs."""
RETURN_EVERY_S = 0.5
"""How often an agent that has gone is looked for again."""
ANSWER_S = 2.0
"""How long a job that runs waits for an answer: one that takes longer comes from an agent that hangs."""
CLOSE_WAIT_S = 15.0
"""How long a job that is done waits for an agent that has gone: long enough for one that is started again."""


class AgentConnection:
    """Requests to one agent, in turn. A context manager; leaving it closes the connection, and with it any lease.

    Attributes:
        path: the agent's socket; ``is_closed``: whether we have hung up.
    """

    def __init__(self, path: Path, *, timeout_s: float = 10.0) -> None:
        self.path, self._timeout_s = path, timeout_s
        self._socket = connect(path, timeout_s=timeout_s)
        self._lines = self._socket.makefile("rb")
        self.is_closed = False

    def ask(self, operation: str, *, timeout_s: float | None = None, **fields: object) -> Message:
        """Send a request and give its reply, within ``timeout_s`` or what the connection was made with.

        Raises:
            UnreachableError: the agent is gone or does not answer in time.
            InputError: the agent cannot use the request.
            MeterError: the agent cannot do it: a power limit cannot be set, or the disk refuses the energy log.
        """
        try:
            self._socket.settimeout(self._timeout_s if timeout_s is None else timeout_s)
            self._socket.sendall(encode({"op": operation, **fields}))
            line = self._lines.readline(MAX_LINE)
        except (OSError, ValueError) as error:
            # A file that was closed under us is a ValueError.
            raise UnreachableError(f"the agent at {self.path} does not answer: {error}. See its log.") from error
        if not line:
            raise UnreachableError(f"the agent at {self.path} has gone. See its log, and start it again.")
        reply = decode(line)
        if "error" in reply:
            kind = InputError if reply.get("exit_code") == InputError.exit_code else MeterError
            raise kind(str(reply["error"]))
        return reply

    def wait_until_gone(self) -> None:
        """Return once the agent has hung up, or we have."""
        poll = select.poll()
        try:
            poll.register(self._socket, select.POLLRDHUP)
        except ValueError:
            return  # Closed already.
        poll.poll()

    def close(self) -> None:
        """Hang up."""
        self.is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._lines.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HeldLease:
    """A lease this process holds, for as long as its work lasts; a context manager.

    The agent may go meanwhile, and the work does not mind: phases are noted here, the agent is looked for again twice a
    second in a thread of its own, and what it missed is told to the one that is back. Only opening a lease fails.

    Attributes:
        devices: UUIDs; ``models``: the accelerator type of each, by UUID, as far as the agent says.
        cap_watts: the limit asked for, or ``None``.
        unmetered: why a kind of device (``cpu``, ``dram``) or a board (``GPU 3``) is not metered here.
        unconfirmed: after ``close``, why the joules are not known; ``None`` when they are.
    """

    def __init__(
        self,
        connection: AgentConnection,
        *,
        job_id: str,
        attempt: int,
        devices: Sequence[str],
        cpus: float,
        phase: Phase | None,
        power: Power,
        rank: int = 0,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep_s: Callable[[float], None] = time.sleep,
        clock_ns: Callable[[], int] = time.time_ns,
        close_wait_s: float = CLOSE_WAIT_S,
    ) -> None:
        self._close_wait_s = close_wait_s
        self._monotonic_s, self._sleep_s, self._clock_ns = monotonic_s, sleep_s, clock_ns
        self._wanted: dict[str, Any] = {
            "job_id": job_id,
            "attempt": attempt,
            "rank": rank,
            "cpus": cpus,
            "power": power.model_dump(),
        }
        self._phases: list[tuple[int, Phase | None]] = [(clock_ns(), phase)]
        self._closed_ns: int | None = None
        reply = connection.ask("open", devices=list(devices), phase=phase, **self._wanted)
        self.devices: tuple[str, ...] = tuple(reply["devices"])
        self.cap_watts: float | None = reply["cap_watts"]
        # An agent that was started by an earlier version does not say these two.
        self.models: dict[str, str] = reply.get("models", {})
        self.unmetered: dict[str, str] = reply.get("unmetered", {})
        self.unconfirmed: str | None = None
        # Of which lease ``close`` tells the joules: all of ours, as long as it is the one that was opened.
        self._lease_id: str | None = reply.get("lease_id")
        self._why_short: str | None = None
        self._speed: float | None = reply["speed"]
        self._asked_s = self._worked_s = monotonic_s()
        self._path = connection.path
        # ``None`` while the agent is away. Whoever changes it holds the lock and tells the others.
        self._connection: AgentConnection | None = connection
        self._why_away = ""
        self._changed = threading.Condition()
        self._is_over = False
        self._watcher = threading.Thread(target=self._watch, name="lease", daemon=True)
        self._watcher.start()

    @property
    def visible_devices(self) -> str:
        """What ``CUDA_VISIBLE_DEVICES`` must say, so that the work lands on the very devices whose joules it is booked.

        Empty for simulated devices, whose work must not land on a real one beside them, and for a lease without any.
        """
        return "" if self._speed is not None else ",".join(self.devices)

    def set_phase(self, phase: Phase | None) -> None:
        """From now on the device's joules are of ``phase``; ``None``: of the job, and of no phase."""
        with self._changed:
            self._phases.append((self._clock_ns(), phase))
            self._ask_speed("phase", phase=phase)
        self._asked_s = self._worked_s = self._monotonic_s()

    def pace(self) -> None:
        """Call after each piece of work. On a simulated device, wait as long as that device would have needed more.

        On a real device nothing is asked and nothing waits.
        """
        if self._speed is None:
            return
        now_s = self._monotonic_s()
        if now_s - self._asked_s >= PACE_EVERY_S:
            with self._changed:
                self._ask_speed("pace")
            self._asked_s = now_s
        if self._speed < 1:
            self._sleep_s((now_s - self._worked_s) * (1 / self._speed - 1))
        self._worked_s = self._monotonic_s()

    def begin_work(self) -> None:
        """Work begins now: what was waited for since the last ``pace`` is not the device's."""
        self._worked_s = self._monotonic_s()

    def _ask_speed(self, operation: str, **fields: object) -> None:
        """Ask, when there is somebody to ask; an agent that fails to answer is one that has gone."""
        if self._connection is None:
            return
        try:
            self._speed = self._connection.ask(operation, timeout_s=ANSWER_S, **fields)["speed"]
        except WattledgerError as error:
            self._lose(self._connection, error)

    def close(self) -> int | None:
        """End the lease; gives the millijoules booked to it, all on disk; ``None`` when that is not ``unconfirmed``.

        An agent that has gone is waited for, for a while; the one after it finds a note then, and books by that.
        """
        with self._changed:
            self._closed_ns = self._clock_ns()
            deadline_s = time.monotonic() + self._close_wait_s
            while True:
                left_s = deadline_s - time.monotonic()
                if self._connection is None and not self._changed.wait_for(lambda: self._connection, timeout=left_s):
                    self._leave_unconfirmed()
                    return None
                assert self._connection is not None
                try:
                    energy_mj = self._whole(int(self._connection.ask("close")["energy_mj"]))
                except UnreachableError as error:
                    self._lose(self._connection, error)
                    continue
                except WattledgerError as error:
                    self.unconfirmed = str(error)
                    energy_mj = None
                self._hang_up()
                return energy_mj

    def _whole(self, energy_mj: int) -> int | None:
        """What was booked to all of the lease; ``None`` when the agent that tells it has not metered all of it."""
        self.unconfirmed = self._why_short
        return energy_mj if self._why_short is None else None

    def _leave_unconfirmed(self) -> None:
        self.unconfirmed = self._why_away
        # A disk that refuses the note costs the lease's exact end, and nothing else.
        with contextlib.suppress(OSError):
            leave_note(self._path, self._missed())
        self._hang_up()

    def _missed(self) -> Message:
        """What an agent must be told to take the lease up."""
        return {
            **self._wanted,
            "devices": list(self.devices),
            "phase": self._phases[-1][1],
            "phases": [[time_ns, phase] for time_ns, phase in self._phases],
            "closed_ns": self._closed_ns,
        }

    def _watch(self) -> None:
        """Look after the connection until the lease is over."""
        while True:
            with self._changed:
                if self._is_over:
                    return
                connection = self._connection
            if connection is None:
                self._try_to_return()
                continue
            connection.wait_until_gone()
            with self._changed:
                if self._connection is connection and not self._is_over:
                    self._lose(connection, UnreachableError(f"the agent at {self._path} has gone."))

    def _try_to_return(self) -> None:
        """One try to take the lease up with an agent, and a pause where there is none."""
        with self._changed:
            missed = self._missed()
        connection: AgentConnection | None = None
        try:
            connection = AgentConnection(self._path)
            reply = connection.ask("resume", **missed)
        except WattledgerError as error:
            if connection is not None:
                connection.close()
            with self._changed:
                self._why_away = str(error)
                self._changed.wait_for(lambda: self._is_over, timeout=RETURN_EVERY_S)
            return
        with self._changed:
            if self._is_over:
                connection.close()
                return
            self._connection = connection
            if reply.get("lease_id") != self._lease_id:
                self._why_short = "the agent was stopped and started meanwhile. Read the energy log: it has both parts."
            elif list(reply["devices"]) != list(self.devices):
                self._why_short = "a device does not answer since the agent was started anew. See `wattledger doctor`."
            if self._speed is not None and reply["speed"] is not None:
                self._speed = reply["speed"]
            # What came meanwhile, while nobody waited for us.
            if self._phases[-1][1] != missed["phase"]:
                self._ask_speed("phase", phase=self._phases[-1][1])
            self._changed.notify_all()

    def _lose(self, connection: AgentConnection, error: WattledgerError) -> None:
        """The agent has gone, or we have closed its connection, and the lease with it; hold the lock."""
        if connection.is_closed:
            self._hang_up()
        connection.close()
        if self._connection is connection:
            self._connection, self._why_away = None, str(error)

    def _hang_up(self) -> None:
        """The lease is over; hold the lock."""
        self._is_over = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._hang_up()
