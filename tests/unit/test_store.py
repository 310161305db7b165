"""The ledger of decisions: what it refuses, that it never holds half a change, and the story it tells."""

from __future__ import annotations

import contextlib
import multiprocessing
import resource
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from orchestrator.lifecycle import AttemptState, IllegalTransitionError, JobState, Stop
from orchestrator.quotas import Quota
from orchestrator.store import SCHEMA_VERSION, AttemptSpan, BudgetRecord, ControllerRecord, RunRecord, Store
from workers.contract import Accounting, JobSpec, Resources
from workers.errors import InputError, LedgerError, UnknownNameError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with contextlib.closing(Store(path)) as opened:
        yield opened


def run(run_id: str = "r", *, at_ns: int = 100) -> RunRecord:
    return RunRecord(run_id=run_id, name="study", manifest="name: study", submitted_ns=at_ns, host="here", pid=7)


def specs(*job_ids: str) -> list[JobSpec]:
    return [JobSpec(job_id=job_id, name="study", task="digits", model="tiny/vit") for job_id in job_ids]


def start(store: Store, job_id: str, *, now_ns: int = 200) -> int:
    return store.start_attempt(job_id, nodes=("n1",), accelerator="H100", now_ns=now_ns)


def start_all(store: Store, *job_ids: str) -> None:
    with store.together():
        for job_id in job_ids:
            start(store, job_id)


def execute(path: Path, *statements: str) -> None:
    """Change the file behind the store's back, as another program would."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


class TestRefusals:
    def test_a_newer_ledger_is_refused_with_the_remedy(self, path: Path) -> None:
        Store(path).close()
        execute(path, f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        with pytest.raises(InputError, match=r"written by a newer Wattledger .* Upgrade, or name another folder"):
            Store(path)

    def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"
        path.write_text("dear diary" * 100)
        with pytest.raises(
            InputError, match=r"cannot be used as a ledger: file is not a database. Name another folder"
        ):
            Store(path)
        assert path.read_text() == "dear diary" * 100

    @pytest.mark.parametrize("version", [0, SCHEMA_VERSION])
    def test_another_programs_database_is_refused_and_gets_no_table_of_ours(self, tmp_path: Path, version: int) -> None:
        path = tmp_path / "state.db"
        execute(path, "CREATE TABLE runs (theirs TEXT)", f"PRAGMA user_version={version}")
        with pytest.raises(InputError, match=r"is a database, but no ledger. Name another folder"):
            Store(path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("runs",)]

    def test_a_file_in_place_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "ledger").write_text("a file")
        with pytest.raises(InputError, match=r"cannot be used as a ledger.*Name another folder"):
            Store(tmp_path / "ledger" / "state.db")

    def test_a_folder_in_place_of_the_file_is_refused(self, path: Path) -> None:
        path.mkdir(parents=True)
        with pytest.raises(InputError, match="cannot be used as a ledger"):
            Store(path)

    def test_a_torn_ledger_is_told_instead_of_read(self, path: Path, store: Store) -> None:
        store.submit(run(), specs(*(f"job-{number}" for number in range(100))))
        store.close()
        whole = path.read_bytes()
        path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
        refused = pytest.raises(InputError, match=r"the ledger cannot be read|cannot be used as a ledger")
        with refused, contextlib.closing(Store(path)) as torn:
            torn.jobs()

    def test_a_full_disk_refuses_the_submission_whole_and_says_so(self, path: Path, store: Store) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(LedgerError, match=r"the ledger cannot be written: .* Free disk space"):
                store.submit(run(), specs(*(f"job-{number}" for number in range(2000))))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (store.runs(), store.jobs()) == ((), ())
        assert store.submit(run(), specs("a")) == 1, "it goes on once there is room"

    def test_where_the_database_itself_goes_back_its_own_reason_is_told(self, path: Path, store: Store) -> None:
        refuse = "BEGIN SELECT raise(ROLLBACK, 'disk is full'); END"
        execute(path, f"CREATE TRIGGER refuse BEFORE INSERT ON jobs {refuse}")
        with pytest.raises(InputError, match=r"the ledger cannot be written: disk is full\."):
            store.submit(run(), specs("a"))
        execute(path, "DROP TRIGGER refuse")
        assert store.runs() == ()
        assert store.submit(run(), specs("a")) == 1

    def test_an_unknown_job_is_refused_with_those_there_are(self, store: Store) -> None:
        store.submit(run(), specs("alpha", "beta"))
        for ask in (
            lambda: store.job("alpah"),
            lambda: start(store, "alpah"),
            lambda: store.set_state("alpah", JobState.CANCELLED, reason=None, now_ns=1),
        ):
            with pytest.raises(
                UnknownNameError, match=r"unknown job 'alpah'. Did you mean 'alpha'\? Known: alpha, beta"
            ):
                ask()
        assert [job.attempts for job in store.jobs()] == [(), ()]


class TestTransitions:
    def test_an_illegal_one_changes_nothing_and_leaves_no_event(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        store.set_state("a", JobState.CANCELLED, reason="not wanted", now_ns=150)
        before = store.job("a"), store.events("a")
        with pytest.raises(IllegalTransitionError, match="job a is cancelled and cannot become running"):
            start(store, "a")
        assert (store.job("a"), store.events("a")) == before

    def test_an_attempt_that_ended_does_not_end_again(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        store.end_attempt("a", 1, state=AttemptState.FAILED, reason="bad", then=JobState.QUEUED, now_ns=300)
        start(store, "a", now_ns=400)
        before = store.job("a"), store.events("a")
        with pytest.raises(
            IllegalTransitionError, match="attempt 1 of job a does not run, so it cannot become succeeded"
        ):
            store.end_attempt("a", 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=500)
        assert (store.job("a"), store.events("a")) == before

    def test_an_attempt_ends_as_nothing_its_job_cannot_become(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        before = store.job("a"), store.events("a")
        with pytest.raises(IllegalTransitionError, match="job a is running and cannot become running"):
            store.end_attempt("a", 1, state=AttemptState.FAILED, reason="bad", then=JobState.RUNNING, now_ns=300)
        assert (store.job("a"), store.events("a")) == before

    def test_a_job_is_not_moved_from_under_its_running_attempt(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        with pytest.raises(IllegalTransitionError, match="attempt 1 of job a runs: end it to make the job cancelled"):
            store.set_state("a", JobState.CANCELLED, reason=None, now_ns=300)
        assert store.job("a").state is JobState.RUNNING

    def test_a_failed_attempt_puts_its_job_back_into_the_queue_with_the_reason(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        store.end_attempt("a", 1, state=AttemptState.FAILED, reason="bad luck", then=JobState.QUEUED, now_ns=300)
        job = store.job("a")
        assert (job.state, job.reason) == (JobState.QUEUED, "bad luck")

    def test_attempts_are_numbered_from_one_and_kept(self, store: Store) -> None:
        store.submit(run(), specs("a", "b"))
        assert start(store, "a", now_ns=200) == 1
        store.end_attempt("a", 1, state=AttemptState.FAILED, reason="bad", then=JobState.QUEUED, now_ns=300)
        assert start(store, "a", now_ns=400) == 2
        assert start(store, "b", now_ns=400) == 1
        first, second = store.job("a").attempts
        assert (first.number, first.state, first.reason) == (1, AttemptState.FAILED, "bad")
        assert (first.started_ns, first.ended_ns) == (200, 300)
        assert (second.number, second.state, second.reason) == (2, AttemptState.RUNNING, None)
        assert (second.nodes, second.accelerator, second.started_ns, second.ended_ns) == (("n1",), "H100", 400, None)

    def test_events_tell_the_story_in_order(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        store.end_attempt("a", 1, state=AttemptState.FAILED, reason="bad", then=JobState.QUEUED, now_ns=300)
        store.start_attempt("a", nodes=("n2",), accelerator=None, now_ns=400)
        store.end_attempt("a", 2, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=500)
        assert store.events("a") == (
            (100, "submitted with r"),
            (200, "queued -> running"),
            (200, "attempt 1 starts on n1 (H100)"),
            (300, "attempt 1 failed: bad"),
            (300, "running -> queued: bad"),
            (400, "queued -> running"),
            (400, "attempt 2 starts on n2"),
            (500, "attempt 2 succeeded"),
            (500, "running -> succeeded"),
        )

    def test_an_attempt_ends_neither_before_it_started_nor_after_it_was_seen_to_end(self, store: Store) -> None:
        store.submit(run(), specs("a", "b", "c"))
        for job_id, told_ns in (("a", 250), ("b", 150), ("c", 999)):
            start(store, job_id, now_ns=200)
            store.end_attempt(
                job_id,
                1,
                state=AttemptState.SUCCEEDED,
                reason=None,
                then=JobState.SUCCEEDED,
                now_ns=300,
                ended_ns=told_ns,
            )
        assert [job.attempts[0].ended_ns for job in store.jobs()] == [250, 200, 300]

    def test_a_gang_has_its_nodes_in_order_and_the_story_says_why_there(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        store.start_attempt("a", nodes=("n2", "n1"), accelerator="H100", now_ns=200, why="both are free")
        assert store.job("a").attempts[0].nodes == ("n2", "n1")
        assert store.events("a")[-1] == (200, "attempt 1 starts on n2, n1 (H100): both are free")

    def test_a_pause_is_kept_until_the_job_starts(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        failed = {"state": AttemptState.FAILED, "reason": "bad", "then": JobState.QUEUED, "now_ns": 300}
        store.end_attempt("a", 1, **failed, ready_ns=900)
        assert store.job("a").ready_ns == 900
        start(store, "a", now_ns=900)
        assert store.job("a").ready_ns == 0

    def test_changes_made_together_are_all_kept_or_none(self, store: Store) -> None:
        store.submit(run(), specs("a", "b"))
        with pytest.raises(IllegalTransitionError):
            start_all(store, "b", "a", "a")
        assert [job.state for job in store.jobs()] == [JobState.QUEUED] * 2
        with store.together():
            start(store, "a")
            with pytest.raises(IllegalTransitionError):
                start(store, "a")
            start(store, "b")
        assert [job.state for job in store.jobs()] == [JobState.RUNNING] * 2
        assert [len(store.events(name)) for name in "ab"] == [3, 3]


class TestStops:
    def test_an_unknown_job_is_refused(self, store: Store) -> None:
        with pytest.raises(UnknownNameError, match="unknown job 'a'"):
            store.request_stop("a", Stop.CANCEL, reason="r", now_ns=1)

    def test_a_waiting_job_is_cancelled_at_once_and_minds_no_other_stop(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        for stop in (Stop.PREEMPT, Stop.TIME_LIMIT, Stop.DEADLINE):
            assert store.request_stop("a", stop, reason="r", now_ns=150) is JobState.QUEUED
        assert store.request_stop("a", Stop.CANCEL, reason="not wanted", now_ns=150) is JobState.CANCELLED
        job = store.job("a")
        assert (job.state, job.reason, job.stop) == (JobState.CANCELLED, "not wanted", None)

    def test_a_running_job_is_stopping_until_its_attempt_has_ended(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        assert store.request_stop("a", Stop.PREEMPT, reason="room", now_ns=250) is JobState.STOPPING
        job = store.job("a")
        assert (job.state, job.reason, job.stop) == (JobState.STOPPING, "room", Stop.PREEMPT)
        assert job.attempts[0].state is AttemptState.RUNNING
        ended = {"state": AttemptState.PREEMPTED, "reason": "room", "then": JobState.QUEUED, "now_ns": 300}
        store.end_attempt("a", 1, **ended)
        assert (store.job("a").state, store.job("a").stop) == (JobState.QUEUED, None)

    def test_to_cancel_takes_the_place_of_any_other_stop_and_none_takes_its_place(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        start(store, "a")
        store.request_stop("a", Stop.PREEMPT, reason="room", now_ns=250)
        store.request_stop("a", Stop.TIME_LIMIT, reason="late", now_ns=251)
        assert store.job("a").stop is Stop.PREEMPT
        store.request_stop("a", Stop.CANCEL, reason="not wanted", now_ns=252)
        before = store.job("a"), store.events("a")
        for stop in Stop:
            assert store.request_stop("a", stop, reason="again", now_ns=253) is JobState.STOPPING
        assert (store.job("a"), store.events("a")) == before
        assert (before[0].stop, before[0].reason) == (Stop.CANCEL, "not wanted")

    def test_a_job_that_has_ended_stays_as_it_is(self, store: Store) -> None:
        store.submit(run(), specs("a"))
        store.set_state("a", JobState.FAILED, reason="bad", now_ns=150)
        assert store.request_stop("a", Stop.CANCEL, reason="r", now_ns=200) is JobState.FAILED
        assert store.job("a").reason == "bad"

    def test_a_run_is_finished_with_all_its_attempts_and_what_has_ended_stays(self, store: Store) -> None:
        store.submit(run(), specs("done", "waits", "runs", "leaves"))
        store.set_state("done", JobState.SKIPPED, reason="early", now_ns=150)
        for name in ("runs", "leaves"):
            start(store, name)
        store.request_stop("leaves", Stop.PREEMPT, reason="room", now_ns=250)
        store.finish("r", JobState.FAILED, reason="its process is gone", now_ns=300)
        found = {
            job.job_id: (job.state.value, job.reason, [a.state.value for a in job.attempts]) for job in store.jobs()
        }
        assert found == {
            "done": ("skipped", "early", []),
            "waits": ("failed", "its process is gone", []),
            "runs": ("failed", "its process is gone", ["failed"]),
            "leaves": ("failed", "its process is gone", ["failed"]),
        }


class TestSubmission:
    def test_a_need_that_is_nowhere_is_refused_with_its_name(self, store: Store) -> None:
        (spec,) = specs("child")
        needy = spec.model_copy(update={"needs": ("parent",)})
        with pytest.raises(InputError, match=r"job child needs parent, which is not in the ledger; nothing was"):
            store.submit(run(), [*specs("other"), needy])
        assert store.jobs() == ()
        assert store.submit(run(), [needy, *specs("parent")]) == 2
        assert store.submit(run("r2"), [spec.model_copy(update={"job_id": "late", "needs": ("parent",)})]) == 1

    def test_jobs_are_told_by_whether_they_have_ended_and_by_what_changed(self, store: Store) -> None:
        store.submit(run("r1"), specs("a", "b"))
        store.submit(replace(run("r2", at_ns=200), bound=True), specs("c"))
        store.set_state("a", JobState.SKIPPED, reason=None, now_ns=1)
        assert [job.job_id for job in store.jobs(unfinished=True)] == ["b", "c"]
        assert [job.job_id for job in store.jobs(run_id="r1", unfinished=True)] == ["b"]
        assert [job.bound for job in store.jobs()] == [False, False, True]
        seen = store.last_event()
        assert store.jobs_changed(after_event=seen) == ()
        start(store, "c")
        assert store.jobs_changed(after_event=seen) == (store.job("c"),)
        assert store.states(["a", "c", "ghost"]) == {"a": JobState.SKIPPED, "c": JobState.RUNNING}

    def test_a_write_of_others_is_seen_by_a_number(self, path: Path, store: Store) -> None:
        before = store.data_version()
        store.submit(run(), specs("a"))
        assert store.data_version() == before, "our own writes are no news"
        with contextlib.closing(Store(path)) as other:
            other.submit(run("r2"), specs("b"))
        assert store.data_version() != before

    def test_the_same_again_adds_nothing_and_changes_nothing(self, store: Store) -> None:
        assert store.submit(run(), specs("a", "b")) == 2
        start(store, "a")
        before = store.runs(), store.jobs(), store.events("a")
        assert store.submit(run(), specs("a", "b")) == 0
        assert (store.runs(), store.jobs(), store.events("a")) == before

    def test_jobs_of_an_earlier_run_stay_in_it_and_a_run_without_a_new_job_is_not_added(self, store: Store) -> None:
        store.submit(run("r1"), specs("a", "b"))
        assert store.submit(run("r2", at_ns=200), specs("b", "a")) == 0
        assert [record.run_id for record in store.runs()] == ["r1"]
        assert store.submit(run("r3", at_ns=300), specs("a", "c")) == 1
        assert [job.job_id for job in store.jobs(run_id="r1")] == ["a", "b"]
        assert [job.job_id for job in store.jobs(run_id="r3")] == ["c"]

    def test_what_was_submitted_comes_back_equal_also_to_the_next_reader(self, path: Path, store: Store) -> None:
        (spec,) = specs("a")
        rich = spec.model_copy(update={"seed": 7, "model": "[red]"})
        store.submit(run(), [rich])
        with contextlib.closing(Store(path)) as other:
            (job,) = other.jobs(run_id="r")
            assert job.spec == rich
            assert (job.run_id, job.sequence, job.state, job.reason) == ("r", 0, JobState.QUEUED, None)
            assert (job.submitted_ns, job.attempts) == (100, ())
            assert other.job("a") == job
            assert other.runs() == (run(),)

    def test_jobs_come_in_the_order_of_their_submission(self, store: Store) -> None:
        store.submit(run("late", at_ns=300), specs("x"))
        store.submit(run("early", at_ns=200), specs("z", "a", "m"))
        assert [job.job_id for job in store.jobs()] == ["z", "a", "m", "x"]
        assert [job.sequence for job in store.jobs(run_id="early")] == [0, 1, 2]
        assert [record.run_id for record in store.runs()] == ["late", "early"], "the latest run comes first"
        assert store.jobs(run_id="none") == ()

    def test_a_run_is_unfinished_until_its_last_job_is_final(self, store: Store) -> None:
        store.submit(run(), specs("a", "b"))
        store.set_state("a", JobState.CANCELLED, reason=None, now_ns=1)
        assert [record.run_id for record in store.runs(unfinished=True)] == ["r"]
        start(store, "b")
        assert [record.run_id for record in store.runs(unfinished=True)] == ["r"]
        store.end_attempt("b", 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=3)
        assert store.runs(unfinished=True) == ()
        assert [record.run_id for record in store.runs()] == ["r"]


WRITERS, JOBS_EACH, LEDGERS = 4, 3, 12


def write(folder: Path, writer: int, at_once: Barrier) -> None:
    """One process of several: open each new ledger at the same moment as the others, and use it."""
    for number in range(LEDGERS):
        at_once.wait(timeout=30)
        use(folder / f"{number}.db", writer)


def use(path: Path, writer: int) -> None:
    """Submit a run and see its jobs through."""
    names = [f"w{writer}-{number}" for number in range(JOBS_EACH)]
    with contextlib.closing(Store(path)) as store:
        store.submit(run(f"run-{writer}", at_ns=writer), specs(*names))
        for name in names:
            number = start(store, name)
            store.end_attempt(
                name, number, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=300
            )


def submit_the_same(path: Path, answers: Queue[int], at_once: Barrier) -> None:
    """One process of several that submit one manifest with one submission id."""
    at_once.wait(timeout=30)
    with contextlib.closing(Store(path)) as store:
        answers.put(store.submit(run("same"), specs(*(f"job-{number}" for number in range(50)))))


class TestTogether:
    def test_the_same_submission_by_several_at_once_is_there_once(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        at_once, answers = context.Barrier(WRITERS), context.Queue()
        arguments = (tmp_path / "state.db", answers, at_once)
        processes = [context.Process(target=submit_the_same, args=arguments) for _ in range(WRITERS)]
        for process in processes:
            process.start()
        new = sorted(answers.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()
        assert new == [0] * (WRITERS - 1) + [50]
        with contextlib.closing(Store(tmp_path / "state.db")) as store:
            assert len(store.jobs()) == 50
            assert {len(store.events(job.job_id)) for job in store.jobs()} == {1}

    def test_processes_that_make_one_new_ledger_at_once_lose_nothing(self, tmp_path: Path) -> None:
        context = multiprocessing.get_context("forkserver")
        at_once = context.Barrier(WRITERS)
        processes = [context.Process(target=write, args=(tmp_path, writer, at_once)) for writer in range(WRITERS)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * WRITERS
        for number in range(LEDGERS):
            with contextlib.closing(Store(tmp_path / f"{number}.db")) as store:
                jobs = store.jobs()
                assert len(jobs) == WRITERS * JOBS_EACH
                assert {job.state for job in jobs} == {JobState.SUCCEEDED}
                assert {len(job.attempts) for job in jobs} == {1}
                assert {len(store.events(job.job_id)) for job in jobs} == {5}

    def test_a_reader_sees_the_last_whole_change_while_another_writes(self, path: Path, store: Store) -> None:
        store.submit(run(), specs("a"))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE jobs SET state = 'cancelled'")
            with contextlib.closing(Store(path)) as reader:
                assert reader.job("a").state is JobState.QUEUED
            writer.execute("ROLLBACK")

    def test_two_controllers_on_one_job_do_not_both_get_it(self, path: Path, store: Store) -> None:
        store.submit(run(), specs("a"))
        with contextlib.closing(Store(path)) as other:
            assert start(other, "a") == 1
            with pytest.raises(IllegalTransitionError, match="job a is running and cannot become running"):
                start(store, "a")
        assert len(store.job("a").attempts) == 1


VERSION_1 = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, name TEXT NOT NULL, manifest TEXT NOT NULL, submitted_ns INTEGER NOT NULL,
    host TEXT NOT NULL, pid INTEGER NOT NULL
);
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs, sequence INTEGER NOT NULL, spec TEXT NOT NULL,
    state TEXT NOT NULL, reason TEXT, submitted_ns INTEGER NOT NULL
);
CREATE TABLE attempts (
    job_id TEXT NOT NULL REFERENCES jobs, number INTEGER NOT NULL, state TEXT NOT NULL, reason TEXT,
    node TEXT NOT NULL, accelerator TEXT, started_ns INTEGER NOT NULL, ended_ns INTEGER,
    PRIMARY KEY (job_id, number)
);
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY, job_id TEXT NOT NULL REFERENCES jobs, time_ns INTEGER NOT NULL, what TEXT NOT NULL
);
INSERT INTO runs VALUES ('old', 'study', 'name: study', 100, 'here', 7);
INSERT INTO jobs VALUES ('a', 'old', 0, '{"job_id": "a", "task": "digits", "model": "tiny/vit"}', 'queued', NULL, 100);
PRAGMA user_version=1
"""
"""What 0.1.0 wrote before users and budgets were kept."""


VERSION_2 = (
    VERSION_1.replace("PRAGMA user_version=1", "")
    + """
ALTER TABLE runs ADD COLUMN user TEXT;
CREATE TABLE budgets (
    scope TEXT NOT NULL, name TEXT NOT NULL, period TEXT NOT NULL, energy_kwh REAL, co2e_kg REAL,
    set_ns INTEGER NOT NULL, PRIMARY KEY (scope, name, period)
);
INSERT INTO jobs VALUES ('b', 'old', 1, '{"job_id": "b", "task": "digits", "model": "tiny/vit"}', 'failed', 'x', 100);
INSERT INTO attempts VALUES ('b', 1, 'failed', 'x', 'f00d', 'T4', 110, 120);
INSERT INTO attempts VALUES ('b', 2, 'cancelled', 'x', 'f00e', 'T4', 130, 140);
PRAGMA user_version=2
"""
)
"""What was written before there was a queue."""


class TestOldLedgers:
    def test_a_ledger_from_before_there_was_a_queue_has_bound_runs_and_attempts_on_one_node(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        execute(path, *VERSION_2.split(";"))
        with contextlib.closing(Store(path)) as store:
            (old,) = store.runs()
            assert old.bound
            waiting, failed = store.jobs()
            assert (waiting.state, waiting.ready_ns, waiting.stop) == (JobState.QUEUED, 0, None)
            assert [(a.state, a.nodes, a.ended_ns) for a in failed.attempts] == [
                (AttemptState.FAILED, ("f00d",), 120),
                (AttemptState.CANCELLED, ("f00e",), 140),
            ]
            assert (store.quotas(), store.controllers()) == ((), ())
            store.submit(run("new"), specs("c"))
            assert {record.run_id: record.bound for record in store.runs()} == {"old": True, "new": False}
            assert start(store, "a") == 1

    def test_a_ledger_from_before_users_and_budgets_is_read_and_written(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        execute(path, *VERSION_1.split(";"))
        with contextlib.closing(Store(path)) as store:
            assert [(found.run_id, found.user) for found in store.runs()] == [("old", None)]
            assert [(job.job_id, job.user, job.spec.budget.energy_kwh) for job in store.jobs()] == [("a", None, None)]
            assert store.budgets() == ()
            store.submit(replace(run("new"), user="ada"), specs("b"))
            assert {job.job_id: job.user for job in store.jobs()} == {"a": None, "b": "ada"}
        with contextlib.closing(Store(path)) as again:
            assert len(again.jobs()) == 2


def budget(**changes: Any) -> BudgetRecord:
    fields = {"scope": "project", "name": "p", "period": "month", "energy_kwh": 5.0, "co2e_kg": None, "set_ns": 9}
    return BudgetRecord(**{**fields, **changes})


class TestBudgets:
    def test_a_budget_that_was_never_set_cannot_be_taken_back(self, store: Store) -> None:
        with pytest.raises(InputError, match=r"project p has no budget per month. See those there are"):
            store.remove_budget("project", "p", "month")

    def test_a_budget_that_is_set_again_takes_the_place_of_the_first(self, store: Store) -> None:
        for made in (budget(), budget(energy_kwh=6.0, co2e_kg=1.0), budget(period="day"), budget(scope="user")):
            store.set_budget(made)
        assert store.budgets() == (
            budget(period="day"),
            budget(energy_kwh=6.0, co2e_kg=1.0),
            budget(scope="user"),
        )
        store.remove_budget("project", "p", "month")
        assert store.budgets() == (budget(period="day"), budget(scope="user"))


def quota(**changes: Any) -> Quota:
    fields = {"scope": "user", "name": "ada", "gpus": None, "queued_jobs": 2}
    return Quota(**{**fields, **changes})


class TestQuotas:
    def test_a_quota_that_was_never_set_cannot_be_taken_back(self, store: Store) -> None:
        with pytest.raises(InputError, match=r"user ada has no quota. See those there are: wattledger quota"):
            store.remove_quota("user", "ada")

    def test_more_queued_jobs_than_a_user_may_have_are_refused_whole(self, store: Store) -> None:
        store.set_quota(quota(), now_ns=1)
        ada = replace(run(), user="ada")
        store.submit(ada, specs("a"))
        with pytest.raises(
            InputError, match=r"user ada has 1 jobs in the queue and may have 2, so 2 more are too many; nothing was"
        ):
            store.submit(replace(ada, run_id="r2"), specs("b", "c"))
        assert [job.job_id for job in store.jobs()] == ["a"]
        assert store.submit(replace(ada, run_id="r2"), specs("a", "b")) == 1, "what is there already is not new"
        start(store, "a")
        assert store.submit(replace(ada, run_id="r3"), specs("c")) == 1, "what runs is not queued"
        assert store.submit(replace(run("r4"), user="bob"), specs("d", "e", "f")) == 3

    def test_a_quota_of_each_is_of_each_alone_and_gives_way_to_ones_own(self, store: Store) -> None:
        store.set_quota(quota(name="*", queued_jobs=1), now_ns=1)
        store.set_quota(quota(name="bob", queued_jobs=3), now_ns=1)
        for name in ("ada", "eve"):
            assert store.submit(replace(run(name), user=name), specs(name)) == 1
        assert store.submit(replace(run("b"), user="bob"), specs("b1", "b2", "b3")) == 3
        assert store.submit(run("nobody"), specs("n1", "n2")) == 2, "who has no name is held to none"
        with pytest.raises(InputError, match="user ada has 1 jobs in the queue and may have 1"):
            store.submit(replace(run("more"), user="ada"), specs("more"))

    def test_a_projects_quota_counts_its_jobs_whoever_submits(self, store: Store) -> None:
        store.set_quota(quota(scope="project", name="vision", queued_jobs=2), now_ns=1)
        ours = [spec.model_copy(update={"accounting": Accounting(project="vision")}) for spec in specs("a", "b", "c")]
        store.submit(replace(run(), user="ada"), [*ours[:2], *specs("other")])
        with pytest.raises(InputError, match="project vision has 2 jobs in the queue and may have 2"):
            store.submit(replace(run("r2"), user="bob"), ours[2:])
        store.set_state("a", JobState.CANCELLED, reason=None, now_ns=1)
        assert store.submit(replace(run("r2"), user="bob"), ours[2:]) == 1

    def test_one_that_is_set_again_takes_the_place_of_the_first(self, store: Store) -> None:
        for made in (quota(), quota(gpus=0.5, queued_jobs=None), quota(scope="project", name="p", gpus=8.0)):
            store.set_quota(made, now_ns=1)
        assert store.quotas() == (quota(scope="project", name="p", gpus=8.0), quota(gpus=0.5, queued_jobs=None))
        store.remove_quota("project", "p")
        assert store.quotas() == (quota(gpus=0.5, queued_jobs=None),)


class TestControllers:
    def test_what_a_controller_says_of_itself_is_kept_until_it_takes_leave(self, store: Store) -> None:
        said = ControllerRecord(
            name="controller",
            host="here",
            pid=7,
            address="127.0.0.1:6379",
            targets_url="http://127.0.0.1:1/",
            started_ns=1,
            beat_ns=2,
            trouble=None,
            cluster="{}",
        )
        store.note_controller(said)
        store.note_controller(replace(said, beat_ns=3, trouble="the disk is full"))
        store.note_controller(replace(said, name="controller-r"))
        assert store.controllers() == (
            replace(said, beat_ns=3, trouble="the disk is full"),
            replace(said, name="controller-r"),
        )
        store.drop_controller("controller")
        store.drop_controller("controller")
        assert [record.name for record in store.controllers()] == ["controller-r"]


class TestSpans:
    def test_they_are_the_gpus_over_all_nodes_of_what_runs_or_ended_since(self, store: Store) -> None:
        gang, half, early = (
            spec.model_copy(update={"resources": Resources(gpus=gpus, nodes=nodes)})
            for spec, gpus, nodes in zip(specs("gang", "half", "early"), (4, 0.5, 1), (2, 1, 1), strict=True)
        )
        store.submit(replace(run(), user="ada"), [gang, half])
        store.submit(run("old"), [early])
        ended = {"state": AttemptState.SUCCEEDED, "reason": None, "then": JobState.SUCCEEDED}
        store.start_attempt("early", nodes=("n1",), accelerator=None, now_ns=10)
        store.end_attempt("early", 1, **ended, now_ns=20)
        store.start_attempt("gang", nodes=("n1", "n2"), accelerator=None, now_ns=30)
        store.start_attempt("half", nodes=("n3",), accelerator=None, now_ns=40)
        store.end_attempt("half", 1, **ended, now_ns=50)
        spans = {AttemptSpan("ada", 8.0, 30, None), AttemptSpan("ada", 0.5, 40, 50)}
        assert set(store.attempt_spans(20)) == spans
        assert set(store.attempt_spans(19)) == spans | {AttemptSpan(None, 1.0, 10, 20)}
