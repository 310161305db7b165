"""Whatever the jobs, the nodes and the fates of attempts: the loop ends, keeps its books and repeats itself."""

import contextlib
import itertools
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cluster.fake import FakeCluster
from orchestrator.controller import Controller
from orchestrator.lifecycle import JobState
from orchestrator.scheduling.snapshot import NodeView
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec

TYPES = ("H100", "L4", "T4")
TENTHS = 10
LONGEST = 3
"""Looks an attempt lasts at most."""


@st.composite
def nodes(draw):
    found = []
    for number in range(draw(st.integers(0, 3))):
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
            )
        )
    return tuple(found)


@st.composite
def jobs(draw):
    return [
        JobSpec(
            job_id=f"job-{number}",
            task="digits",
            model="tiny/vit",
            resources={
                "gpus": draw(st.sampled_from([0, 1, 1, 1, 2])),
                "accelerators": tuple(draw(st.lists(st.sampled_from(TYPES), unique=True, max_size=2))),
                "cpus": draw(st.integers(1, 20)) / TENTHS,
                "memory_gb": draw(st.none() | st.integers(1, 100).map(lambda tenths: tenths / TENTHS)),
            },
            schedule={"priority": draw(st.integers(-1, 1))},
            retry={"failures": draw(st.integers(0, 3))},
        )
        for number in range(draw(st.integers(0, 8)))
    ]


fates = st.lists(st.tuples(st.sampled_from([0, 0, 1, 137, None]), st.integers(1, LONGEST)), min_size=1, max_size=12)
"""Exit code and length of attempts, taken in turn by job and number."""


class Run:
    """A run over a fake cluster, from its first step to ``stop_after`` or its end."""

    def __init__(self, specs, places, told, *, stop_after=None):
        def fate(spec, number):
            return told[(int(spec.job_id.partition("-")[2]) * 7 + number) % len(told)]

        self.cluster = FakeCluster(
            places, outcome=lambda spec, number: fate(spec, number)[0], lasts=lambda spec, number: fate(spec, number)[1]
        )
        ticks = itertools.count(1)
        attempts = sum(1 + spec.retry.failures for spec in specs)
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(Store(Path(folder) / "state.db")) as store:
            store.submit(RunRecord(run_id="r", name="n", manifest="", submitted_ns=0, host="h", pid=1), specs)
            controller = Controller(store, self.cluster, run_id="r", clock_ns=lambda: next(ticks))
            for step in itertools.count():
                if step == stop_after:
                    controller.cancel()
                if not controller.step(wait_s=0):
                    break
                assert step <= 1 + LONGEST * attempts, "the loop does not end"
            self.jobs = store.jobs()
            self.events = [store.events(job.job_id) for job in self.jobs]


@settings(max_examples=60, deadline=None)
@given(jobs(), nodes(), fates)
def test_the_loop_ends_with_every_job_in_a_final_state_and_nothing_left_running(specs, places, told):
    run = Run(specs, places, told)
    assert [job.job_id for job in run.jobs] == [spec.job_id for spec in specs]
    assert all(job.state.is_final for job in run.jobs)
    assert run.cluster.running == {}


@settings(max_examples=60, deadline=None)
@given(jobs(), nodes(), fates)
def test_a_job_is_tried_as_often_as_its_retries_allow_and_stops_at_its_first_success(specs, places, told):
    for job in Run(specs, places, told).jobs:
        states = [attempt.state for attempt in job.attempts]
        assert len(states) <= 1 + job.spec.retry.failures
        assert [attempt.number for attempt in job.attempts] == list(range(1, len(states) + 1))
        if job.state is JobState.SUCCEEDED:
            assert states == [JobState.FAILED] * (len(states) - 1) + [JobState.SUCCEEDED]
        else:
            assert job.reason
            assert states in ([], [JobState.FAILED] * (1 + job.spec.retry.failures))


@settings(max_examples=60, deadline=None)
@given(jobs(), nodes(), fates)
def test_no_two_attempts_of_a_job_run_at_once_and_each_is_started_once(specs, places, told):
    run = Run(specs, places, told)
    assert set(Counter((one.spec.job_id, one.attempt) for one in run.cluster.history).values()) <= {1}
    noted = sorted((job.job_id, attempt.number, attempt.node) for job in run.jobs for attempt in job.attempts)
    assert noted == sorted((one.spec.job_id, one.attempt, one.node_id) for one in run.cluster.history)
    for job in run.jobs:
        times = [time for attempt in job.attempts for time in (attempt.started_ns, attempt.ended_ns)]
        assert times == sorted(set(times)), "each ends before the next starts"


@settings(max_examples=60, deadline=None)
@given(jobs(), nodes(), fates, st.integers(0, 6))
def test_a_run_cancelled_at_any_step_ends_there_and_starts_nothing_more(specs, places, told, step):
    whole, cut = Run(specs, places, told), Run(specs, places, told, stop_after=step)
    assert all(job.state.is_final for job in cut.jobs)
    assert cut.cluster.running == {}
    assert cut.cluster.history == whole.cluster.history[: len(cut.cluster.history)]
    for job in cut.jobs:
        assert all(attempt.state is not JobState.RUNNING for attempt in job.attempts)


@settings(max_examples=50, deadline=None)
@given(jobs(), nodes(), fates)
def test_the_same_again_gives_the_same_answer(specs, places, told):
    first, second = Run(specs, places, told), Run(specs, places, told)
    assert (first.jobs, first.events) == (second.jobs, second.events)
    assert first.cluster.history == second.cluster.history
