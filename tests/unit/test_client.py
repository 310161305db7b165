"""The verbs that write into the ledger, over a controller that is real and a cluster that is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import client
from orchestrator.client.submission import enter
from orchestrator.lifecycle import JobState, Stop
from orchestrator.manifest import load_manifests
from orchestrator.scheduling.snapshot import ClusterView
from orchestrator.store import ControllerRecord, Store
from tests.clusters import ROOT, quick_manifest, wait_until
from tests.queues import node, run_record, spec
from tests.served import ADDRESS, Listener, PacedCluster, served
from workers.errors import InputError, UnknownNameError, UnreachableError
from workers.home import Home
from workers.units import NS_PER_S

SUBMIT = """
import sys
from pathlib import Path
from orchestrator import client
from orchestrator.client.submission import enter
from workers.home import Home
for _ in range(int(sys.argv[3])):
    client.submit([Path(sys.argv[1])], home=Home(Path(sys.argv[2])))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "ledger")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with contextlib.closing(Store(home.state_db)) as opened:
        yield opened


def beat(store: Store, *, ago_s: float = 0.0, host: str | None = None) -> None:
    """A controller that was heard of, on a cluster with one H100."""
    store.note_controller(
        ControllerRecord(
            name="controller",
            host=host or os.uname().nodename,
            pid=1,
            address=ADDRESS,
            targets_url="http://192.0.2.1:1/",
            started_ns=1,
            beat_ns=time.time_ns() - round(ago_s * NS_PER_S),
            trouble=None,
            cluster=ClusterView(nodes=(node("n0", "H100"),)).to_json(),
        )
    )


def states(store: Store) -> list[str]:
    return [job.state.value for job in store.jobs()]


class TestSubmit:
    def test_without_a_controller_nothing_is_submitted_and_the_remedy_is_named(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        with pytest.raises(UnreachableError, match=r"no controller serves the ledger .* wattledger up") as error:
            client.submit([quick_manifest(tmp_path)], home=home)
        assert error.value.exit_code == 3
        assert store.runs() == ()

    def test_a_controller_that_was_not_heard_of_for_15_s_is_none(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        beat(store, ago_s=16)
        with pytest.raises(UnreachableError, match=r"last heard of .* wattledger up"):
            client.submit([quick_manifest(tmp_path)], home=home)
        beat(store, ago_s=10)
        (submitted,) = client.submit([quick_manifest(tmp_path)], home=home)
        assert submitted.new == 1

    def test_a_ledger_that_is_served_on_another_host_is_not_written(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        beat(store, host="elsewhere")
        with pytest.raises(UnreachableError, match="is served on elsewhere"):
            client.submit([quick_manifest(tmp_path)], home=home)
        assert store.runs() == ()

    def test_a_job_that_could_never_run_is_refused_with_what_there_is(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        beat(store)
        with pytest.raises(InputError, match=r"nothing was submitted\.\n  tiny/vit: no node has a V100.*H100"):
            client.submit([quick_manifest(tmp_path, accelerators="[V100]")], home=home)
        assert store.runs() == ()

    def test_the_same_submission_again_adds_nothing_and_gives_the_same_jobs(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        beat(store)
        manifest = quick_manifest(tmp_path, more="seeds: [0, 1]")
        (first,) = client.submit([manifest], home=home, submission_id="one")
        (again,) = client.submit([manifest], home=home, submission_id="one")
        assert (first.new, again.new) == (2, 0)
        assert (again.run_id, again.job_ids) == (first.run_id, first.job_ids)
        (other,) = client.submit([manifest], home=home)
        assert set(other.job_ids).isdisjoint(first.job_ids)
        assert len(store.jobs()) == 4
        assert [run.bound for run in store.runs()] == [False, False]

    def test_the_text_that_is_kept_is_the_one_that_was_checked(self, home: Home, store: Store, tmp_path: Path) -> None:
        manifest = quick_manifest(tmp_path)
        checked = manifest.read_text(encoding="utf-8")
        files = load_manifests([manifest])
        manifest.write_text("changed meanwhile", encoding="utf-8")
        drafts = client.expand_on(files, ClusterView(nodes=(node("n0", "H100"),)), submission_id="one")
        enter(store, home, drafts, ["run"])
        assert [run.manifest for run in store.runs()] == [checked]

    def test_under_a_profile_it_is_another_run_with_jobs_of_its_own(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        beat(store)
        manifest = quick_manifest(tmp_path, more="profiles: {tiny: {}}")
        (full,) = client.submit([manifest], home=home, submission_id="one")
        (tiny,) = client.submit([manifest], home=home, submission_id="one", profile="tiny")
        assert (full.name, tiny.name, full.new, tiny.new) == ("quick", "quick-tiny", 1, 1)
        assert tiny.run_id.startswith("quick-tiny-")
        assert [run.name for run in store.runs()] == ["quick-tiny", "quick"]
        assert [job.spec.name for job in store.jobs()] == ["quick", "quick-tiny"]
        assert client.find_run(store, "quick").run_id == full.run_id

    def test_two_clients_at_once_lose_nothing_and_neither_loads_ray(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        beat(store)
        manifest = str(quick_manifest(tmp_path, more="seeds: [0, 1, 2, 3]"))
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", SUBMIT, manifest, str(home.root), "10"],
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for _ in range(2)
        ]
        loaded = [each.communicate(timeout=60)[0].split() for each in clients]
        assert [each.returncode for each in clients] == [0, 0]
        assert len(store.runs()) == 20
        assert states(store) == ["queued"] * 80
        assert not {"ray", "torch", "duckdb"} & {name for names in loaded for name in names}


class TestCancel:
    def test_of_what_nobody_knows_says_so(self, home: Home, store: Store) -> None:
        with pytest.raises(UnknownNameError):
            client.cancel(["nothing"], home=home, observer=Listener())

    def test_jobs_that_wait_are_cancelled_though_no_controller_is_there(self, home: Home, store: Store) -> None:
        store.submit(run_record("r"), [spec("a"), spec("b")])
        (job,) = client.cancel(["a"], home=home, observer=Listener(), reason="for a reason")
        assert (job.state, job.reason) == (JobState.CANCELLED, "for a reason")
        assert states(store) == ["cancelled", "queued"]
        before = store.last_event()
        assert client.cancel(["a"], home=home, observer=Listener())[0].reason == "for a reason"
        assert store.last_event() == before

    def test_a_job_that_runs_without_a_controller_is_marked_and_that_is_said(self, home: Home, store: Store) -> None:
        store.submit(run_record("r"), [spec("a")])
        store.start_attempt("a", nodes=("n",), accelerator="H100", now_ns=2)
        with pytest.raises(UnreachableError, match=r"marked to be cancelled.*wattledger up"):
            client.cancel(["r"], home=home, observer=Listener())
        job = store.job("a")
        assert (job.state, job.stop) == (JobState.STOPPING, Stop.CANCEL)
        (again,) = client.cancel(["r"], home=home, observer=Listener(), wait=False)
        assert again.state is JobState.STOPPING

    def test_it_waits_until_a_job_has_left_and_takes_along_what_needs_it(self, home: Home, store: Store) -> None:
        store.submit(run_record("r"), [spec("a"), spec("b", needs=["a"])])
        with served(home, PacedCluster(lasts_s=None)):
            wait_until(lambda: states(store) == ["running", "queued"], what="the job to start")
            (job,) = client.cancel(["a"], home=home, observer=Listener())
            assert job.state is JobState.CANCELLED
            wait_until(lambda: states(store) == ["cancelled", "cancelled"], what="the other to be cancelled, too")


class TestRun:
    def test_on_another_cluster_than_the_ledgers_is_refused(self, home: Home, store: Store, tmp_path: Path) -> None:
        beat(store)
        with pytest.raises(InputError, match=rf"served by the cluster at {ADDRESS}, not 192.0.2.9:6379"):
            client.run(
                [quick_manifest(tmp_path)], client.Target(address="192.0.2.9:6379"), home=home, observer=Listener()
            )
        assert store.runs() == ()

    def test_it_follows_its_jobs_and_accounts_after_the_agents_have_written(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        cluster, listener = PacedCluster(), Listener()
        with served(home, cluster):
            (result,) = client.run([quick_manifest(tmp_path)], client.Target(), home=home, observer=listener)
        assert (result.exit_code, result.cancelled) == (0, False)
        assert [account.row.state for account in result.accounts] == ["succeeded"]
        (job,) = store.jobs()
        ended_ns = store.events(job.job_id)[-1][0]
        assert len(cluster.flushed_ns) == 1
        assert cluster.flushed_ns[0] > ended_ns
        assert "1 planned" in listener.said

    def test_ctrl_c_cancels_its_jobs_alone_and_still_accounts(self, home: Home, store: Store, tmp_path: Path) -> None:
        store.submit(run_record("other"), [spec("z", accelerators=["L4"])])
        manifest = quick_manifest(tmp_path, more="seeds: [0, 1]")
        with served(home, PacedCluster("H100", "L4", lasts_s=None)):
            listener = Listener(interrupt_when="running")
            (result,) = client.run([manifest], client.Target(), home=home, observer=listener)
            assert (result.exit_code, result.cancelled) == (130, True)
            assert [account.row.state for account in result.accounts] == ["cancelled", "cancelled"]
            assert {job.reason for job in store.jobs(run_id=result.run_id)} == {"the run was cancelled"}
            assert store.job("z").state is JobState.RUNNING

    def test_the_same_submission_while_it_runs_is_followed_and_afterwards_reported(
        self, home: Home, store: Store, tmp_path: Path
    ) -> None:
        manifest = quick_manifest(tmp_path)
        with served(home, PacedCluster()):
            (submitted,) = client.submit([manifest], home=home, submission_id="one")
            results = [
                client.run([manifest], client.Target(), home=home, observer=Listener(), submission_id="one")[0]
                for _ in range(2)
            ]
        assert {result.run_id for result in results} == {submitted.run_id}
        assert [result.exit_code for result in results] == [0, 0]
        assert len(store.jobs()) == 1


class TestDown:
    def test_where_nothing_ever_was_there_is_nothing_to_end(self, home: Home) -> None:
        assert not client.down(home, observer=Listener())
        assert not home.state_db.exists()

    def test_of_a_ledger_without_a_controller_is_done_without_a_cluster(self, home: Home, store: Store) -> None:
        assert not client.down(home, observer=Listener())
