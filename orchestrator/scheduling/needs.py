"""What a queued job's needs make of it: it may go, it waits, or it never runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.lifecycle import JobRecord, JobState


@dataclass(frozen=True, kw_only=True, slots=True)
class InVain:
    """A job that can never start, since one that it needs did not succeed.

    Attributes:
        then: the state it ends in; ``reason``: names the job it needed.
    """

    then: JobState
    reason: str


_WORDS = {
    JobState.QUEUED: "waits itself",
    JobState.RUNNING: "runs",
    JobState.STOPPING: "is stopping",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "was cancelled",
    JobState.SKIPPED: "was skipped",
}


def in_vain(job: JobRecord, states: Mapping[str, JobState]) -> InVain | None:
    """How ``job`` ends because of the first of its needs that cannot be met any more; ``None`` while all still can.

    A need that ``states`` does not know is nowhere, so it is never met.
    """
    for need in job.spec.needs:
        state = states.get(need)
        if state is None:
            return InVain(then=JobState.SKIPPED, reason=f"needs {need}, which is not in this ledger")
        if state.is_final and state is not JobState.SUCCEEDED:
            then = JobState.CANCELLED if state is JobState.CANCELLED else JobState.SKIPPED
            return InVain(then=then, reason=f"needs {need}, which {_WORDS[state]}")
    return None


def waits_for(job: JobRecord, states: Mapping[str, JobState]) -> str | None:
    """Which needs ``job`` still waits for, as a reason for people; ``None`` when all have succeeded."""
    missing = [need for need in job.spec.needs if states.get(need) is not JobState.SUCCEEDED]
    if not missing:
        return None
    state = states.get(missing[0])
    what = f"{missing[0]}, which {_WORDS[state] if state else 'is not in this ledger'}"
    return f"waits for {what}{f', and for {len(missing) - 1} more' if len(missing) > 1 else ''}"
