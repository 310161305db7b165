"""The changes: submissions, attempts that start and end, requests to stop. Each is one transaction, with events."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from orchestrator.lifecycle import AttemptState, IllegalTransitionError, JobState, Stop, check_transition
from orchestrator.quotas import QuotaScope, quota_of
from orchestrator.store.reads import Reads
from orchestrator.store.records import RunRecord
from orchestrator.store.settings import Settings
from workers.contract import JobSpec
from workers.errors import InputError


class Store(Reads, Settings):
    """The decisions of one ledger. One connection, for one thread; several processes may each have their own.

    Raises:
        InputError: the file is no ledger of ours, or a newer version's, or cannot be opened.
        LedgerError: from every method, when the file cannot be read or written; then nothing has changed.
    """

    def submit(self, run: RunRecord, specs: Sequence[JobSpec]) -> int:
        """Add a run and its jobs, all or none; gives how many were new. Jobs that are there already stay as they are.

        A run of which no job is new is not added.

        Raises:
            InputError: a quota of queued jobs does not allow it, or a job needs one that is nowhere; or the disk
                refuses. Nothing was submitted.
        """
        with self.together():
            known = self.states(spec.job_id for spec in specs)
            new = [(sequence, spec) for sequence, spec in enumerate(specs) if spec.job_id not in known]
            if new:
                self._check_needs([spec for _, spec in new])
                self._check_quotas(run.user, [spec for _, spec in new])
                self._add_run(run)
                self._add_jobs(run, new)
            return len(new)

    def _check_needs(self, specs: Sequence[JobSpec]) -> None:
        wanted = {need: spec.job_id for spec in specs for need in spec.needs}
        missing = sorted(wanted.keys() - {spec.job_id for spec in specs} - self.states(wanted).keys())
        if missing:
            raise InputError(
                f"job {wanted[missing[0]]} needs {missing[0]}, which is not in the ledger; nothing was submitted. "
                "Submit it first, or with it."
            )

    def _check_quotas(self, user: str | None, specs: Sequence[JobSpec]) -> None:
        quotas = [quota for quota in self.quotas() if quota.queued_jobs is not None]
        more: Counter[tuple[QuotaScope, str | None]] = Counter({("user", user): len(specs)})
        more.update(("project", spec.accounting.project) for spec in specs)
        for (scope, name), count in more.items():
            quota = quota_of(quotas, scope, name)
            if quota is None or quota.queued_jobs is None or name is None:
                continue
            queued = self._queued(scope, name)
            if queued + count > quota.queued_jobs:
                raise InputError(
                    f"{scope} {name} has {queued} jobs in the queue and may have {quota.queued_jobs}, so {count} more "
                    "are too many; nothing was submitted. Wait, cancel some, or raise it: wattledger quota set"
                )

    def _queued(self, scope: QuotaScope, name: str) -> int:
        whose = "user" if scope == "user" else "json_extract(spec, '$.accounting.project')"
        return int(
            self._rows(
                f"SELECT count(*) FROM jobs JOIN runs USING (run_id) WHERE state = ? AND {whose} = ?",
                (JobState.QUEUED, name),
            )[0][0]
        )

    def _add_run(self, run: RunRecord) -> None:
        self._change(
            "INSERT INTO runs (run_id, name, manifest, submitted_ns, host, pid, user, bound) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (run_id) DO NOTHING",
            (run.run_id, run.name, run.manifest, run.submitted_ns, run.host, run.pid, run.user, run.bound),
        )

    def _add_jobs(self, run: RunRecord, new: Sequence[tuple[int, JobSpec]]) -> None:
        self._change_each(
            "INSERT INTO jobs (job_id, run_id, sequence, spec, state, submitted_ns) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (spec.job_id, run.run_id, sequence, spec.to_json(), JobState.QUEUED, run.submitted_ns)
                for sequence, spec in new
            ],
        )
        self._change_each(
            "INSERT INTO events (job_id, time_ns, what) VALUES (?, ?, ?)",
            [(spec.job_id, run.submitted_ns, f"submitted with {run.run_id}") for _, spec in new],
        )

    def start_attempt(
        self, job_id: str, *, nodes: Sequence[str], accelerator: str | None, now_ns: int, why: str | None = None
    ) -> int:
        """The job runs: record a new attempt on ``nodes``, rank 0's first, and give its number.

        ``why`` is the reason for this place, for the job's story.

        Raises:
            UnknownNameError: no such job.
            IllegalTransitionError: it is not queued.
        """
        with self.together():
            self._move(job_id, JobState.RUNNING, None, now_ns)
            ((last,),) = self._rows("SELECT coalesce(max(number), 0) FROM attempts WHERE job_id = ?", (job_id,))
            number = int(last) + 1
            self._change(
                "INSERT INTO attempts (job_id, number, state, node, accelerator, started_ns) VALUES (?, ?, ?, ?, ?, ?)",
                (job_id, number, AttemptState.RUNNING, ",".join(nodes), accelerator, now_ns),
            )
            place = f"{', '.join(nodes)}{f' ({accelerator})' if accelerator else ''}{f': {why}' if why else ''}"
            self._event(job_id, now_ns, f"attempt {number} starts on {place}")
            return number

    def end_attempt(
        self,
        job_id: str,
        number: int,
        *,
        state: AttemptState,
        reason: str | None,
        then: JobState,
        now_ns: int,
        ready_ns: int = 0,
        ended_ns: int | None = None,
    ) -> None:
        """The attempt ended in ``state``; the job goes on to ``then`` (queued again, or a final state).

        A job that is queued again is not started before ``ready_ns``. ``ended_ns`` is when the attempt ended, where
        that is better known than by ``now_ns``.

        Raises:
            UnknownNameError: no such job.
            IllegalTransitionError: that attempt is not running, or the job cannot become ``then``.
        """
        with self.together():
            # Another node's clock may be off: an attempt ends neither before it started nor after it was seen to end.
            ended = self._change(
                "UPDATE attempts SET state = ?, reason = ?, ended_ns = max(started_ns, min(?, ?)) "
                "WHERE job_id = ? AND number = ? AND state = ?",
                (state, reason, ended_ns or now_ns, now_ns, job_id, number, AttemptState.RUNNING),
            )
            if not ended:
                raise IllegalTransitionError(
                    f"attempt {number} of job {job_id} does not run, so it cannot become {state}."
                )
            self._event(job_id, now_ns, f"attempt {number} {state}{': ' + reason if reason else ''}")
            self._move(job_id, then, reason, now_ns, ready_ns=ready_ns)

    def set_state(self, job_id: str, state: JobState, *, reason: str | None, now_ns: int) -> None:
        """Move a job that has no running attempt.

        Raises:
            UnknownNameError: no such job.
            IllegalTransitionError: it cannot become ``state``, or an attempt runs, which ``end_attempt`` must end.
        """
        with self.together():
            running = self._running(job_id)
            if running is not None:
                raise IllegalTransitionError(f"attempt {running} of job {job_id} runs: end it to make the job {state}.")
            self._move(job_id, state, reason, now_ns)

    def request_stop(self, job_id: str, stop: Stop, *, reason: str, now_ns: int) -> JobState:
        """Ask a job to leave its place, and give the state it is in then; the controller sees to the rest.

        A queued job that is cancelled is so at once; other stops mean nothing to it. To cancel takes the place of
        what was asked before, nothing else does. A job that has ended stays as it is.

        Raises:
            UnknownNameError: no such job.
        """
        with self.together():
            now, before = self._state(job_id)
            if now is JobState.QUEUED and stop is Stop.CANCEL:
                self._move(job_id, JobState.CANCELLED, reason, now_ns)
                return JobState.CANCELLED
            if now is JobState.RUNNING:
                self._move(job_id, JobState.STOPPING, reason, now_ns, stop=stop)
                return JobState.STOPPING
            if now is JobState.STOPPING and stop is Stop.CANCEL and before is not Stop.CANCEL:
                self._change("UPDATE jobs SET stop = ?, reason = ? WHERE job_id = ?", (stop, reason, job_id))
                self._event(job_id, now_ns, f"{before} becomes {stop}: {reason}")
            return now

    def finish(self, run_id: str, state: JobState, *, reason: str, now_ns: int) -> None:
        """End every job of a run that has not ended, and its running attempt, in the final ``state``."""
        with self.together():
            for job in self.jobs(run_id=run_id, unfinished=True):
                running = self._running(job.job_id)
                if running is None:
                    self._move(job.job_id, state, reason, now_ns)
                else:
                    attempt_state = AttemptState(state)
                    self.end_attempt(job.job_id, running, state=attempt_state, reason=reason, then=state, now_ns=now_ns)

    def forget_events(self, job_ids: Iterable[str]) -> int:
        """Remove all events of these jobs but the last of each, so that numbers never go back; gives how many."""
        asked = json.dumps(list(job_ids))
        with self.together():
            return self._change(
                "DELETE FROM events WHERE job_id IN (SELECT value FROM json_each(?)) "
                "AND event_id < (SELECT max(event_id) FROM events AS later WHERE later.job_id = events.job_id)",
                (asked,),
            )

    def _move(
        self,
        job_id: str,
        state: JobState,
        reason: str | None,
        now_ns: int,
        *,
        ready_ns: int = 0,
        stop: Stop | None = None,
    ) -> None:
        now, _ = self._state(job_id)
        check_transition(job_id, now, state)
        self._change(
            "UPDATE jobs SET state = ?, reason = ?, ready_ns = ?, stop = ? WHERE job_id = ?",
            (state, reason, ready_ns, stop, job_id),
        )
        self._event(job_id, now_ns, f"{now} -> {state}{': ' + reason if reason else ''}")

    def _state(self, job_id: str) -> tuple[JobState, Stop | None]:
        found = self._rows("SELECT state, stop FROM jobs WHERE job_id = ?", (job_id,))
        if not found:
            raise self._unknown(job_id)
        ((state, stop),) = found
        return JobState(state), None if stop is None else Stop(stop)

    def _running(self, job_id: str) -> int | None:
        """The number of the job's running attempt."""
        found = self._rows("SELECT number FROM attempts WHERE job_id = ? AND state = ?", (job_id, AttemptState.RUNNING))
        return int(found[0][0]) if found else None

    def _event(self, job_id: str, now_ns: int, what: str) -> None:
        self._change("INSERT INTO events (job_id, time_ns, what) VALUES (?, ?, ?)", (job_id, now_ns, what))
