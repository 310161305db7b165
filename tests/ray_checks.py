"""Ray as the cluster: the checks of the contract, and those of Ray alone, by a driver of its own.

``python -m tests.ray_checks ADDRESS HOME DASHBOARD`` prints ``{check: what was wrong}``. It is a process of its own
since Ray keeps its token and threads for as long as a process lives.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from orchestrator.cluster.local import LocalNode, local_node
from orchestrator.cluster.port import Ended
from orchestrator.cluster.ray_cluster import RayCluster
from tests.aftermath import Aftermath, get
from tests.cluster_contract import CHECKS, NO_MODEL, SUCCESSION, both, endless, gather, is_idle, job, node, until
from tests.clusters import processes_with
from workers.contract import Adapter, Phase, Training
from workers.home import Home
from workers.telemetry.energy_read import read_energy

LAUNCHER = """
import os, signal, sys
from tests.ray_checks import Rig
from tests.cluster_contract import endless, node, until
rig = Rig(address=sys.argv[1], home=sys.argv[2])
cluster = rig.join()
cluster.launch(endless("orphan"), attempt=1, nodes=(node(cluster, "H100").node_id,))
# An actor that is registered and not handed over yet ends with its driver: such an attempt is lost, and tried again.
until(rig.folder("orphan").exists, "it to start")
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass(frozen=True, kw_only=True)
class Rig:
    """A Ray cluster of an H100 and an L4, and a ledger; its dashboard is needed to ``joined`` it."""

    address: str
    home: str
    dashboard_url: str = ""
    ahead_mj: dict[str, int] = field(default_factory=dict)

    def join(self, program: str = "workers.attempt") -> RayCluster:
        return RayCluster(self.address, home=Home(Path(self.home)), program=program)

    @contextlib.contextmanager
    def joined(self, program: str = "workers.attempt") -> Iterator[RayCluster]:
        """Joined; idle in the end, nothing of an attempt left on the nodes or in Ray's books, and ours balance."""
        with contextlib.closing(self.join(program)) as cluster:
            yield cluster
            until(lambda: is_idle(cluster), "all places to be free")
            self.aftermath(cluster).check()

    def aftermath(self, cluster: RayCluster) -> Aftermath:
        def agents() -> Mapping[str, str]:
            return {agent.node: agent.metrics_url for agent in cluster.agents()}

        return Aftermath(
            home=Path(self.home),
            dashboard_url=self.dashboard_url,
            agents=agents,
            controllers=0,
            ahead_mj=self.ahead_mj,
        )

    def folder(self, job_id: str, attempt: int = 1) -> Path:
        return Home(Path(self.home)).attempt_folder(job_id, attempt)

    def wait_until_it_runs(self, job_id: str) -> int:
        """The process of its rank 0."""
        environment = self.folder(job_id) / "environment.json"
        until(environment.exists, f"{job_id} to run")
        return int(json.loads(environment.read_text())["pid"])

    def wait_for_progress(self, job_id: str, *, trained: int = 0) -> None:
        """Its devices are leased by then, and so many steps of its training are done."""
        path = self.folder(job_id) / "progress.json"

        def is_there() -> bool:
            progress = json.loads(path.read_text()) if path.exists() else None
            return bool(progress) and (
                not trained or (progress["phase"] == Phase.TRAIN and progress["done"] >= trained)
            )

        until(is_there, f"{job_id} to make progress")


RayCheck = Callable[[Rig], None]


def an_agent_that_was_killed_runs_again_for_the_next_driver(rig: Rig) -> None:
    agents = processes_with(f"workers.agent --home {rig.home}")
    assert len(agents) == 2
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    with rig.joined() as cluster:
        assert len(cluster.agents()) == 2
        assert all("wattledger_device_up" in get(agent.metrics_url) for agent in cluster.agents())


def an_agent_that_is_killed_is_started_again_by_its_node_and_the_job_goes_on(rig: Rig) -> None:
    with rig.joined() as cluster:
        changes = {"kind": "finetune", "adapter": Adapter(method="lora"), "training": Training(max_steps=60)}
        spec = job("outlives").model_copy(update=changes)
        cluster.launch(spec, attempt=1, nodes=(node(cluster, "H100").node_id,))
        rig.wait_for_progress("outlives")
        killed = processes_with(f"workers.agent --home {rig.home}")
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

        def others() -> set[int]:
            return set(processes_with(f"workers.agent --home {rig.home}")) - set(killed)

        until(lambda: len(others()) == len(killed), "the agents to be started again")
        (end,) = gather(cluster, 1)
        assert (end.job_id, end.exit_code, end.reason) == ("outlives", 0, None)
        cluster.flush()
        booked = read_energy(Home(Path(rig.home)), job_ids=["outlives"])
        said = (rig.folder("outlives") / "log.txt").read_text()
        assert f"{sum(entry.energy_mj for entry in booked) / 1000:,.1f} J booked" in said, said


def waiting_for_the_work_of_others_is_no_busy_loop(rig: Rig) -> None:
    with rig.joined() as cluster:
        began_s = time.monotonic()
        assert cluster.ended(timeout_s=0.25) == ()
        assert time.monotonic() - began_s >= 0.25


def an_attempt_whose_driver_is_killed_goes_on_and_a_stop_by_the_next_lets_it_leave(rig: Rig) -> None:
    killed = subprocess.run([sys.executable, "-c", LAUNCHER, rig.address, rig.home], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    pid = rig.wait_until_it_runs("orphan")
    with rig.joined() as cluster:
        cluster.adopt(endless("orphan"), attempt=1, nodes=(node(cluster, "H100").node_id,))
        assert node(cluster, "H100").gpus_free == 0
        assert cluster.ended(timeout_s=0.1) == ()
        assert psutil.Process(pid).is_running()
        cluster.stop("orphan", checkpoint=False)
        (end,) = gather(cluster, 1)
        assert (end.job_id, end.attempt, end.exit_code) == ("orphan", 1, 130)
        assert end.ended_ns is not None
        assert not psutil.pid_exists(pid)


def one_that_ended_while_no_driver_was_there_is_told_as_it_ended(rig: Rig) -> None:
    spec = job("meanwhile", model=NO_MODEL)
    with contextlib.closing(rig.join()) as first:
        places = (node(first, "H100").node_id,)
        first.launch(spec, attempt=1, nodes=places)
    kept = rig.folder("meanwhile") / "outcome.json"
    until(kept.exists, "its end to be kept")
    with rig.joined() as second:
        assert node(second, "H100").gpus_free == 0
        second.adopt(spec, attempt=1, nodes=places)
        (end,) = gather(second, 1)
        assert end == Ended(job_id="meanwhile", attempt=1, **json.loads(kept.read_text()))
        assert end.exit_code == 2
        assert "unknown model" in (end.reason or "")


def one_that_trains_saves_a_checkpoint_when_it_is_asked_to(rig: Rig) -> None:
    with rig.joined() as cluster:
        cluster.launch(endless("saves-first"), attempt=1, nodes=(node(cluster, "H100").node_id,))
        rig.wait_for_progress("saves-first", trained=1)
        cluster.stop("saves-first", checkpoint=True)
        (end,) = gather(cluster, 1)
        assert end.exit_code == 75
        assert list(rig.folder("saves-first").parent.glob("checkpoints/step-*"))


def one_whose_process_is_killed_says_by_what_and_one_whose_worker_is_killed_is_lost(rig: Rig) -> None:
    with rig.joined() as cluster:
        places = dict(zip(("process", "worker"), both(cluster), strict=True))
        for job_id, place in places.items():
            cluster.launch(endless(job_id), attempt=1, nodes=(place,))
        os.kill(rig.wait_until_it_runs("process"), signal.SIGKILL)
        os.kill(psutil.Process(rig.wait_until_it_runs("worker")).ppid(), signal.SIGKILL)
        ends = {end.job_id: end for end in gather(cluster, 2)}
        assert ends["process"].exit_code == -signal.SIGKILL
        assert "killed by signal 9, which we did not send" in (ends["process"].reason or "")
        assert ends["worker"].exit_code is None
        assert "its Ray worker or node was lost" in (ends["worker"].reason or "")


def one_that_waits_in_ray_for_its_place_is_taken_back_when_it_is_stopped(rig: Rig) -> None:
    with rig.joined() as cluster:
        place = (node(cluster, "H100").node_id,)
        cluster.launch(endless("in-place"), attempt=1, nodes=place)
        cluster.launch(endless("behind"), attempt=1, nodes=place)
        rig.wait_until_it_runs("in-place")
        cluster.stop("behind", checkpoint=True)
        (end,) = gather(cluster, 1)
        assert (end.job_id, end.exit_code) == ("behind", None)
        assert end.reason == "it was asked to leave before it had started."
        cluster.stop("in-place", checkpoint=False)
        assert [end.exit_code for end in gather(cluster, 1)] == [130]
        assert not rig.folder("behind").exists()


def a_gang_whose_node_is_lost_ends_once_as_lost_and_the_books_balance(rig: Rig) -> None:
    def booked_devices() -> set[str]:
        entries = read_energy(Home(Path(rig.home)), job_ids=["torn"])
        return {entry.device for entry in entries if entry.kind == "gpu"}

    log = Path(rig.home) / "node.log"
    with rig.joined("tests.rank_program") as cluster, contextlib.ExitStack() as third:
        third.enter_context(local_node(rig.address, LocalNode(accelerator="T4", board_uuid=None), log=log))
        until(lambda: "T4" in cluster.view().accelerator_types, "the node to be metered")
        leaving = node(cluster, "T4")
        places = (node(cluster, "H100").node_id, leaving.node_id)
        cluster.launch(endless("torn", nodes=2), attempt=1, nodes=places)
        for rank in range(2):
            until((rig.folder("torn") / f"held-{rank}").exists, f"rank {rank} to hold its device")
        # A node that is lost at once may take the last second of its journal along.
        until(lambda: len(booked_devices()) == 2, "both devices to be booked to it")
        third.close()
        (end,) = gather(cluster, 1)
        assert (end.job_id, end.attempt, end.exit_code) == ("torn", 1, None)
        assert "node was lost" in (end.reason or "")
        until(
            lambda: not processes_with(f"workers.agent --home {rig.home} --node {leaving.name}"), "its agent to leave"
        )
        until(lambda: leaving.node_id in {gone.node_id for gone in cluster.view().absent}, "the node to be missed")
        cluster.launch(endless("too-late"), attempt=1, nodes=(leaving.node_id,))
        cluster.view()
        (late,) = gather(cluster, 1)
        assert (late.exit_code, late.reason) == (None, "its node was lost.")
        assert len(booked_devices()) == 2


RAY_CHECKS: tuple[RayCheck, ...] = (
    an_attempt_whose_driver_is_killed_goes_on_and_a_stop_by_the_next_lets_it_leave,
    one_that_ended_while_no_driver_was_there_is_told_as_it_ended,
    one_that_trains_saves_a_checkpoint_when_it_is_asked_to,
    one_whose_process_is_killed_says_by_what_and_one_whose_worker_is_killed_is_lost,
    one_that_waits_in_ray_for_its_place_is_taken_back_when_it_is_stopped,
    a_gang_whose_node_is_lost_ends_once_as_lost_and_the_books_balance,
    waiting_for_the_work_of_others_is_no_busy_loop,
    an_agent_that_was_killed_runs_again_for_the_next_driver,
    an_agent_that_is_killed_is_started_again_by_its_node_and_the_job_goes_on,
)
RAY_NAMES = [check.__name__ for check in RAY_CHECKS]


def main(address: str, home: str, dashboard_url: str, *wanted: str) -> dict[str, str | None]:
    """Run the checks (those named, else all); gives what was wrong with each, ``None`` for nothing."""
    rig = Rig(address=address, home=home, dashboard_url=dashboard_url)
    told: dict[str, str | None] = {}
    with rig.joined() as cluster:
        for check in CHECKS:
            if not wanted or check.__name__ in wanted:
                told[check.__name__] = told_by(check, cluster)
    for succession in SUCCESSION:
        if not wanted or succession.__name__ in wanted:
            told[succession.__name__] = told_by(succession, rig.join)
    for ray_check in RAY_CHECKS:
        if not wanted or ray_check.__name__ in wanted:
            told[ray_check.__name__] = told_by(ray_check, rig)
    with contextlib.closing(rig.join()) as cluster:
        cluster.stop_agents()
    return told


def told_by(check: Callable[..., None], *arguments: object) -> str | None:
    """What a check found wrong."""
    began_s = time.monotonic()
    try:
        check(*arguments)
    except Exception:  # noqa: BLE001 - each is told, and the next is tried
        return traceback.format_exc()
    finally:
        print(f"{time.monotonic() - began_s:6.1f} s {check.__name__}", file=sys.stderr)
    return None


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
