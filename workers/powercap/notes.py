"""Remembers what the limit of a board was before this process lowered it, so that it comes back even after ``kill -9``.

A note is one small file per board, locked for as long as the board is capped. The kernel drops the lock however its
holder ends, so a note that can be locked was left behind, and whoever finds it puts the limit back. A limit does not
survive a reboot, so notes belong in a folder that need not either.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from workers.errors import CapError


class LimitNotes:
    """The limits from before the first cap, mW, by device. Without a folder they are kept in memory alone."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files: dict[str, int] = {}
        self._kept_mw: dict[str, int] = {}

    def original_mw(self, device: str) -> int | None:
        """The limit to go back to; ``None`` when the device is not capped."""
        return self._kept_mw.get(device)

    def keep(self, device: str, limit_mw: int) -> int:
        """Note that ``device`` was at ``limit_mw``, before changing that; gives the limit to go back to.

        A note that is there already stands: the limit it tells of is the one from before the *first* cap.

        Raises:
            CapError: another process has capped the device, or the note cannot be written.
        """
        if device in self._kept_mw:
            return self._kept_mw[device]
        try:
            if self._folder is not None and not self._lock(device, self._folder):
                raise CapError(
                    f"{device} is capped by another agent of this machine. Lease from that agent (--agent), "
                    "or wait until its job has ended."
                )
            found = self._read(device)
            self._kept_mw[device] = limit_mw if found is None else found
            self._write(device)
        except OSError as error:
            self.drop(device)
            raise CapError(
                f"{device} is not capped: its present limit cannot be noted: {error}. Make room in {self._folder}."
            ) from error
        return self._kept_mw[device]

    def drop(self, device: str) -> None:
        """The device is back at its limit."""
        self._kept_mw.pop(device, None)
        file = self._files.pop(device, None)
        if file is not None and self._folder is not None:
            with contextlib.suppress(FileNotFoundError):
                _path(self._folder, device).unlink()
            os.close(file)

    def adopt(self, devices: Iterable[str]) -> None:
        """Take over the notes that processes which are gone have left on ``devices``."""
        for device in devices:
            if self._folder is None or not _path(self._folder, device).exists() or not self._lock(device, self._folder):
                continue
            found = self._read(device)
            if found is None:
                self.drop(device)
            else:
                self._kept_mw[device] = found

    def _lock(self, device: str, folder: Path) -> bool:
        """Make or take over the file of ``device``; ``False`` when a living process holds it."""
        while True:
            file = os.open(_path(folder, device), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return False
            if os.fstat(file).st_nlink:
                self._files[device] = file
                return True
            # Its holder dropped it between our opening and our locking: this file has no name any more.
            os.close(file)

    def _read(self, device: str) -> int | None:
        """What the file says; ``None`` for one whose writer died before it wrote, and so before it capped."""
        text = os.pread(self._files[device], 32, 0).strip() if device in self._files else b""
        return int(text) if text.isdigit() else None

    def _write(self, device: str) -> None:
        if device in self._files:
            os.pwrite(self._files[device], f"{self._kept_mw[device]}\n".encode(), 0)


def _path(folder: Path, device: str) -> Path:
    return folder / f"{device}.limit"
