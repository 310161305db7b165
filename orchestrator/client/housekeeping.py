"""What a ledger need not keep for ever: checkpoints that nobody goes on from, and the stories of jobs of long ago."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lifecycle import JobState
from orchestrator.store import Store
from workers.errors import LedgerError
from workers.home import Home
from workers.units import NS_PER_S

KEEP_DAYS = 30
"""Long enough to look into why a job failed; a job that has ended is never gone on with, so its checkpoints are no more
than that."""
_NS_PER_DAY = 86_400 * NS_PER_S


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What was removed of jobs that ended before a time.

    Attributes:
        jobs: whose checkpoints were removed; ``bytes``: what they held.
        events: removed; of each job the last one stays, which says how and when it ended.
    """

    jobs: int
    bytes: int
    events: int


def forget(home: Home, *, keep_days: int, now_ns: int) -> Forgotten:
    """Remove the checkpoints of jobs that did not succeed, and all but the last event, of jobs that ended so long ago.

    What a job cost, its attempts, logs and artifacts stay. A job that succeeded has removed its checkpoints itself.

    Raises:
        LedgerError: the ledger cannot be written, or a folder cannot be removed; run again, it goes on.
    """
    if not home.state_db.exists():
        return Forgotten(jobs=0, bytes=0, events=0)
    before_ns = now_ns - keep_days * _NS_PER_DAY
    with contextlib.closing(Store(home.state_db)) as store:
        ended = store.ended_before(before_ns)
        left = [job_id for job_id, state in ended.items() if state is not JobState.SUCCEEDED]
        folders = [folder for job_id in left if _is_folder(folder := home.checkpoints(job_id))]
        sizes = [_remove(folder) for folder in folders]
        return Forgotten(jobs=len(sizes), bytes=sum(sizes), events=store.forget_events(ended))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(folder: Path) -> int:
    """How many bytes that freed."""
    size = sum(path.lstat().st_size for path in _files(folder))
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise LedgerError(f"{folder} cannot be removed: {error.strerror}. Check its permissions.") from error
    return size


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
