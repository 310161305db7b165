"""A job's logs: which files there are, and one read live while it grows, attempt after attempt.

They are plain files that outlive the job, ``artifacts/JOB/attempt-N/log.txt`` of rank 0 and ``log-R.txt`` of rank R.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.lifecycle import AttemptRecord, JobRecord
from workers.errors import InputError
from workers.home import Home

POLL_S = 0.2
"""How often a log that is followed is looked at: soon enough for a person, and next to nothing for a disk."""
_BLOCK = 65_536


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One rank's log of one attempt; ``size`` in bytes."""

    attempt: int
    rank: int
    path: Path
    size: int

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return {"attempt": self.attempt, "rank": self.rank, "path": str(self.path), "size_bytes": self.size}


def log_path(home: Home, job_id: str, *, attempt: int, rank: int = 0) -> Path:
    """Where a rank of an attempt logs, whether it has begun or not."""
    return home.attempt_folder(job_id, attempt) / ("log.txt" if rank == 0 else f"log-{rank}.txt")


def log_files(home: Home, job: JobRecord) -> tuple[LogFile, ...]:
    """All logs that a job has, by attempt and rank."""
    found = []
    for attempt in job.attempts:
        for path in home.attempt_folder(job.job_id, attempt.number).glob("log*.txt"):
            name = re.fullmatch(r"log(?:-(\d+))?\.txt", path.name)
            if name:
                rank = int(name[1] or 0)
                found.append(LogFile(attempt=attempt.number, rank=rank, path=path, size=path.stat().st_size))
    return tuple(sorted(found, key=lambda log: (log.attempt, log.rank)))


def find_log(home: Home, job: JobRecord, *, attempt: int | None, rank: int) -> LogFile:
    """The log of an attempt, of the last that has one where none is named.

    Raises:
        InputError: there is none; says which there are.
    """
    files = log_files(home, job)
    fitting = [log for log in files if log.rank == rank and attempt in (None, log.attempt)]
    if fitting:
        return fitting[-1]
    wanted = f"rank {rank}" + ("" if attempt is None else f" in attempt {attempt}")
    if not files:
        raise InputError(
            f"{job.job_id} has written no log yet: it is {job.state}. See why: wattledger explain {job.job_id}"
        )
    known = "; ".join(f"attempt {log.attempt} rank {log.rank}" for log in files)
    raise InputError(f"{job.job_id} has no log of {wanted}. There are: {known}.")


def read_log(path: Path, *, tail: int | None = None) -> Iterator[str]:
    """A log's text in pieces, all of it or its last ``tail`` lines; bytes that are no UTF-8 are shown as such."""
    with path.open("rb") as file:
        if tail is not None:
            file.seek(_start_of_tail(path, tail))
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while piece := file.read(_BLOCK):
            yield decoder.decode(piece)
        yield decoder.decode(b"", final=True)


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last lines of a log that say something; none where there is no log."""
    if not path.exists():
        return ()
    lines = "".join(read_log(path, tail=4 * count)).splitlines()
    return tuple([line.rstrip() for line in lines if line.strip()][-count:])


def _start_of_tail(path: Path, lines: int) -> int:
    """Where the last ``lines`` lines begin, in bytes: read from the end, since a log may be larger than memory."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        wanted = lines + 1  # the break before the first of them; the last line's own is not one between lines
        if start and lines:
            file.seek(-1, os.SEEK_END)
            wanted -= file.read(1) != b"\n"
        while start > 0 and lines:
            size = min(_BLOCK, start)
            start -= size
            file.seek(start)
            block = file.read(size)
            breaks = block.count(b"\n")
            if breaks >= wanted:
                place = len(block)
                for _ in range(wanted):
                    place = block.rindex(b"\n", 0, place)
                return start + place + 1
            wanted -= breaks
        return start


@dataclass(frozen=True, kw_only=True)
class LogPiece:
    """What a followed log said next: ``text`` of an attempt as it is written, or a ``notice`` about the job."""

    attempt: int | None = None
    text: str = ""
    notice: str = ""


class LogFollower:
    """Reads the log of a job that may still run, across its attempts, until the job has ended and all is read.

    Args:
        home: the ledger's folders.
        job: says how the job stands now; asked once a poll.
        sleep: waits so many seconds.
        why: says what a job waits for.
        attempt: only this one; ``None``: from the last there is on.
        tail: lines of what is there already; ``None``: all.
    """

    def __init__(
        self,
        home: Home,
        job: Callable[[], JobRecord],
        *,
        sleep: Callable[[float], object],
        why: Callable[[JobRecord], str | None],
        attempt: int | None = None,
        rank: int = 0,
        tail: int | None = None,
    ) -> None:
        self._home, self._job, self._sleep, self._why = home, job, sleep, why
        self._only, self._rank, self._tail = attempt, rank, tail
        self._waited = False

    def pieces(self) -> Iterator[LogPiece]:
        """Everything that is said, as it comes; ends with the job, or with the attempt that was named."""
        number: int | None = self._only
        while True:
            job = self._job()
            if number is None and job.attempts:
                number = job.attempts[-1].number
            attempt = _numbered(job, number)
            if attempt is not None:
                yield from self._attempt(job, attempt)
                number = attempt.number + 1
                if self._only is not None:
                    return
                continue
            if job.state.is_final:
                return
            if not self._waited:
                self._waited = True
                reason = self._why(job)
                yield LogPiece(notice=f"{job.job_id} is {job.state}{f': {reason}' if reason else ''}")
            self._sleep(POLL_S)

    def _attempt(self, job: JobRecord, attempt: AttemptRecord) -> Iterator[LogPiece]:
        """One attempt, from its first line to its end."""
        where = f" on {attempt.accelerator}" if attempt.accelerator else ""
        yield LogPiece(attempt=attempt.number, notice=f"attempt {attempt.number} of {job.job_id}{where}")
        path = log_path(self._home, job.job_id, attempt=attempt.number, rank=self._rank)
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        place = _start_of_tail(path, self._tail) if self._tail is not None and path.exists() else 0
        self._tail = None  # of what was there when we came; what comes later is shown whole
        while True:
            # Asked before reading: what an attempt wrote before it ended is then read to its last line.
            now = _numbered(self._job(), attempt.number)
            for piece in _from(path, place):
                place += len(piece)
                if text := decoder.decode(piece):
                    yield LogPiece(attempt=attempt.number, text=text)
            if now is None or now.ended_ns is not None:
                break
            self._sleep(POLL_S)
        yield LogPiece(attempt=attempt.number, text=decoder.decode(b"", final=True), notice=_end(now))
        self._waited = False


def _end(attempt: AttemptRecord | None) -> str:
    if attempt is None:
        return ""
    return f"attempt {attempt.number} {attempt.state}{f': {attempt.reason}' if attempt.reason else ''}"


def _numbered(job: JobRecord, number: int | None) -> AttemptRecord | None:
    return next((attempt for attempt in job.attempts if attempt.number == number), None)


def _from(path: Path, place: int) -> Iterator[bytes]:
    """What a file has from ``place`` on; nothing where it is not there yet."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(place)
        while piece := file.read(_BLOCK):
            yield piece
