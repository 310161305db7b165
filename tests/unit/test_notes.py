"""Notes of power limits survive ``kill -9``, and a living process's note is nobody else's business."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.errors import CapError
from workers.powercap.notes import LimitNotes

CAP_AND_BE_KILLED = """
import os, signal, sys
from pathlib import Path
from workers.powercap.notes import LimitNotes
LimitNotes(Path(sys.argv[1])).keep("GPU-1", 650_000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_capping(folder: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", CAP_AND_BE_KILLED, str(folder)], check=False)
    assert ended.returncode == -9


def test_a_note_that_cannot_be_written_refuses_the_cap_and_says_where(tmp_path: Path) -> None:
    notes = LimitNotes(tmp_path / "gone")
    with pytest.raises(CapError, match=rf"GPU-1 is not capped: .*Make room in {tmp_path / 'gone'}"):
        notes.keep("GPU-1", 650_000)
    assert notes.original_mw("GPU-1") is None


def test_the_note_of_a_living_process_is_neither_adopted_nor_overwritten(tmp_path: Path) -> None:
    ours, theirs = LimitNotes(tmp_path), LimitNotes(tmp_path)
    ours.keep("GPU-1", 650_000)
    theirs.adopt(["GPU-1"])
    assert theirs.original_mw("GPU-1") is None
    with pytest.raises(CapError, match="capped by another agent"):
        theirs.keep("GPU-1", 300_000)
    assert (tmp_path / "GPU-1.limit").read_text() == "650000\n"
    ours.drop("GPU-1")


def test_a_note_left_empty_means_that_nothing_was_changed_yet(tmp_path: Path) -> None:
    (tmp_path / "GPU-1.limit").touch()
    notes = LimitNotes(tmp_path)
    notes.adopt(["GPU-1"])
    assert notes.original_mw("GPU-1") is None
    assert list(tmp_path.iterdir()) == []


def test_dropping_what_was_never_kept_is_harmless(tmp_path: Path) -> None:
    LimitNotes(tmp_path).drop("GPU-1")
    LimitNotes().drop("GPU-1")


def test_a_killed_process_leaves_its_note_to_the_next(tmp_path: Path) -> None:
    killed_while_capping(tmp_path)
    notes = LimitNotes(tmp_path)
    notes.adopt(["GPU-0", "GPU-1"])
    assert (notes.original_mw("GPU-0"), notes.original_mw("GPU-1")) == (None, 650_000)
    notes.drop("GPU-1")
    assert list(tmp_path.iterdir()) == []


def test_a_cap_after_a_kill_that_nobody_noticed_goes_back_to_the_oldest_limit(tmp_path: Path) -> None:
    notes = LimitNotes(tmp_path)
    killed_while_capping(tmp_path)
    assert notes.keep("GPU-1", 300_000) == 650_000
    assert notes.keep("GPU-1", 200_000) == 650_000
    notes.drop("GPU-1")


def test_without_a_folder_notes_live_in_memory() -> None:
    notes = LimitNotes()
    notes.adopt(["GPU-1"])
    assert notes.keep("GPU-1", 650_000) == notes.original_mw("GPU-1") == 650_000
    notes.drop("GPU-1")
    assert notes.original_mw("GPU-1") is None
