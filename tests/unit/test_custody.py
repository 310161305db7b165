"""A run bound to a process that is gone is failed with the reason; one that somebody still runs is left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.custody import ORPHANED, custody, settle_orphans
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.store import RunRecord, Store
from workers.contract import JobSpec
from workers.errors import InputError
from workers.home import Home

HOLDER = """
import signal, sys
from pathlib import Path
from orchestrator.custody import custody
from workers.home import Home

with custody(Home(Path(sys.argv[1])), sys.argv[2]) as held:
    print(held, flush=True)
    signal.pause()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with contextlib.closing(Store(home.state_db)) as opened:
        yield opened


def submit(store: Store, run_id: str, *, host: str = "", pid: int = 1, bound: bool = True) -> None:
    """A run with a job that runs, one that waits and one that is done."""
    here = host or socket.gethostname()
    record = RunRecord(run_id=run_id, name="study", manifest="", submitted_ns=1, host=here, pid=pid, bound=bound)
    names = [f"{run_id}-{name}" for name in ("done", "running", "queued")]
    store.submit(record, [JobSpec(job_id=name, task="digits", model="tiny/vit") for name in names])
    for name in names[:2]:
        store.start_attempt(name, nodes=("n",), accelerator="H100", now_ns=2)
    store.end_attempt(names[0], 1, state=AttemptState.SUCCEEDED, reason=None, then=JobState.SUCCEEDED, now_ns=3)


def states(store: Store, run_id: str) -> list[str]:
    return [job.state.value for job in store.jobs(run_id=run_id)]


def hold(home: Home, run_id: str) -> subprocess.Popen[str]:
    """Another process that holds the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(home.root), run_id], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_ledger_whose_folder_cannot_be_written_says_so(home: Home) -> None:
    home.run.write_text("a file where a folder should be")
    with pytest.raises(InputError, match=r"r\.lock cannot be written: .* Check its rights"), custody(home, "r"):
        pass


def test_the_jobs_of_a_run_whose_process_is_gone_fail_and_what_was_done_stays(store: Store, home: Home) -> None:
    submit(store, "r")
    settle_orphans(store, home)
    assert states(store, "r") == ["succeeded", "failed", "failed"]
    done, running, queued = store.jobs(run_id="r")
    assert (done.reason, running.reason, queued.reason) == (None, ORPHANED, ORPHANED)
    (attempt,) = running.attempts
    assert (attempt.state, attempt.reason) == (JobState.FAILED, ORPHANED)
    assert attempt.ended_ns is not None
    assert queued.attempts == ()
    assert ORPHANED == "the process it was bound to ended without finishing it; submit the manifest again"


def test_a_process_that_took_over_the_number_of_a_dead_one_does_not_save_its_run(store: Store, home: Home) -> None:
    submit(store, "r", pid=os.getpid())
    settle_orphans(store, home)
    assert states(store, "r") == ["succeeded", "failed", "failed"]


def test_a_run_somebody_holds_is_left_alone_until_that_process_ends(store: Store, home: Home) -> None:
    submit(store, "r")
    holder = hold(home, "r")
    try:
        settle_orphans(store, home)
        assert states(store, "r") == ["succeeded", "running", "queued"]
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        settle_orphans(store, home)
        assert states(store, "r") == ["succeeded", "failed", "failed"]
    finally:
        end(holder)


def test_a_run_that_is_the_queues_is_left_alone_whoever_submitted_it(store: Store, home: Home) -> None:
    submit(store, "r", bound=False)
    settle_orphans(store, home)
    assert states(store, "r") == ["succeeded", "running", "queued"]


def test_the_run_of_another_host_is_left_alone(store: Store, home: Home) -> None:
    submit(store, "r", host="elsewhere")
    settle_orphans(store, home)
    assert states(store, "r") == ["succeeded", "running", "queued"]


def test_settling_twice_is_harmless(store: Store, home: Home) -> None:
    submit(store, "r")
    settle_orphans(store, home)
    before = store.jobs(), [store.events(job.job_id) for job in store.jobs()]
    settle_orphans(store, home)
    assert (store.jobs(), [store.events(job.job_id) for job in store.jobs()]) == before


def test_only_one_holds_a_run_and_the_next_may_once_it_lets_go(home: Home) -> None:
    with custody(home, "r") as first:
        assert first
        with custody(home, "r") as second:
            assert not second
        with custody(home, "r") as third:
            assert not third, "the one that was turned away took nothing with it"
        with custody(home, "other") as other:
            assert other
    with custody(home, "r") as again:
        assert again


def test_nothing_is_left_of_a_run_that_was_let_go(home: Home) -> None:
    with custody(home, "r"):
        assert [path.name for path in home.run.iterdir()] == ["r.lock"]
    assert list(home.run.iterdir()) == []


def test_one_that_is_waited_for_is_held_as_soon_as_its_process_ends(home: Home) -> None:
    holder = hold(home, "r")
    killer = threading.Timer(0.2, holder.kill)
    killer.start()
    try:
        with custody(home, "r", wait_s=30) as ours:
            assert ours
            assert holder.wait(timeout=10) == -signal.SIGKILL
    finally:
        end(holder)


def test_a_file_that_its_holder_removes_just_when_it_is_opened_is_no_lock(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, really_open = contextlib.ExitStack(), os.open
    assert holder.enter_context(custody(home, "r"))

    def open_and_let_go(path: Path, flags: int, mode: int = 0o777) -> int:
        file = really_open(path, flags, mode)
        holder.close()
        return file

    monkeypatch.setattr(os, "open", open_and_let_go)
    with custody(home, "r", wait_s=30) as first, custody(home, "r") as second:
        assert (first, second) == (True, False)
