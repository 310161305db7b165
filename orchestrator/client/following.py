"""Jobs are watched to their ends, and stopped where that is wished; the ledger is all that is read and written."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence

from orchestrator.client.controllers import live_controller
from orchestrator.client.ledger import open_store
from orchestrator.client.observer import Observer
from orchestrator.custody import controller_name
from orchestrator.lifecycle import JobRecord, Stop
from orchestrator.queue_view.names import find_jobs
from orchestrator.store import Store
from workers.errors import UnreachableError
from workers.home import Home

POLL_S = 0.2
CANCELLED = "cancelled by its user"
BOOKS_S = 30.0
"""Every agent is asked to write what it booked, 10 s each at most and all at once; then the controller says so."""


class Followed:
    """Jobs of some runs, read anew when something happened, and only then.

    Args:
        store: the ledger's decisions, of ``home``.
        run_ids: the runs.
        observer: is told how they stand, and when their controller falls silent.
        only: these jobs of them; ``None``: all.
    """

    def __init__(
        self,
        store: Store,
        home: Home,
        run_ids: Sequence[str],
        *,
        observer: Observer,
        only: frozenset[str] | None = None,
    ) -> None:
        self._store, self._home, self._run_ids, self._observer, self._only = store, home, run_ids, observer, only
        bound = {run.run_id for run in store.runs() if run.bound}
        self._controllers = {controller_name(run_id if run_id in bound else None) for run_id in run_ids}
        self._seen, self._heard_s, self._is_silent = -1, time.monotonic(), False
        self.jobs: Sequence[JobRecord] = ()

    def look(self) -> bool:
        """See how they stand and tell it; whether some go on."""
        if (event := self._store.last_event()) != self._seen:
            jobs = [job for run_id in self._run_ids for job in self._store.jobs(run_id=run_id)]
            self._seen, self.jobs = event, [job for job in jobs if self._only is None or job.job_id in self._only]
        self._observer.progressed(self._home, self.jobs)
        return not all(job.state.is_final for job in self.jobs)

    def until_over(self, *, patience_s: float = math.inf) -> None:
        """Look until all have ended. A controller that is silent is waited for, since it is started again.

        Raises:
            UnreachableError: it was silent for longer than ``patience_s``.
        """
        while self.look():
            self._listen(patience_s)
            time.sleep(POLL_S)

    def stop(self, reason: str) -> None:
        """Ask those that have not ended to leave."""
        with self._store.together():
            for job in self.jobs:
                if not job.state.is_final:
                    self._store.request_stop(job.job_id, Stop.CANCEL, reason=reason, now_ns=time.time_ns())

    def until_booked(self) -> None:
        """Once all have ended: wait until the agents have written what they booked, which the next beat tells."""
        ended_ns = max((self._store.events(job.job_id)[-1][0] for job in self.jobs), default=0)
        deadline_s = time.monotonic() + BOOKS_S
        while time.monotonic() < deadline_s:
            records = [live_controller(self._store, name) for name in self._controllers]
            if all(record is None or record.beat_ns > ended_ns for record in records):
                return
            time.sleep(POLL_S)

    @property
    def is_served(self) -> bool:
        """Whether a controller sees to them."""
        return all(live_controller(self._store, name) is not None for name in self._controllers)

    def _listen(self, patience_s: float) -> None:
        if self.is_served:
            self._heard_s, self._is_silent = time.monotonic(), False
        elif not self._is_silent:
            self._is_silent = True
            self._observer.say("the controller is silent; jobs that run go on, and its return is waited for")
        if time.monotonic() - self._heard_s > patience_s:
            raise UnreachableError("the controller does not come back: its cluster is gone. Run it again.")


def cancel(
    names: Sequence[str], *, home: Home, observer: Observer, reason: str = CANCELLED, wait: bool = True
) -> tuple[JobRecord, ...]:
    """Cancel jobs, and give them as they are then; jobs that need them are cancelled by the controller.

    Jobs that have ended stay as they are, so twice does no harm.

    Args:
        names: job ids or beginnings of them, run ids, manifest names.
        home: the ledger.
        observer: is told how the jobs stand meanwhile.
        reason: what is noted of them.
        wait: until they have ended.

    Raises:
        UnknownNameError: nothing is called so.
        InputError: it is the beginning of several jobs' ids, or there is no ledger.
        UnreachableError: a job runs, and no controller sees to it; it is cancelled once there is one.
    """
    with contextlib.closing(open_store(home)) as store:
        found = {job.job_id: job for name in names for job in find_jobs(store, name)}
        going_on = [job for job in found.values() if not job.state.is_final]
        run_ids = list(dict.fromkeys(job.run_id for job in going_on))
        only = frozenset(job.job_id for job in going_on)
        followed = Followed(store, home, run_ids, observer=observer, only=only)
        followed.look()
        followed.stop(reason)
        while wait and followed.look():
            if not followed.is_served:
                raise UnreachableError(
                    "the jobs are marked to be cancelled, but no controller is there to stop those that run. Start "
                    "one: wattledger up"
                )
            time.sleep(POLL_S)
        return tuple(store.job(job_id) for job_id in found)
