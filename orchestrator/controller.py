"""The shell around the decisions: look, decide, apply, over and over.

Everything it decides is in the store before or as it happens; everything it asks of a cluster goes through the port,
so the same loop drives Ray and the fake. It may end at any point: the next one takes up what the store says is running.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence

from orchestrator.cluster.port import Cluster, Ended
from orchestrator.lifecycle import IllegalTransitionError, JobState, Stop
from orchestrator.mirror import Mirror
from orchestrator.quotas import Quota
from orchestrator.scheduling.outlook import outlook
from orchestrator.scheduling.placement import Decisions, Placement, Preemption
from orchestrator.scheduling.retries import follow_up
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import Store
from workers.errors import LedgerError
from workers.units import NS_PER_S

RECONSIDER_NS = 5 * NS_PER_S
"""A queue is looked at anew after this long even where nothing seems to have changed: time alone decides, too."""
LOOK_NS = NS_PER_S // 4
"""Between two looks at a cluster where nothing is known to have changed: what joins it waits for so long at most."""
RELEASE_NS = NS_PER_S
"""After an end, or a change by others, the cluster is looked at in every step for so long: a place shows as free a
moment after it is left, and whoever has just submitted a job waits for it."""


class Controller:
    """Drives jobs to their ends. For one thread.

    Args:
        store: the decisions; ``cluster``: where attempts run.
        run_ids: the only runs it drives; none: all that are bound to no process.
        clock_ns: the time, ns since the epoch.
        patience_s: a job that no node could run, were it empty, fails after so long; ``None``: it waits for ever.

    Attributes:
        view: the cluster as it was last seen; ``None`` before the first look.
        trouble: what keeps it from its work, for people; ``None`` when nothing does.
        is_holding: whether it starts nothing new. May be set from outside.
    """

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        *,
        run_ids: Collection[str] = (),
        clock_ns: Callable[[], int] = time.time_ns,
        patience_s: float | None = None,
    ) -> None:
        self._store, self._cluster, self._clock_ns = store, cluster, clock_ns
        self._patience_ns = None if patience_s is None else round(patience_s * NS_PER_S)
        self._mirror = Mirror(store, run_ids=run_ids)
        self._ends: dict[tuple[str, int], Ended] = {}  # not noted yet
        self._held: set[str] = set()  # jobs with an attempt on the cluster
        self._told: dict[str, Stop] = {}  # what attempts were asked, by job
        self._hopeless_since_ns: dict[str, int] = {}
        self._decided: tuple[ClusterView, Sequence[Quota]] | None = None
        self._decided_ns = 0
        self._viewed_ns: int | None = None  # not since something changed
        self._changed_ns: int | None = None
        self.view: ClusterView | None = None
        self.trouble: str | None = None
        self.is_holding = False

    def adopt(self) -> None:
        """Take up every attempt that the store says is running. Once, before the first step.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        self._mirror.refresh()
        for job in self._mirror.jobs.values():
            if job.state.holds_place:
                last = job.attempts[-1]
                self._cluster.adopt(job.spec, attempt=last.number, nodes=last.nodes)
                self._held.add(job.job_id)

    def step(self, *, wait_s: float) -> bool:
        """Wait up to ``wait_s`` for an attempt to end, do all there is to do, and give whether jobs are left.

        A ledger that cannot be written is ``trouble``, not an end: nothing new starts, and ends wait to be noted.
        """
        for ended in self._cluster.ended(timeout_s=self._wait_s(wait_s)):
            self._ends[ended.job_id, ended.attempt] = ended
            self._held.discard(ended.job_id)
            self._changed_ns = self._clock_ns()
        try:
            if self._refresh():
                self._changed_ns = self._clock_ns()
            self._ask_to_leave()
            self._note_ends()
            self._settle_needs()
            self._keep_limits()
            self._look_ahead()
            self.trouble = None
        except LedgerError as error:
            self.trouble = str(error)
        return bool(self._mirror.jobs or self._ends or self.trouble)

    def _wait_s(self, longest_s: float) -> float:
        """Up to the next moment at which something is due."""
        now_ns = self._clock_ns()
        next_ns = self._mirror.next_ns(now_ns)
        return longest_s if next_ns is None else min(longest_s, (next_ns - now_ns) / NS_PER_S)

    def _refresh(self) -> bool:
        """Take over what changed in the ledger, and give whether anything did; that is a reason to decide anew."""
        has_changed = bool(self._mirror.refresh())
        if has_changed:
            self._decided = self._viewed_ns = None
        return has_changed

    def _ask_to_leave(self) -> None:
        """Pass on to attempts what their jobs were asked; to those whose job was ended by others, too."""
        leaving = self._mirror.leaving
        for job_id, stop in leaving.items() - self._told.items():
            self._cluster.stop(job_id, checkpoint=stop is Stop.PREEMPT)
        self._told = dict(leaving)
        for job_id in self._held - self._mirror.jobs.keys():
            self._cluster.stop(job_id, checkpoint=False)
            self._held.discard(job_id)

    def _note_ends(self) -> None:
        """Write down which attempts are over, and what becomes of their jobs."""
        if not self._ends:
            return
        with self._store.together():
            # Read within the transaction: nobody can ask for anything between the look and what follows from it.
            self._refresh()
            now_ns = self._clock_ns()
            for ended in self._ends.values():
                job = self._mirror.jobs.get(ended.job_id)
                if job is None or not job.state.holds_place or job.attempts[-1].number != ended.attempt:
                    continue  # others have ended it in the ledger
                after = follow_up(job, ended, now_ns)
                self._store.end_attempt(
                    job.job_id,
                    ended.attempt,
                    state=after.attempt_state,
                    reason=after.reason,
                    then=after.then,
                    now_ns=now_ns,
                    ready_ns=after.ready_ns,
                    ended_ns=ended.ended_ns,
                )
        self._ends.clear()
        self._refresh()

    def _settle_needs(self) -> None:
        """End the jobs that wait in vain, and those that wait for them, down to the last."""
        while hopeless := self._mirror.in_vain():
            with self._store.together():
                for job_id, verdict in hopeless.items():
                    self._set_state(job_id, verdict.then, verdict.reason)
            self._refresh()

    def _keep_limits(self) -> None:
        """Ask those to leave whose time is up; of those that wait, that is the end."""
        overdue = self._mirror.overdue(self._clock_ns())
        if not overdue:
            return
        with self._store.together():
            for job_id, limit in overdue.items():
                if self._mirror.jobs[job_id].state is JobState.QUEUED:
                    self._set_state(job_id, JobState.FAILED, limit.reason)
                else:
                    self._store.request_stop(job_id, limit.stop, reason=limit.reason, now_ns=self._clock_ns())
        self._refresh()
        self._ask_to_leave()

    def _set_state(self, job_id: str, state: JobState, reason: str) -> None:
        with contextlib.suppress(IllegalTransitionError):  # somebody cancelled it meanwhile
            self._store.set_state(job_id, state, reason=reason, now_ns=self._clock_ns())

    def _look_ahead(self) -> None:
        """Decide who starts and who leaves, where something is other than when that was last decided."""
        if not any(job.state is JobState.QUEUED for job in self._mirror.jobs.values()):
            return
        now_ns = self._clock_ns()
        is_due = self._decided is None or self._is_time(now_ns)
        if self.is_holding or not (is_due or self._may_look(now_ns)):
            return
        view, quotas = self.look(), self._store.quotas()
        if not is_due and self._decided == (view, quotas):
            return
        seen = outlook(
            self._mirror.jobs.values(),
            self._mirror.states,
            cluster=view,
            now_ns=now_ns,
            usage=self._mirror.usage(now_ns),
            quotas=quotas,
        )
        self._preempt(seen.decisions.preemptions)
        self._start(seen.decisions.placements)
        self._give_up(seen.decisions, now_ns)
        self._decided_ns = now_ns
        # What was seen is what was decided on: room that others leave meanwhile is a change, and so is what starts.
        self._decided = view, quotas
        self._refresh()
        self._ask_to_leave()

    def look(self) -> ClusterView:
        """The cluster as it is now: asked, unless that was done a moment ago and nothing has changed since."""
        now_ns = self._clock_ns()
        if self.view is None or self._may_look(now_ns):
            self.view, self._viewed_ns = self._cluster.view(), now_ns
        return self.view

    def _may_look(self, now_ns: int) -> bool:
        is_releasing = self._changed_ns is not None and now_ns - self._changed_ns < RELEASE_NS
        is_fresh = self._viewed_ns is not None and 0 <= now_ns - self._viewed_ns < LOOK_NS
        return is_releasing or not is_fresh

    def _is_time(self, now_ns: int) -> bool:
        return now_ns - self._decided_ns >= RECONSIDER_NS or self._mirror.became_ready(self._decided_ns, now_ns)

    def _preempt(self, preemptions: Sequence[Preemption]) -> None:
        if preemptions:
            with self._store.together():
                for one in preemptions:
                    self._store.request_stop(one.job_id, Stop.PREEMPT, reason=one.reason, now_ns=self._clock_ns())

    def _start(self, placements: Sequence[Placement]) -> None:
        """Write down all that start, then launch them."""
        if not placements:
            return
        started: list[tuple[Placement, int]] = []
        with self._store.together():
            for one in placements:
                with contextlib.suppress(IllegalTransitionError):  # somebody cancelled it meanwhile
                    number = self._store.start_attempt(
                        one.job_id,
                        nodes=one.nodes,
                        accelerator=one.accelerator,
                        now_ns=self._clock_ns(),
                        why=one.why,
                    )
                    started.append((one, number))
        for one, number in started:
            self._cluster.launch(self._mirror.jobs[one.job_id].spec, attempt=number, nodes=one.nodes)
            self._held.add(one.job_id)

    def _give_up(self, decisions: Decisions, now_ns: int) -> None:
        """Fail the jobs that no node could have run for longer than is waited for one to join."""
        if self._patience_ns is None:
            return
        since_ns, hopeless = self._hopeless_since_ns, [one for one in decisions.waiting if one.impossible]
        self._hopeless_since_ns = {one.job_id: since_ns.get(one.job_id, now_ns) for one in hopeless}
        given_up = [one for one in hopeless if now_ns - self._hopeless_since_ns[one.job_id] >= self._patience_ns]
        if given_up:
            with self._store.together():
                for one in given_up:
                    self._set_state(one.job_id, JobState.FAILED, one.reason)
