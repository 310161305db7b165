"""What is removed of jobs that ended long ago, and what is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client.housekeeping import Forgotten, forget
from orchestrator.lifecycle import AttemptState, JobState
from orchestrator.mirror import Mirror
from orchestrator.store import Store
from tests.queues import run_record, spec
from workers.home import Home
from workers.units import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
NOTHING = Forgotten(jobs=0, bytes=0, events=0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "ledger")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with contextlib.closing(Store(home.state_db)) as opened:
        yield opened


def checkpoint(home: Home, job_id: str, size: int = 1000) -> Path:
    folder = home.checkpoints(job_id) / "step-1"
    folder.mkdir(parents=True)
    folder.joinpath("weights.safetensors").write_bytes(b"w" * size)
    return folder


def runs(store: Store, *names: str) -> None:
    """Jobs with an attempt that runs, since the start of time."""
    store.submit(run_record(f"r-{names[0]}"), [spec(name) for name in names])
    for name in names:
        store.start_attempt(name, nodes=("n",), accelerator=None, now_ns=0)


def end(store: Store, name: str, state: JobState, *, day: int) -> None:
    store.end_attempt(name, 1, state=AttemptState(state), reason=None, then=state, now_ns=day * DAY_NS)


def test_a_ledger_that_is_not_there_is_not_made(home: Home) -> None:
    assert forget(home, keep_days=0, now_ns=DAY_NS) == NOTHING
    assert not home.root.exists()


def test_what_a_link_points_at_is_left_alone(home: Home, store: Store) -> None:
    runs(store, "failed")
    end(store, "failed", JobState.FAILED, day=1)
    folder = checkpoint(home, "failed").parent
    elsewhere = folder.rename(home.root / "elsewhere")
    folder.symlink_to(elsewhere)
    assert forget(home, keep_days=30, now_ns=100 * DAY_NS).jobs == 0
    assert (elsewhere / "step-1").is_dir()


def test_what_may_still_be_gone_on_with_or_looked_into_stays(home: Home, store: Store) -> None:
    runs(store, "running", "recent")
    store.submit(run_record("r-queued"), [spec("queued")])
    end(store, "recent", JobState.FAILED, day=70)
    folders = [checkpoint(home, name) for name in ("running", "recent", "queued")]
    before = {name: store.events(name) for name in ("running", "recent", "queued")}
    assert forget(home, keep_days=30, now_ns=100 * DAY_NS) == NOTHING
    assert all(folder.is_dir() for folder in folders)
    assert {name: store.events(name) for name in before} == before


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_checkpoints_of_a_job_that_ended_otherwise_long_ago_are_removed_and_nothing_else_of_it(
    home: Home, store: Store, state: JobState
) -> None:
    runs(store, "old")
    end(store, "old", state, day=69)
    checkpoint(home, "old", size=2345)
    log = home.artifacts("old") / "attempt-1" / "log.txt"
    log.parent.mkdir()
    log.write_text("why it ended", encoding="utf-8")
    done = forget(home, keep_days=30, now_ns=100 * DAY_NS)
    assert (done.jobs, done.bytes) == (1, 2345)
    assert not home.checkpoints("old").exists()
    assert log.exists()
    assert [attempt.state.value for attempt in store.job("old").attempts] == [state.value]
    assert forget(home, keep_days=30, now_ns=100 * DAY_NS) == NOTHING


def test_of_the_story_of_a_job_that_ended_long_ago_its_end_stays(home: Home, store: Store) -> None:
    runs(store, "old", "other")
    end(store, "old", JobState.SUCCEEDED, day=1)
    story, others = store.events("old"), store.events("other")
    assert len(story) > 2
    assert forget(home, keep_days=30, now_ns=100 * DAY_NS).events == len(story) - 1
    assert store.events("old") == story[-1:]
    assert store.events("other") == others


def test_a_controller_that_runs_meanwhile_overlooks_nothing(home: Home, store: Store) -> None:
    """It goes by the number of the last event, which must never be given twice."""
    runs(store, "old")
    end(store, "old", JobState.FAILED, day=1)
    mirror = Mirror(store)
    mirror.refresh()
    last = store.last_event()
    forget(home, keep_days=30, now_ns=100 * DAY_NS)
    assert store.last_event() == last
    store.submit(run_record("next"), [spec("next")])
    assert mirror.refresh() == {"next"}
