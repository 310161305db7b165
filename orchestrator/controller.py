"""The shell around the decisions: look, decide, apply, over and over, until a run's jobs are all done.

Everything it decides is in the store before or as it happens; everything it asks of a cluster goes through the port,
so the same loop drives Ray and the fake.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from orchestrator.cluster.port import Cluster, Ended
from orchestrator.lifecycle import JobRecord, JobState
from orchestrator.scheduling.placement import place
from orchestrator.store import Store

CANCELLED = "the run was cancelled"


class Controller:
    """Drives the jobs of one run to their ends. For one thread."""

    def __init__(
        self, store: Store, cluster: Cluster, *, run_id: str, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self._store, self._cluster, self._run_id, self._clock_ns = store, cluster, run_id, clock_ns

    def step(self, *, wait_s: float) -> bool:
        """Take note of what ended (waiting up to ``wait_s``), then start what can be; ``True`` while work is left."""
        for ended in self._cluster.ended(timeout_s=wait_s):
            self._note(ended)
        jobs = {job.job_id: job for job in self._store.jobs(run_id=self._run_id)}
        queue = [job for job in jobs.values() if job.state is JobState.QUEUED]
        if queue:
            self._start(jobs, queue)
        return any(not job.state.is_final for job in jobs.values())

    def cancel(self, reason: str = CANCELLED) -> None:
        """Stop everything of this run that has not ended; harmless when all has.

        All attempts are stopped before anything is noted: they must not go on where the disk refuses the notes.
        """
        now_ns = self._clock_ns()
        for job in self._store.jobs(run_id=self._run_id):
            if job.state is JobState.RUNNING:
                self._cluster.cancel(job.job_id)
        self._store.finish(self._run_id, JobState.CANCELLED, reason=reason, now_ns=now_ns)

    def _start(self, jobs: Mapping[str, JobRecord], queue: list[JobRecord]) -> None:
        decisions = place(queue, self._cluster.view())
        for placement in decisions.placements:
            spec = jobs[placement.job_id].spec
            attempt = self._store.start_attempt(
                placement.job_id,
                node=placement.node_id,
                accelerator=placement.accelerator,
                now_ns=self._clock_ns(),
            )
            self._cluster.launch(spec, attempt=attempt, node_id=placement.node_id)
        for waiting in decisions.waiting:
            if waiting.impossible:
                self._store.set_state(waiting.job_id, JobState.FAILED, reason=waiting.reason, now_ns=self._clock_ns())

    def _note(self, ended: Ended) -> None:
        """An attempt is over: the job is done, tried again, or failed."""
        job = self._store.job(ended.job_id)
        state = JobState.SUCCEEDED if ended.succeeded else JobState.FAILED
        tries_left = job.spec.retry.failures + 1 - len(job.attempts)
        then = JobState.QUEUED if state is JobState.FAILED and tries_left > 0 else state
        self._store.end_attempt(
            ended.job_id, ended.attempt, state=state, reason=ended.reason, then=then, now_ns=self._clock_ns()
        )
