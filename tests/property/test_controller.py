"""Whatever the jobs, the nodes, the fates of attempts and the deaths of controllers: the books are kept, all ends."""

import contextlib
import itertools
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.fake import FakeCluster
from orchestrator.controller import Controller
from orchestrator.lifecycle import AttemptState, JobState, Stop
from orchestrator.scheduling.deadlines import deadline_ns
from orchestrator.scheduling.outlook import outlook
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec

TYPES = ("H100", "L4", "T4")
TENTHS = 10
PATIENCE_S = 20.0
LIMIT = 2_000


@st.composite
def nodes(draw):
    found = []
    for number in range(draw(st.integers(0, 4))):
        gpus, cpus = draw(st.integers(0, 3)), draw(st.integers(1, 40)) / TENTHS
        memory = draw(st.none() | st.integers(1, 320))
        found.append(
            NodeView(
                node_id=f"id-{number}",
                name=f"node-{number}",
                accelerator=draw(st.sampled_from(TYPES)) if gpus else None,
                simulated=True,
                gpus_total=gpus,
                gpus_free=gpus,
                cpus_total=cpus,
                cpus_free=cpus,
                memory_free_gb=None if memory is None else memory / TENTHS,
                memory_total_gb=None if memory is None else memory / TENTHS,
                labels=draw(st.sampled_from([{}, {"rack": "1"}])),
            )
        )
    return tuple(found)


@st.composite
def jobs(draw):
    count = draw(st.integers(0, 8))
    return [
        JobSpec(
            job_id=f"job-{number}",
            task="digits",
            model="tiny/vit",
            resources={
                "gpus": draw(st.sampled_from([0, 1, 1, 1, 2, 0.5, 0.3])),
                "nodes": draw(st.sampled_from([1, 1, 1, 2])),
                "labels": draw(st.sampled_from([{}, {}, {"rack": "1"}])),
                "accelerators": tuple(draw(st.lists(st.sampled_from(TYPES), unique=True, max_size=2))),
                "cpus": draw(st.integers(1, 20)) / TENTHS,
                "memory_gb": draw(st.none() | st.integers(1, 100).map(lambda tenths: tenths / TENTHS)),
            },
            schedule={
                "priority": draw(st.integers(-1, 1)),
                "preemptible": draw(st.booleans()),
                "time_limit_s": draw(st.none() | st.sampled_from([3.0, 30.0])),
                "deadline": draw(st.none() | st.sampled_from(["1970-01-01T00:00:15Z", "1970-01-01T01:00:00Z"])),
            },
            retry={
                "failures": draw(st.integers(0, 2)),
                "losses": draw(st.integers(0, 3)),
                "backoff_s": draw(st.sampled_from([0.0, 1.0, 7.0])),
            },
            needs=draw(st.lists(st.sampled_from([f"job-{n}" for n in range(number)]), unique=True, max_size=2))
            if number
            else (),
        )
        for number in range(count)
    ]


fates = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 2, 137, None]), st.sampled_from([0.0, 1.0, 4.0, 9.0])),
    min_size=1,
    max_size=12,
)
"""Exit code and seconds of attempts, taken in turn by job and number."""
acts = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.one_of(
            st.just(("kill",)),
            st.just(("kill before launch",)),
            st.tuples(st.just("lose"), st.integers(0, 3)),
            st.tuples(st.just("join"), st.integers(0, 3)),
            st.tuples(st.just("cancel"), st.integers(0, 7)),
        ),
    ),
    max_size=8,
)
"""What happens before which step."""


class KilledError(Exception):
    """The controller died where it stood."""


class Mortal(FakeCluster):
    """One whose controller may die at the next launch: what it noted was never launched."""

    kills = False

    def launch(self, spec, *, attempt, nodes):
        if self.kills:
            self.kills = False
            raise KilledError
        super().launch(spec, attempt=attempt, nodes=nodes)


class Run:
    """A ledger over a fake cluster, driven to the end of all its jobs through everything that happens."""

    def __init__(self, specs, places, told, acts=(), lag_s=0.0):
        def fate(spec, number):
            return told[(int(spec.job_id.partition("-")[2]) * 7 + number) % len(told)]

        self.cluster = Mortal(
            places,
            outcome=lambda spec, number: fate(spec, number)[0],
            lasts_s=lambda spec, number: fate(spec, number)[1],
            leaves_s=lambda _, saves: 2.0 if saves else 0.5,
            starts=lambda spec, number: fate(spec, number + 3)[0] != 137,
            lag_s=lag_s,
        )
        self._places, self._acts = places, acts
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(Store(Path(folder) / "state.db")) as store:
            self.store = store
            store.submit(RunRecord(run_id="r", name="n", manifest="", submitted_ns=0, host="h", pid=1), specs)
            self._begin()
            for step in itertools.count():
                self._act(step)
                if not self._step():
                    break
                self._look()
                assert step < LIMIT, f"the loop does not end: {store.jobs(unfinished=True)}"
            self.jobs = store.jobs()
            self.events = [store.events(job.job_id) for job in self.jobs]

    def _begin(self):
        self.controller = Controller(self.store, self.cluster, clock_ns=self.cluster.clock, patience_s=PATIENCE_S)
        self.controller.adopt()

    def _step(self):
        try:
            return self.controller.step(wait_s=1.0)
        except KilledError:
            self.cluster.close()
            self._begin()
            return True

    def _act(self, step):
        for what, *whom in [act for at, act in self._acts if at == step]:
            if what == "kill":
                self.cluster.close()
                self._begin()
            elif what == "kill before launch":
                self.cluster.kills = True
            elif what == "cancel" and any(job.job_id == f"job-{whom[0]}" for job in self.store.jobs()):
                now_ns = self.cluster.clock()
                self.store.request_stop(f"job-{whom[0]}", Stop.CANCEL, reason="not wanted", now_ns=now_ns)
            elif what in ("lose", "join") and whom[0] < len(self._places):
                place = self._places[whom[0]]
                is_alive = next(one.alive for one in self.cluster.view().nodes if one.node_id == place.node_id)
                if what == "lose":
                    self.cluster.lose(place.node_id)
                elif not is_alive:
                    self.cluster.join(place)

    def _look(self):
        """What must hold after every step."""
        unfinished = self.store.jobs(unfinished=True)
        holding = {job.job_id for job in unfinished if job.state.holds_place}
        assert set(self.cluster.running) <= holding, "nothing runs that the ledger does not know"
        for job in unfinished:
            running = [attempt for attempt in job.attempts if attempt.state is AttemptState.RUNNING]
            assert len(running) == job.state.holds_place
        states = {job.job_id: job.state for job in self.store.jobs()}
        found = outlook(unfinished, states, cluster=self.cluster.view(), now_ns=self.cluster.clock())
        waiting = {job.job_id for job in unfinished if job.state is JobState.QUEUED}
        assert found.reasons.keys() == waiting
        assert all(found.reasons.values())


EVERYTHING = (jobs(), nodes(), fates, acts, st.sampled_from([0.0, 0.0, 2.5]))


def all_jobs_end_none_is_lost_and_nothing_is_left_running(run, specs):
    assert [job.job_id for job in run.jobs] == [spec.job_id for spec in specs]
    assert all(job.state.is_final for job in run.jobs)
    assert all(attempt.state is not AttemptState.RUNNING for job in run.jobs for attempt in job.attempts)
    assert all(job.reason for job in run.jobs if job.state is not JobState.SUCCEEDED)
    assert run.cluster.running == {}


def both_budgets_of_retries_are_kept(run):
    for job in run.jobs:
        ended = Counter(attempt.state for attempt in job.attempts)
        assert [attempt.number for attempt in job.attempts] == list(range(1, len(job.attempts) + 1))
        assert ended[AttemptState.FAILED] <= 1 + job.spec.retry.failures
        assert ended[AttemptState.LOST] + ended[AttemptState.PREEMPTED] <= 1 + job.spec.retry.losses
        assert ended[AttemptState.SUCCEEDED] == (job.state is JobState.SUCCEEDED)
        if job.state is JobState.SUCCEEDED:
            assert job.attempts[-1].state is AttemptState.SUCCEEDED


def each_attempt_is_launched_once_at_most_and_ends_before_the_next_starts(run):
    launched = Counter((one.spec.job_id, one.attempt, one.nodes) for one in run.cluster.history)
    noted = {(job.job_id, attempt.number, attempt.nodes) for job in run.jobs for attempt in job.attempts}
    assert set(launched.values()) <= {1}
    assert launched.keys() <= noted
    for job in run.jobs:
        times = [time for attempt in job.attempts for time in (attempt.started_ns, attempt.ended_ns)]
        assert times == sorted(times)
        assert all(len(attempt.nodes) == job.spec.resources.nodes for attempt in job.attempts)


def a_job_starts_only_after_all_it_needs_has_succeeded_and_never_after_its_deadline(run):
    ended_ns = {
        job.job_id: job.attempts[-1].ended_ns for job in run.jobs if job.state is JobState.SUCCEEDED and job.attempts
    }
    for job in run.jobs:
        for attempt in job.attempts:
            assert all(ended_ns[need] <= attempt.started_ns for need in job.spec.needs)
            if job.spec.schedule.deadline is not None:
                assert attempt.started_ns < deadline_ns(job.spec.schedule.deadline)
        if job.state is JobState.SKIPPED:
            assert job.attempts == ()


@settings(max_examples=120, deadline=None)
@given(*EVERYTHING)
def test_whatever_happens_jobs_end_within_their_budgets_run_once_at_a_time_and_after_what_they_need(
    specs, places, told, acts, lag_s
):
    run = Run(specs, places, told, acts, lag_s)
    all_jobs_end_none_is_lost_and_nothing_is_left_running(run, specs)
    both_budgets_of_retries_are_kept(run)
    each_attempt_is_launched_once_at_most_and_ends_before_the_next_starts(run)
    a_job_starts_only_after_all_it_needs_has_succeeded_and_never_after_its_deadline(run)


@settings(max_examples=40, deadline=None)
@given(*EVERYTHING)
def test_the_same_again_gives_the_same_answer(specs, places, told, acts, lag_s):
    first, second = Run(specs, places, told, acts, lag_s), Run(specs, places, told, acts, lag_s)
    assert (first.jobs, first.events) == (second.jobs, second.events)
    assert first.cluster.history == second.cluster.history
