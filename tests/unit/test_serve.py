"""The controller's process: who may serve a ledger, and what it tells of itself."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import serve
from orchestrator.custody import custody
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import ControllerRecord, Store
from tests.clusters import wait_until
from tests.queues import run_record, spec
from tests.served import ADDRESS, PacedCluster, served
from workers.home import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with contextlib.closing(Store(home.state_db)) as opened:
        yield opened


def record(store: Store) -> ControllerRecord:
    (found,) = store.controllers()
    return found


def test_a_ledger_that_is_served_already_is_refused_by_name(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "LOCK_S", 0.1)
    with custody(home, "controller"):
        assert serve.main(["--home", str(home.root), "--address", "127.0.0.1:1"]) == 2
    assert f"another controller serves the ledger {home.root}" in capsys.readouterr().err


def test_without_a_cluster_it_ends_with_3_and_holds_nothing(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert serve.main(["--home", str(home.root), "--address", "127.0.0.1:1"]) == 3
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
    with custody(home, "controller") as ours:
        assert ours


def test_it_tells_where_it_is_what_the_cluster_has_and_that_it_lives(home: Home, store: Store) -> None:
    cluster = PacedCluster("H100", "L4")
    with served(home, cluster):
        first = record(store)
        assert (first.name, first.address, first.trouble) == ("controller", ADDRESS, None)
        assert ClusterView.from_json(first.cluster) == cluster.view()
        wait_until(lambda: record(store).beat_ns > first.beat_ns, what="the next beat")
        assert record(store).started_ns == first.started_ns
    assert record(store).name == "controller", "it is remembered until somebody takes leave for it"


def test_one_that_serves_a_run_alone_leaves_other_jobs_and_takes_leave(home: Home, store: Store) -> None:
    store.submit(run_record("mine", bound=True), [spec("a")])
    store.submit(run_record("other"), [spec("b")])
    with served(home, PacedCluster(), run_ids=["mine"]):
        assert record(store).name == "controller-mine"
        wait_until(lambda: store.job("a").state.is_final, what="its own job to end")
    assert [job.state.value for job in store.jobs()] == ["succeeded", "queued"]
    assert store.controllers() == ()


def test_what_runs_when_it_leaves_goes_on_and_is_taken_up_by_the_next(home: Home, store: Store) -> None:
    store.submit(run_record(), [spec("a")])
    cluster = PacedCluster(lasts_s=None)
    with served(home, cluster):
        wait_until(lambda: store.job("a").state.holds_place, what="the job to start")
    assert list(cluster.running) == ["a"]
    cluster.close()
    with served(home, cluster):
        cluster.stop("a", checkpoint=False)
        wait_until(lambda: store.job("a").state.is_final, what="its end to be seen")
    assert len(cluster.history) == 1


def test_one_that_holds_starts_nothing_new_until_it_goes_on(home: Home, store: Store) -> None:
    cluster = PacedCluster()
    with served(home, cluster) as server:
        server.hold(True)
        store.submit(run_record(), [spec("a")])
        first = record(store)
        wait_until(lambda: record(store).beat_ns > first.beat_ns, what="it to have looked at the queue")
        assert cluster.history == []
        server.hold(False)
        wait_until(lambda: store.job("a").state.is_final, what="the job to run")


def test_a_run_has_ended_for_its_follower_when_the_agents_have_written(home: Home, store: Store) -> None:
    cluster = PacedCluster("H100", "L4")
    store.submit(run_record("r"), [spec("a", accelerators=["H100"]), spec("b", accelerators=["L4"])])
    with served(home, cluster):
        wait_until(lambda: all(job.state.is_final for job in store.jobs()), what="the run to end")
        ended_ns = max(store.events(name)[-1][0] for name in ("a", "b"))
        wait_until(lambda: record(store).beat_ns > ended_ns, what="the beat that tells")
        assert len(cluster.flushed_ns) == 1
        assert ended_ns < cluster.flushed_ns[0] < record(store).beat_ns
    assert home.clock("n0").exists()


def test_jobs_in_memory_are_set_aside_from_the_collector_of_garbage_those_that_come_later_too(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "SETTLED_EVENTS", 50)
    store.submit(run_record("r"), [spec(f"first-{number}", accelerators=["L4"]) for number in range(20)])
    gc.unfreeze()
    try:
        with served(home, PacedCluster("H100")):
            at_first = gc.get_freeze_count()
            assert at_first > 20
            store.submit(run_record("s"), [spec(f"more-{number}", accelerators=["L4"]) for number in range(60)])
            wait_until(lambda: gc.get_freeze_count() > at_first + 60, what="them to be set aside")
    finally:
        gc.unfreeze()
