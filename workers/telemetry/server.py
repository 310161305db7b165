"""The agent's door for attempts: see ``protocol`` for the requests. One thread per connection."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field, Strict

from workers.contract import Lease, Names, Phase, Power
from workers.errors import InputError, MeterError, UnknownNameError, UnreachableError, WattledgerError
from workers.names import JOB_ID_PATTERN
from workers.section import Section, section_problems
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.patience import BoundedLock
from workers.telemetry.protocol import MAX_LINE, Message, connect, decode, encode
from workers.telemetry.serving import Serving
from workers.telemetry.state import told_from_json

Flush = Callable[[], None]
"""Puts on disk what is booked so far, or raises ``MeterError`` when the disk refuses."""
SETTLE_TIMEOUT_S = 2.0
"""A counter refreshes within 100 ms; a board that takes longer than this is not waited for."""
TAKEOVER_TIMEOUT_S = 2.0
"""How long an agent may wait for the one before it, which its parent has just let go, to leave."""
LEAVE_TIMEOUT_S = 10.0
"""How long it may take one that answers nobody any more to make Parquet files of its last journal, on a busy host."""


class Opening(Section):
    """The fields of an ``open`` request: whatever passes can be booked, logged and exported."""

    job_id: str = Field(pattern=JOB_ID_PATTERN)
    attempt: int = Field(ge=1, le=2**31 - 1)
    devices: Names
    cpus: float = Field(1.0, gt=0)
    phase: Annotated[Phase, Strict(False)] | None = None
    power: Power = Power()
    rank: int = Field(0, ge=0, le=2**31 - 1)


class LeaseServer(socketserver.ThreadingUnixStreamServer):
    """Listens on a socket only this user can open.

    Args:
        path: the socket.
        meter: what it is the door of.
        flush: puts on disk what is booked so far, or raises.
        note: puts on disk which leases are open, or does not: a lease that is not on disk is lost with the agent.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, path: Path, meter: NodeMeter, *, flush: Flush, note: Callable[[], None] = lambda: None) -> None:
        self.meter, self.flush, self.note = meter, flush, note
        # Lease to the connection it ends with: the last one that opened or resumed it.
        self.holders: dict[str, _Connection] = {}
        # Held while a connection takes up a lease, or ends one that it alone holds: never both at once.
        self.handing_over = BoundedLock()
        self._path = path
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        super().__init__(str(path), _Connection)
        path.chmod(0o600)

    def start(self) -> None:
        """Serve in a thread."""
        self._serving = Serving(self, name="leases")

    def stop(self) -> None:
        """Take no more connections."""
        self._serving.end()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class _Connection(socketserver.StreamRequestHandler):
    """One client. Its lease, if it opens one, ends with the connection."""

    server: LeaseServer

    def setup(self) -> None:
        super().setup()
        self._lease_id: str | None = None

    def handle(self) -> None:
        try:
            while line := self.rfile.readline(MAX_LINE):
                self.wfile.write(encode(self._answer(line)))
        except OSError:
            # The client is gone; what it held is closed in finish, like any other end.
            return

    def finish(self) -> None:
        if self._lease_id is not None and self.server.holders.get(self._lease_id) is self:
            self._end_lease(self._lease_id)
        with contextlib.suppress(OSError):
            super().finish()

    def _end_lease(self, lease_id: str) -> None:
        """The client has gone; a driver that hangs is waited for, so that its lease does not stay open for ever."""
        is_ended = False
        while not is_ended:
            with contextlib.suppress(MeterError), self.server.handing_over:
                if self.server.holders.get(lease_id) is self:
                    self.server.meter.close(lease_id)
                    self.server.holders.pop(lease_id, None)
                is_ended = True

    def _answer(self, line: bytes) -> Message:
        try:
            request = decode(line)
            operation = {
                "open": self._open,
                "resume": self._resume,
                "phase": self._phase,
                "pace": self._pace,
                "close": self._close,
                "flush": self._flush,
                "describe": self._describe,
            }.get(str(request.get("op")))
            if operation is None:
                raise InputError(f"unknown op {request.get('op')!r}.")
            return operation(request)
        except WattledgerError as error:
            return {"error": str(error), "exit_code": error.exit_code}
        except (KeyError, TypeError, ValueError) as error:
            return {"error": f"the request cannot be used: {error!r}.", "exit_code": InputError.exit_code}

    def _open(self, request: Message) -> Message:
        wanted = self._wanted(request)
        with self.server.handing_over:
            lease = self._take(self.server.meter.open(wanted))
        return self._held(lease)

    def _resume(self, request: Message) -> Message:
        told = told_from_json({name: request.pop(name, None) for name in ("phases", "closed_ns")})
        wanted = self._wanted(request)
        with self.server.handing_over:
            lease = self._take(self.server.meter.resume(wanted, told))
        return self._held(lease)

    def _wanted(self, request: Message) -> LeaseRequest:
        if self._lease_id is not None:
            raise InputError("this connection already holds a lease; close it, or open another connection.")
        fields = {name: value for name, value in request.items() if name != "op"}
        if problems := section_problems(Opening, fields):
            listed = "; ".join(f"{'.'.join(map(str, path))} {message}" for path, message in problems)
            raise InputError(f"no lease can be opened like that: {listed}.")
        wanted = Opening.model_validate(fields)
        return LeaseRequest(
            job_id=wanted.job_id,
            attempt=wanted.attempt,
            devices=wanted.devices,
            pid=_peer_pid(self.connection),
            cpus=wanted.cpus,
            phase=wanted.phase,
            power=wanted.power,
            rank=wanted.rank,
        )

    def _take(self, lease: Lease) -> Lease:
        """The lease ends with this connection from now on."""
        self._lease_id = lease.lease_id
        self.server.holders[lease.lease_id] = self
        return lease

    def _held(self, lease: Lease) -> Message:
        """What the holder of a lease is told of it, once it is on disk."""
        self.server.note()
        is_open = self.server.meter.is_open(lease.lease_id)
        return {
            "lease_id": lease.lease_id,
            "devices": list(lease.devices),
            "models": self.server.meter.models(lease),
            "speed": self.server.meter.speed(lease.lease_id) if is_open else None,
            "cap_watts": self.server.meter.cap_watts(lease.lease_id),
            "unmetered": self.server.meter.unmetered,
        }

    def _phase(self, request: Message) -> Message:
        self.server.meter.set_phase(self._lease(), _phase(request["phase"]))
        return self._pace(request)

    def _pace(self, _: Message) -> Message:
        return {"speed": self.server.meter.speed(self._lease())}

    def _close(self, _: Message) -> Message:
        lease_id = self._lease()
        # Where a driver hangs it stays ours, and is closed when the client has gone.
        self.server.meter.close(lease_id)
        self._lease_id = None
        self.server.holders.pop(lease_id, None)
        self._settle(lease_id)
        self.server.flush()
        return {"energy_mj": self.server.meter.lease_energy_mj(lease_id)}

    def _settle(self, lease_id: str) -> None:
        """Wait until the counters moved past the lease's end, so that its last joules are booked."""
        pause = threading.Event()
        for _ in range(int(SETTLE_TIMEOUT_S / 0.02)):
            if self.server.meter.is_settled(lease_id):
                return
            pause.wait(0.02)
            self.server.meter.tick()

    def _flush(self, _: Message) -> Message:
        self.server.flush()
        return {}

    def _describe(self, _: Message) -> Message:
        snapshot = self.server.meter.snapshot()
        devices = [
            {
                "uuid": s.device.uuid,
                "index": s.device.index,
                "model": s.device.model,
                "kind": s.device.kind,
                "method": s.device.method,
                "up": s.up,
            }
            for s in snapshot.devices
        ]
        return {"node": snapshot.node, "devices": devices}

    def _lease(self) -> str:
        if self._lease_id is None:
            raise InputError("no lease is open on this connection; open one first.")
        return self._lease_id


def _phase(name: str | None) -> Phase | None:
    if name is None:
        return None
    if name not in list(Phase):
        raise UnknownNameError("phase", str(name), Phase)
    return Phase(name)


def wait_until_free(path: Path, *, timeout_s: float = TAKEOVER_TIMEOUT_S) -> None:
    """Return once nobody answers at ``path``; a socket whose owner was killed answers nobody.

    Raises:
        InputError: another agent stays there. Two agents of one node would book every joule twice.
    """
    pause = threading.Event()
    for _ in range(int(timeout_s / 0.05)):
        try:
            connect(path, timeout_s=1.0).close()
        except UnreachableError:
            return
        pause.wait(0.05)
    raise InputError(f"an agent of this node already answers at {path}. Lease from it, or stop it first.")


def hold_node(path: Path, *, timeout_s: float = LEAVE_TIMEOUT_S) -> int:
    """Have the node whose agent listens at ``path`` to ourselves; gives the descriptor to close when we let go of it.

    Asking whether somebody answers tells two agents that start at once nothing of each other; the kernel does.

    Raises:
        InputError: another agent stays. Two agents of one node would book every joule twice.
    """
    file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    pause, deadline_s = threading.Event(), time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                os.close(file)
                raise InputError(
                    f"an agent of this node already answers at {path}. Lease from it, or stop it first."
                ) from None
            pause.wait(0.05)
        else:
            return file


def _peer_pid(connection: socket.socket) -> int:
    """The process at the other end, as the kernel knows it: nobody can lease in another's name."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
