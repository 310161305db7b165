"""Who holds a run, or serves a ledger: one process, by a lock on a file that the kernel lets go of however it ends.

A process number would not do: another process may have it by now, after a reboot above all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.lifecycle import JobState
from orchestrator.store import Store
from workers.errors import InputError
from workers.home import Home

ORPHANED = "the process it was bound to ended without finishing it; submit the manifest again"
_RETRY_S = 0.02


def controller_name(run_id: str | None = None) -> str:
    """What the controller of a ledger is called, or that of one bound run: in the ledger, and as a lock."""
    return "controller" if run_id is None else f"controller-{run_id}"


@contextlib.contextmanager
def custody(home: Home, name: str, *, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold a run (or what ``controller_name`` names) while inside.

    Gives ``False``, and holds nothing, when another process still does after ``wait_s``.

    Raises:
        InputError: the ledger's folder cannot be written.
    """
    path = home.run / f"{name}.lock"
    file = _hold(path, wait_s=wait_s)
    try:
        yield file is not None
    finally:
        if file is not None:
            # While it is still held: whoever opened it before finds that it is not the one at the path any more.
            path.unlink(missing_ok=True)
            os.close(file)


def _hold(path: Path, *, wait_s: float) -> int | None:
    deadline_s = time.monotonic() + wait_s
    while (file := _try_lock(path)) is None and time.monotonic() < deadline_s:
        time.sleep(_RETRY_S)
    return file


def _try_lock(path: Path) -> int | None:
    """The locked file; ``None`` when another process holds it, or has just let go of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Check its rights, or name another --home.") from error
    with contextlib.suppress(OSError):  # held by another, or gone from its path
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), path.stat()):
            return file
    os.close(file)
    return None


def settle_orphans(store: Store, home: Home) -> None:
    """Fail the jobs of runs whose process on this host is gone, where they were bound to it: their attempts ended too.

    A run of another host is left alone, since only its own host can tell.
    """
    for run in store.runs(unfinished=True):
        if run.bound and run.host == socket.gethostname():
            with custody(home, run.run_id) as ours:
                if ours:
                    store.finish(run.run_id, JobState.FAILED, reason=ORPHANED, now_ns=time.time_ns())
