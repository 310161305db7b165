"""How far an attempt is: a small JSON file, renamed into place, that anybody may read while the attempt runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from workers.contract import Phase
from workers.home import Home

FILE_NAME = "progress.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an attempt is.

    Attributes:
        phase: the phase it is in.
        position: that phase's place among the attempt's phases, from 1, of ``phases``.
        done: units of the phase done, of ``total``; ``total`` 0 means not known.
        loss: the last loss; ``None`` outside training.
        updated_ns: when this was written, ns since the epoch.
    """

    phase: Phase
    position: int
    phases: int
    done: int
    total: int
    loss: float | None
    updated_ns: int

    @property
    def fraction(self) -> float:
        """Share of the whole attempt that is done, each phase counting alike; 0 to 1."""
        within = self.done / self.total if self.total else 0.0
        return (self.position - 1 + within) / self.phases


def write_progress(folder: Path, progress: Progress) -> None:
    """Replace the progress file in ``folder``, which must exist."""
    temporary = folder / f".{FILE_NAME}"
    temporary.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    temporary.replace(folder / FILE_NAME)


def read_progress(home: Home, job_id: str, attempt: int) -> Progress | None:
    """The last progress of an attempt; ``None`` before its first."""
    try:
        fields = json.loads((home.attempt_folder(job_id, attempt) / FILE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return Progress(**{**fields, "phase": Phase(fields["phase"])})
