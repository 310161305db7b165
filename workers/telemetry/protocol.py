"""How an attempt talks to its node's agent: JSON lines over a Unix socket, and a lease lives as long as its connection.

That makes death exact: however the attempt ends, the kernel closes its connection, and the agent closes the lease then.

| request | reply |
|---|---|
| ``{"op": "open", "job_id", "attempt", "rank", "devices", "cpus", "phase", "power"}`` | ``{"devices", "speed", ...}`` |
| ``{"op": "phase", "phase"}`` | ``{"speed"}`` |
| ``{"op": "pace"}`` | ``{"speed"}`` |
| ``{"op": "resume", ..., "phases", "closed_ns"}`` | as ``open`` |
| ``{"op": "close"}`` | ``{"energy_mj"}`` once all is booked and on disk |
| ``{"op": "flush"}`` | ``{}`` once everything booked so far is on disk |
| ``{"op": "describe"}`` | ``{"node", "devices": [...]}`` |

A ``resume`` comes from an attempt whose agent has gone and is back, or another in its place. It has the fields of an
``open``, ``phase`` being the present one, and tells what the new agent cannot know: each phase since the lease was
opened as ``[time_ns, phase]``, and when the work was done (null while it goes on). The kernel says whether it is the
process that opened the lease. An attempt that cannot wait for an agent any longer leaves the same as a *note*, a file
beside the socket.

A ``resume`` that is answered with another ``lease_id`` than the ``open`` was found its lease ended: it holds a new one.

An ``open`` is also told ``"cap_watts"``, the ``"models"`` of its devices by UUID, and ``"unmetered"``: for each kind of
device (``cpu``, ``dram``) and board (``GPU 3``) that is not metered here, why. ``rank`` is 0 where it is not said.

A request that fails is answered ``{"error": sentence, "exit_code": n}`` and changes nothing, but for a ``close`` that
fails because the disk refuses the energy log: its lease has ended, and the agent keeps the joules and tries again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from workers.errors import InputError, UnreachableError

MAX_LINE = 64 * 1024
"""Bytes; a longer request is no request of ours."""

NOTE_SUFFIX = ".note"
Message = dict[str, Any]


def socket_path(home: Path, node: str) -> Path:
    """Where the agent of ``node`` listens: a short path (the kernel takes 107 bytes) in a folder of this user only.

    Raises:
        InputError: somebody else owns that folder.
    """
    folder = Path(tempfile.gettempdir()) / f"wattledger-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.is_symlink():
        raise InputError(f"{folder} belongs to somebody else. Remove it, or set TMPDIR to a folder of yours.")
    return folder / f"{hashlib.sha256(f'{home.resolve()}/{node}'.encode()).hexdigest()[:16]}.sock"


def leave_note(socket: Path, message: Message) -> None:
    """Write down beside the socket what a ``resume`` would have told; a reader finds it whole, or not at all.

    Raises:
        OSError: the disk refuses.
    """
    name = f"{message['job_id']}.{message['attempt']}.{message.get('rank', 0)}"
    path = socket.with_name(f"{socket.stem}.{name}{NOTE_SUFFIX}")
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    hidden.write_bytes(encode(message))
    hidden.replace(path)


def find_notes(socket: Path) -> dict[Path, Message]:
    """The notes left beside a socket; one that cannot be read tells nothing."""
    found: dict[Path, Message] = {}
    for path in sorted(socket.parent.glob(f"{socket.stem}.*{NOTE_SUFFIX}")):
        try:
            found[path] = decode(path.read_bytes())
        except (OSError, InputError):
            found[path] = {}
    return found


def encode(message: Message) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message in a line.

    Raises:
        InputError: not a JSON object.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not a JSON line: {error}.") from error
    if not isinstance(message, dict):
        raise InputError("a request is one JSON object per line.")
    return message


def connect(path: Path, *, timeout_s: float) -> socket.socket:
    """A connection to the agent at ``path``.

    Raises:
        UnreachableError: nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout_s)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise UnreachableError(
            f"no agent answers at {path}: {error}. Start one with `python -m workers.agent`, "
            "or leave --agent out and the job meters itself."
        ) from error
    return connection
