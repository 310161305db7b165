"""Where a ledger keeps its files. One object knows every path; it creates nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.errors import InputError
from workers.names import JOB_ID_PATTERN, NODE_PATTERN

ENVIRONMENT_VARIABLE = "WATTLEDGER_HOME"


@dataclass(frozen=True)
class Home:
    """The home directory of a ledger.

    Attributes:
        root: a local folder; it need not exist yet.
    """

    root: Path

    @classmethod
    def default(cls, environ: Mapping[str, str] = os.environ) -> Home:
        """The folder named by ``WATTLEDGER_HOME``, else ``~/.wattledger``.

        Raises:
            InputError: ``WATTLEDGER_HOME`` is a URI, which this version does not read.
        """
        named = environ.get(ENVIRONMENT_VARIABLE, "")
        if "://" in named:
            raise InputError(f"{ENVIRONMENT_VARIABLE} is a URI ({named}); name a local folder instead.")
        return cls(Path(named or "~/.wattledger").expanduser().absolute())

    @property
    def state_db(self) -> Path:
        """Decisions: the SQLite file."""
        return self.root / "state.db"

    @property
    def run(self) -> Path:
        """Files of running processes: sockets, pid files, ports. Worthless after a reboot."""
        return self.root / "run"

    @property
    def carbon(self) -> Path:
        """Carbon intensity: hours that were asked for over HTTP, and the files of users' own that runs were given."""
        return self.root / "carbon"

    def series(self, run_id: str) -> Path:
        """Folder of the intensity files that a run was given.

        Raises:
            InputError: the run id does not fit a folder.
        """
        return self.carbon / "series" / _job_id(run_id)

    def metrics(self, job_id: str, attempt: int) -> Path:
        """Folder of one attempt's metric log.

        Raises:
            InputError: the job id or the attempt is not one.
        """
        return self.root / "metrics" / f"job_id={_job_id(job_id)}" / f"attempt={_attempt(attempt)}"

    def energy(self, node: str | None = None) -> Path:
        """Folder of one node's energy log; of all nodes' when ``node`` is ``None``.

        Raises:
            InputError: the name does not fit a folder.
        """
        folder = self.root / "energy"
        return folder if node is None else folder / f"node={_node(node)}"

    def clock(self, node: str) -> Path:
        """Measurements of a node's clock against the head's, one a line.

        Raises:
            InputError: the name does not fit a file.
        """
        return self.root / "clocks" / f"{_node(node)}.jsonl"

    def artifacts(self, job_id: str) -> Path:
        """Folder of a job's artifacts.

        Raises:
            InputError: the job id is not one.
        """
        return self.root / "artifacts" / _job_id(job_id)

    def checkpoints(self, job_id: str) -> Path:
        """Folder of a job's checkpoints, all attempts'.

        Raises:
            InputError: the job id is not one.
        """
        return self.artifacts(job_id) / "checkpoints"

    def attempt_folder(self, job_id: str, attempt: int) -> Path:
        """Folder of one attempt's artifacts.

        Raises:
            InputError: the job id or the attempt is not one.
        """
        return self.artifacts(job_id) / f"attempt-{_attempt(attempt)}"


def _job_id(name: str) -> str:
    if not re.fullmatch(JOB_ID_PATTERN, name):
        raise InputError(f"{name!r} cannot be a job id: use up to 128 letters, digits, '.', '_' or '-'.")
    return name


def _node(name: str) -> str:
    if not re.fullmatch(NODE_PATTERN, name):
        raise InputError(f"{name!r} cannot be a node's name: use up to 255 letters, digits, '.', '_', ':' or '-'.")
    return name


def _attempt(number: int) -> int:
    if number < 1:
        raise InputError(f"attempt {number} cannot be: attempts are counted from 1.")
    return number
