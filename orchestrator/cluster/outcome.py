"""How a part of an attempt ended, and the file in the attempt's folder that says so to a later controller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from workers.home import Home


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a part ended; of several ranks, the first that did not end well.

    Attributes:
        exit_code: negative for a signal, as ``subprocess`` has it; ``None`` when it never started or was lost.
        reason: why it did not end well; ``None`` when it did.
        ended_ns: by its node's clock, ns since the epoch; ``None`` when nobody saw it.
    """

    exit_code: int | None
    reason: str | None
    ended_ns: int | None


def keep_outcome(folder: Path, part: int, outcome: Outcome) -> None:
    """Write it down in the attempt's folder.

    Raises:
        OSError: the disk refuses.
    """
    replace_file(_file(folder, part), json.dumps(asdict(outcome)))


def kept_outcome(home: Home, job_id: str, attempt: int, part: int) -> Outcome | None:
    """What a part wrote when it ended; ``None`` when it did not, or the disk refused it."""
    try:
        return Outcome(**json.loads(_file(home.attempt_folder(job_id, attempt), part).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def combined(outcomes: Sequence[Outcome]) -> Outcome:
    """How an attempt ended, given how its parts did: as the first of them that did not end well.

    One that was lost comes before those that ended: they may have failed for want of it, and been seen first.
    """
    lost = [outcome for outcome in outcomes if outcome.exit_code is None]
    bad = [outcome for outcome in outcomes if outcome.exit_code]
    said = min(lost or bad or outcomes, key=lambda outcome: outcome.ended_ns or 0)
    ends_ns = [outcome.ended_ns for outcome in outcomes if outcome.ended_ns is not None]
    return replace(said, ended_ns=max(ends_ns) if len(ends_ns) == len(outcomes) else None)


def replace_file(path: Path, text: str) -> None:
    """Write a file; whoever reads it meanwhile finds the old one or the new one, whole."""
    aside = path.with_name(f".{path.name}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _file(folder: Path, part: int) -> Path:
    return folder / (f"outcome-{part}.json" if part else "outcome.json")
