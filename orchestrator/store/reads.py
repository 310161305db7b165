"""What can be asked of the ledger of decisions: runs, jobs with their attempts, and what happened to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.lifecycle import TABLE, AttemptRecord, AttemptState, JobRecord, JobState, Stop
from orchestrator.store.database import Database, Row
from orchestrator.store.records import AttemptSpan, RunRecord
from workers.contract import JobSpec
from workers.errors import UnknownNameError

UNFINISHED = f"state IN ({', '.join(repr(str(state)) for state in TABLE if not state.is_final)})"
_JOBS = (
    "SELECT job_id, run_id, sequence, spec, state, reason, jobs.submitted_ns, user, ready_ns, stop, bound "
    "FROM jobs JOIN runs USING (run_id)"
)
_ATTEMPTS = "SELECT job_id, number, state, reason, node, accelerator, started_ns, ended_ns FROM attempts"


class Reads(Database):
    """The questions, answered from the last whole change."""

    def __init__(self, path: Path) -> None:
        self._specs: dict[str, JobSpec] = {}  # a job's spec never changes, and reading one costs more than its row
        super().__init__(path)

    def runs(self, *, unfinished: bool = False) -> tuple[RunRecord, ...]:
        """All runs, or those with a job that is not in a final state; the latest first."""
        rows = self._rows(
            "SELECT run_id, name, manifest, submitted_ns, host, pid, user, bound FROM runs WHERE NOT ? OR run_id IN "
            f"(SELECT run_id FROM jobs WHERE {UNFINISHED}) ORDER BY submitted_ns DESC, rowid DESC",
            (unfinished,),
        )
        return tuple(
            RunRecord(run_id=a, name=b, manifest=c, submitted_ns=d, host=e, pid=f, user=g, bound=bool(h))
            for a, b, c, d, e, f, g, h in rows
        )

    def jobs(self, *, run_id: str | None = None, unfinished: bool = False) -> tuple[JobRecord, ...]:
        """The jobs of one run, or all, or of these the ones that are in no final state, in order of submission."""
        conditions = [*(["run_id = ?"] if run_id is not None else []), *([UNFINISHED] if unfinished else [])]
        where = " AND ".join(conditions) or "TRUE"
        return self._find(where, () if run_id is None else (run_id,))

    def job(self, job_id: str) -> JobRecord:
        """One job.

        Raises:
            UnknownNameError: no such job; lists those there are.
        """
        found = self._find("job_id = ?", (job_id,))
        if not found:
            raise self._unknown(job_id)
        return found[0]

    def states(self, job_ids: Iterable[str]) -> Mapping[str, JobState]:
        """The states of these jobs, by id; those that are not there are left out."""
        asked = json.dumps(list(job_ids))
        rows = self._rows("SELECT job_id, state FROM jobs JOIN json_each(?) ON value = job_id", (asked,))
        return {job_id: JobState(state) for job_id, state in rows}

    def last_event(self) -> int:
        """The number of the latest event; 0 before the first. Nothing changes without one."""
        return int(self._rows("SELECT coalesce(max(event_id), 0) FROM events")[0][0])

    def jobs_changed(self, *, after_event: int) -> tuple[JobRecord, ...]:
        """The jobs something happened to after that event, as they are now."""
        return self._find("job_id IN (SELECT job_id FROM events WHERE event_id > ?)", (after_event,))

    def events(self, job_id: str) -> tuple[tuple[int, str], ...]:
        """What happened to a job: ``(time_ns, sentence)``, oldest first."""
        rows = self._rows("SELECT time_ns, what FROM events WHERE job_id = ? ORDER BY event_id", (job_id,))
        return tuple((int(time_ns), str(what)) for time_ns, what in rows)

    def ended_before(self, time_ns: int) -> Mapping[str, JobState]:
        """The jobs that have ended, whose last event was before ``time_ns``: their states, by id."""
        rows = self._rows(
            "SELECT job_id, state FROM jobs JOIN events USING (job_id) GROUP BY job_id HAVING max(time_ns) < ?",
            (time_ns,),
        )
        found = {str(job_id): JobState(state) for job_id, state in rows}
        return {job_id: state for job_id, state in found.items() if state.is_final}

    def attempt_spans(self, since_ns: int) -> tuple[AttemptSpan, ...]:
        """The GPUs that attempts held which run or ended after ``since_ns``, in no order that means anything."""
        rows = self._rows(
            "SELECT user, json_extract(spec, '$.resources.gpus') * "
            "(1 + length(node) - length(replace(node, ',', ''))),"
            " started_ns, ended_ns FROM attempts JOIN jobs USING (job_id) JOIN runs USING (run_id) "
            "WHERE ended_ns IS NULL OR ended_ns > ?",
            (since_ns,),
        )
        return tuple(AttemptSpan(*row) for row in rows)

    def _find(self, where: str, parameters: tuple[object, ...]) -> tuple[JobRecord, ...]:
        """The jobs a condition of ours holds for. A change in between is in neither answer or in both."""
        with self._snapshot():
            rows = self._rows(f"{_JOBS} WHERE {where} ORDER BY jobs.submitted_ns, run_id, sequence", parameters)
            tried = self._rows(
                f"{_ATTEMPTS} WHERE job_id IN (SELECT job_id FROM jobs WHERE {where}) ORDER BY number", parameters
            )
        return self._records(rows, tried)

    def _records(self, rows: Iterable[Row], tried: Iterable[Row]) -> tuple[JobRecord, ...]:
        attempts: dict[str, list[AttemptRecord]] = {}
        for job_id, *fields in tried:
            attempts.setdefault(job_id, []).append(_attempt(*fields))
        return tuple(
            JobRecord(
                spec=self._spec(job_id, spec),
                run_id=run_id,
                sequence=sequence,
                state=JobState(state),
                reason=reason,
                submitted_ns=submitted_ns,
                attempts=tuple(attempts.get(job_id, ())),
                user=user,
                ready_ns=ready_ns,
                stop=None if stop is None else Stop(stop),
                bound=bool(bound),
            )
            for job_id, run_id, sequence, spec, state, reason, submitted_ns, user, ready_ns, stop, bound in rows
        )

    def _spec(self, job_id: str, text: str) -> JobSpec:
        if job_id not in self._specs:
            self._specs[job_id] = JobSpec.from_json(text, source=f"job {job_id} of the ledger")
        return self._specs[job_id]

    def _unknown(self, job_id: str) -> UnknownNameError:
        return UnknownNameError("job", job_id, [name for (name,) in self._rows("SELECT job_id FROM jobs")])


def _attempt(
    number: int, state: str, reason: str | None, nodes: str, accelerator: str | None, *times: int | None
) -> AttemptRecord:
    started_ns, ended_ns = times
    assert started_ns is not None
    return AttemptRecord(
        number=number,
        state=AttemptState(state),
        reason=reason,
        nodes=tuple(nodes.split(",")),
        accelerator=accelerator,
        started_ns=started_ns,
        ended_ns=ended_ns,
    )
