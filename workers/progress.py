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
    """Where an attempt is, and what an estimate of its end needs.

    Attributes:
        phase: the phase it is in.
        position: that phase's place among the attempt's phases, from 1, of ``phases``.
        done: units of the phase done, of ``total``; ``total`` 0 means not known.
        loss: the last loss; ``None`` outside training.
        updated_ns: when this was written, ns since the epoch.
        started_ns: when the attempt's first phase began; ``phase_started_ns``: when this one did. 0: not noted.
        carried: of ``done``, what an earlier attempt did: it took no time of this one.
        job_done: units of all phases done, of ``job_total``, ``job_carried`` of them by an earlier attempt;
            ``job_total`` 0 means not known.
    """

    phase: Phase
    position: int
    phases: int
    done: int
    total: int
    loss: float | None
    updated_ns: int
    started_ns: int = 0
    phase_started_ns: int = 0
    carried: int = 0
    job_done: int = 0
    job_total: int = 0
    job_carried: int = 0

    @property
    def fraction(self) -> float:
        """Share of the whole attempt that is done, 0 to 1: by units where all are known, else each phase alike."""
        if self.job_total:
            return self.job_done / self.job_total
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
    # Of another version it may say more than this one knows.
    known = {name: value for name, value in fields.items() if name in Progress.__dataclass_fields__}
    return Progress(**{**known, "phase": Phase(fields["phase"])})
