"""One node's part of an attempt, with real processes: how they are started, told to leave, and what is kept of them."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.outcome import Outcome, combined, kept_outcome
from orchestrator.cluster.part import Part, PartSpec, free_meeting
from tests.clusters import wait_until
from workers.home import Home

MEETING = ("127.0.0.1", 4711)


class Running:
    """A part whose ranks do what they are told."""

    def __init__(self, home: Path, acts: dict[str, str], *, devices: tuple[str, ...] = ("0",), **more: object) -> None:
        graces = {name: more.pop(name) for name in ("checkpoint_grace_s", "leave_grace_s") if name in more}
        fields: dict[str, object] = {
            "job": json.dumps(acts),
            "job_id": "j",
            "attempt": 2,
            "home": str(home),
            "number": 0,
            "count": 1,
            "ranks": len(acts),
            "agent": None,
            "simulated": False,
            "program": "tests.rank_program",
        }
        self.home, self.folder, self.acts = Home(home), home / "artifacts" / "j" / "attempt-2", acts
        self.part = Part(PartSpec(**{**fields, **more}), devices, MEETING, **graces)

    def told(self, rank: int = 0) -> dict[str, object]:
        path = self.folder / f"told-{rank}.json"
        wait_until(path.exists, what=f"rank {rank} to run")
        return json.loads(path.read_text())

    def outcome(self) -> Outcome:
        return self.part.outcome.result(timeout=60)


def test_a_part_that_cannot_be_started_says_so_and_lets_nobody_wait(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("not a folder")
    outcome = Running(tmp_path, {"0": "done"}).outcome()
    assert outcome.exit_code is None
    assert outcome.reason is not None
    assert outcome.reason.startswith("it could not be started: ")
    assert outcome.reason.endswith("Mend that on its node.")


def test_a_rank_that_cannot_be_started_ends_those_that_run(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "j" / "attempt-2"
    (folder / "log-1.txt").mkdir(parents=True)
    outcome = Running(tmp_path, {"0": "deaf", "1": "done"}, leave_grace_s=0.1).outcome()
    assert outcome.exit_code is None
    assert "log-1.txt" in (outcome.reason or "")


def test_what_an_attempt_says_is_its_reason_and_is_kept_on_disk(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "reason"})
    outcome = running.outcome()
    assert (outcome.exit_code, outcome.reason) == (2, "rank 0 says why.")
    assert outcome.ended_ns is not None
    assert kept_outcome(running.home, "j", 2, 0) == outcome
    assert kept_outcome(running.home, "j", 2, 1) is None
    assert kept_outcome(running.home, "j", 1, 0) is None


def test_an_attempt_that_says_nothing_is_told_by_its_exit_code_and_its_log(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "fail"})
    assert running.outcome().reason == f"its process ended with exit code 3; see {running.folder / 'log.txt'}"


def test_a_success_has_no_reason(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "done"})
    outcome = running.outcome()
    assert (outcome.exit_code, outcome.reason) == (0, None)
    assert kept_outcome(running.home, "j", 2, 0) == outcome


def test_a_disk_that_refuses_costs_nothing_but_the_file(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "j" / "attempt-2" / "outcome.json").mkdir(parents=True)
    running = Running(tmp_path, {"0": "fail"})
    assert running.outcome().exit_code == 3
    assert kept_outcome(running.home, "j", 2, 0) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"exit_code": 0, "more": 1}'])
def test_a_file_that_is_no_outcome_is_none(tmp_path: Path, text: str) -> None:
    path = Home(tmp_path).attempt_folder("j", 1) / "outcome.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert kept_outcome(Home(tmp_path), "j", 1, 0) is None


def test_a_kill_that_we_did_not_send_is_told_with_what_may_have_sent_it(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "plain"})
    os.kill(int(str(running.told()["pid"])), signal.SIGKILL)
    outcome = running.outcome()
    assert outcome.exit_code == -9
    assert outcome.reason is not None
    assert outcome.reason.startswith("its process was killed by signal 9, which we did not send. ")
    assert "memory ran out" in outcome.reason
    assert "Lower training.batch_size, or reserve what it needs with resources.memory_gb." in outcome.reason


@pytest.mark.parametrize(("checkpoint", "exit_code"), [(True, 75), (False, 130)])
def test_a_stop_lets_it_leave_by_itself(tmp_path: Path, checkpoint: bool, exit_code: int) -> None:
    running = Running(tmp_path, {"0": "leave"})
    running.told()
    running.part.stop(checkpoint=checkpoint)
    outcome = running.outcome()
    assert (outcome.exit_code, outcome.reason) == (
        exit_code,
        f"it was asked to leave, and ended with exit code {exit_code}",
    )


def test_one_that_does_not_save_in_time_is_told_to_leave_and_then_killed(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "deaf"}, checkpoint_grace_s=0.2, leave_grace_s=0.2)
    running.told()
    running.part.stop(checkpoint=True)
    outcome = running.outcome()
    assert (outcome.exit_code, outcome.reason) == (-9, "it was asked to leave, and was killed by signal 9")
    assert (running.folder / "log.txt").read_text().split() == ["heard", "SIGUSR1", "heard", "SIGTERM"]


def test_a_stop_that_is_repeated_interrupts_nothing_and_one_that_is_more_urgent_does(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "deaf"}, checkpoint_grace_s=600, leave_grace_s=0.5)
    running.told()
    log = running.folder / "log.txt"
    running.part.stop(checkpoint=True)
    wait_until(lambda: "SIGUSR1" in log.read_text(), what="the first signal")
    running.part.stop(checkpoint=True)
    for _ in range(3):
        running.part.stop(checkpoint=False)
    running.part.stop(checkpoint=True)
    assert running.outcome().exit_code == -9
    assert log.read_text().split() == ["heard", "SIGUSR1", "heard", "SIGTERM"]


def test_a_stop_after_the_end_changes_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "done"})
    outcome = running.outcome()
    running.part.stop(checkpoint=False)
    assert running.outcome() == outcome


def test_when_one_rank_fails_the_others_are_ended_and_its_reason_is_given(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "deaf", "1": "reason", "2": "plain"}, devices=("4", "5", "6"), leave_grace_s=0.2)
    outcome = running.outcome()
    assert (outcome.exit_code, outcome.reason) == (2, "rank 1 says why.")
    pids = [json.loads(path.read_text())["pid"] for path in running.folder.glob("told-*.json")]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_each_rank_has_a_device_a_log_and_the_environment_of_torchrun(tmp_path: Path) -> None:
    (tmp_path / "artifacts" / "j" / "attempt-2").mkdir(parents=True)
    (tmp_path / "artifacts" / "j" / "attempt-2" / "job.json").write_text(json.dumps({"2": "done", "3": "done"}))
    running = Running(
        tmp_path, {"2": "done", "3": "done"}, devices=("6", "7"), number=1, count=2, agent="/a.sock", simulated=True
    )
    assert running.outcome().exit_code == 0
    for local_rank, rank in enumerate((2, 3)):
        told = running.told(rank)
        assert told["environment"] == {
            "RANK": str(rank),
            "WORLD_SIZE": "4",
            "LOCAL_RANK": str(local_rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "4711",
            "CUDA_VISIBLE_DEVICES": "",
        }
        wanted = ["--home", str(tmp_path), "--attempt", "2", "--agent", "/a.sock", "--device", str(6 + local_rank)]
        assert told["arguments"][: len(wanted)] == wanted
        assert (running.folder / f"log-{rank}.txt").exists()
    assert kept_outcome(running.home, "j", 2, 1) == running.outcome()


def test_one_rank_alone_is_told_of_no_others_and_has_all_devices(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "done"}, devices=("1",))
    assert running.outcome().exit_code == 0
    told = running.told()
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(told["environment"])
    assert told["arguments"][:6] == ["--home", str(tmp_path), "--attempt", "2", "--device", "1"]


def test_what_a_rank_has_started_ends_with_it(tmp_path: Path) -> None:
    running = Running(tmp_path, {"0": "parent"})
    assert running.outcome().exit_code == 0
    child = int(str(running.told()["child"]))
    wait_until(
        lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE,
        what="its child to end",
    )


def test_a_meeting_is_at_a_port_that_is_free() -> None:
    address, port = free_meeting("127.0.0.1")
    assert address == "127.0.0.1"
    assert 0 < port < 65536


outcomes = st.builds(
    Outcome,
    exit_code=st.sampled_from([0, 0, 1, 2, 130, -9, None]),
    reason=st.none(),
    ended_ns=st.none() | st.integers(1, 9),
)


@given(st.lists(outcomes, min_size=1, max_size=5))
def test_an_attempt_ends_as_its_lost_part_else_as_the_first_that_failed_else_well(parts: list[Outcome]) -> None:
    whole = combined(parts)
    codes = [part.exit_code for part in parts]
    if None in codes:
        assert whole.exit_code is None
    elif any(codes):
        failed = [part for part in parts if part.exit_code]
        first = min(part.ended_ns or 0 for part in failed)
        assert whole.exit_code in {part.exit_code for part in failed if (part.ended_ns or 0) == first}
    else:
        assert whole.exit_code == 0
    ends = [part.ended_ns for part in parts]
    assert whole.ended_ns == (None if None in ends else max(ends))
