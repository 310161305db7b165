"""Who holds a run: its controller, by a lock on a file that the kernel lets go of however the process ends.

A process number would not do: another process may have it by now, after a reboot above all.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator

from orchestrator.lifecycle import JobState
from orchestrator.store import Store
from workers.errors import InputError
from workers.home import Home

ORPHANED = "its controller ended without finishing it; submit the manifest again"


@contextlib.contextmanager
def custody(home: Home, run_id: str) -> Iterator[bool]:
    """Hold a run while inside; gives ``False``, and holds nothing, when another process does.

    Raises:
        InputError: the ledger's folder cannot be written.
    """
    path = home.run / f"{run_id}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}. Check its rights, or name another --home.") from error
    try:
        held = _lock(file)
        yield held
        if held:
            path.unlink(missing_ok=True)
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def settle_orphans(store: Store, home: Home) -> None:
    """Fail the jobs of runs whose controller on this host is gone: their attempts ended with it.

    A run of another host is left alone, since only its own host can tell.
    """
    for run in store.runs(unfinished=True):
        if run.host == socket.gethostname():
            with custody(home, run.run_id) as ours:
                if ours:
                    store.finish(run.run_id, JobState.FAILED, reason=ORPHANED, now_ns=time.time_ns())
