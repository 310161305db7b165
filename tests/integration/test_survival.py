"""Killing the agent, the attempt or the disk loses no joule, and the agent's death is no death of the job.

Real processes, real signals; what boards draw is known from the simulated driver, through the real ``pynvml``.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.agents import RunningAgent, running_agent
from tests.clusters import wait_until
from tests.driver.driver import Driver, nvml_library
from tests.integration.test_attempt import start, wait_until_it_trains, write_job
from tests.metering import energy_by_job
from workers.contract import EnergyEntry, Phase, Power, Quality
from workers.errors import MeterError
from workers.home import Home
from workers.telemetry.client import AgentConnection, HeldLease
from workers.telemetry.energy_read import read_energy
from workers.telemetry.journal import journals_below
from workers.telemetry.protocol import find_notes

__all__ = ["nvml_library"]

S = 1_000_000_000
NOTHING = [(1, 0, 0)]
"""A board that draws nothing: its counter stands, so that what it counted is known exactly."""
HOLD = """
import sys
from pathlib import Path
from workers.contract import Phase, Power
from workers.telemetry.client import AgentConnection, HeldLease
lease = HeldLease(AgentConnection(Path(sys.argv[1])), job_id="victim", attempt=1, devices=["0"], cpus=1.0,
                  phase=Phase.TRAIN, power=Power(cap_watts=500.0))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def driver(nvml_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """An H100 that draws nothing yet."""
    with Driver(nvml_library, [{}]) as loaded:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name in ("LD_LIBRARY_PATH", "FAKE_NVML_SOCKET"):
            monkeypatch.setenv(name, loaded.environment[name])
        loaded.order("draw", board=0, pieces=NOTHING)
        wait_until(lambda: stands(loaded), what="the counter stands")
        yield loaded


def stands(driver: Driver) -> bool:
    """Whether the board's counter has caught up with a board that draws nothing."""
    now_ns = driver.order("now")
    return bool(driver.order("truth", board=0, start_ns=now_ns - S // 5, end_ns=now_ns) == 0)


def counted_mj(driver: Driver) -> int:
    return int(driver.order("counter", board=0, at_ns=driver.order("now")))


def true_mj(driver: Driver, start_ns: int, end_ns: int) -> float:
    return float(driver.order("truth", board=0, start_ns=start_ns, end_ns=end_ns) / 10**9)


def wait_ns(driver: Driver, until_ns: int) -> None:
    wait_until(lambda: driver.order("now") >= until_ns, what="time to pass")


def total(entries: list[EnergyEntry] | tuple[EnergyEntry, ...]) -> int:
    return sum(entry.energy_mj for entry in entries)


def hold(agent: RunningAgent, **more: object) -> HeldLease:
    fields = {"job_id": "a", "attempt": 1, "devices": ["0"], "cpus": 1.0, "phase": Phase.LOAD, "power": Power()}
    return HeldLease(AgentConnection(agent.socket), **{**fields, **more})


def kill(agent: RunningAgent) -> None:
    agent.child.process.kill()
    agent.child.process.wait()


def is_back(agent: RunningAgent, times: int = 2) -> None:
    wait_until(lambda: len(agent.said) >= times, what="the agent to be started again")


def test_a_job_whose_agent_is_killed_goes_on_and_each_phase_has_its_true_energy(driver: Driver, tmp_path: Path) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml", pause_s=1) as agent, hold(agent, power=Power(cap_watts=500.0)) as lease:
        load_ns = driver.order("draw", board=0, pieces=[(1, 200_000, 200_000)], repeats=True)
        wait_ns(driver, load_ns + S)
        train_ns = driver.order("draw", board=0, pieces=[(1, 400_000, 400_000)], repeats=True)
        lease.set_phase(Phase.TRAIN)
        wait_ns(driver, train_ns + S)
        kill(agent)
        wait_ns(driver, train_ns + 3 * S // 2)
        evaluate_ns = driver.order("draw", board=0, pieces=[(1, 300_000, 300_000)], repeats=True)
        lease.set_phase(Phase.EVALUATE)
        is_back(agent)
        wait_until(lambda: agent.metrics("wattledger_lease_info") == {"a": 1.0}, what="the lease to be taken up")
        assert driver.order("limit", board=0) == 500_000
        wait_ns(driver, driver.order("now") + S)
        end_ns = driver.order("draw", board=0, pieces=NOTHING)
        wait_until(lambda: stands(driver), what="the counter stands")
        energy_mj = lease.close()
        assert lease.unconfirmed is None
        assert driver.order("limit", board=0) == 700_000
        agent.child.release(timeout_s=10)
        entries = agent.entries()
    assert total(entries) == counted_mj(driver) - before_mj
    mine = [entry for entry in entries if entry.job_id == "a"]
    assert total(mine) == energy_mj == pytest.approx(true_mj(driver, load_ns, end_ns), rel=0.01)
    spans = {
        Phase.LOAD: (load_ns, train_ns),
        Phase.TRAIN: (train_ns, evaluate_ns),
        Phase.EVALUATE: (evaluate_ns, end_ns),
    }
    # Through the time without an agent two phases share one difference of the counter, split by time.
    for phase, span in spans.items():
        booked_mj = total([entry for entry in mine if entry.phase is phase])
        assert booked_mj == pytest.approx(true_mj(driver, *span), rel=0.15), phase
    assert Quality.GAP in {flag for entry in mine for flag in entry.quality}
    assert journals_below(agent.home.energy()) == []


def test_a_job_that_outlives_an_agent_ended_in_order_has_both_parts_in_the_log_and_confirms_no_total(
    driver: Driver, tmp_path: Path
) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml", pause_s=0.1) as agent, hold(agent) as lease:
        spans = []
        for power_mw in (200_000, 400_000):
            start_ns = driver.order("draw", board=0, pieces=[(1, power_mw, power_mw)], repeats=True)
            wait_ns(driver, start_ns + S)
            spans.append((start_ns, driver.order("draw", board=0, pieces=NOTHING)))
            wait_until(lambda: stands(driver), what="the counter stands")
            if len(spans) == 1:
                agent.child.process.send_signal(signal.SIGTERM)
                is_back(agent)
                wait_until(lambda: agent.metrics("wattledger_lease_info") == {"a": 1.0}, what="the new lease")
                lease.set_phase(Phase.TRAIN)
        assert lease.close() is None
        assert lease.unconfirmed is not None
        assert "it has both parts" in lease.unconfirmed
        agent.child.release(timeout_s=10)
        entries = agent.entries()
    assert total(entries) == counted_mj(driver) - before_mj
    for phase, span in zip((Phase.LOAD, Phase.TRAIN), spans, strict=True):
        mine = [entry for entry in entries if entry.job_id == "a" and entry.phase is phase]
        assert total(mine) == pytest.approx(true_mj(driver, *span), rel=0.01), phase
        assert {flag for entry in mine for flag in entry.quality} == set()


def test_an_agent_killed_again_and_again_keeps_the_books_exact(driver: Driver, tmp_path: Path) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml", pause_s=0.1) as agent, hold(agent) as lease:
        start_ns = driver.order("draw", board=0, pieces=[(S // 7, 100_000, 600_000)], repeats=True)
        for times in range(2, 5):
            wait_ns(driver, driver.order("now") + S // 3)
            kill(agent)
            is_back(agent, times)
        end_ns = driver.order("draw", board=0, pieces=NOTHING)
        wait_until(lambda: stands(driver), what="the counter stands")
        energy_mj = lease.close()
        agent.child.release(timeout_s=10)
        entries = agent.entries()
    assert total(entries) == counted_mj(driver) - before_mj
    assert energy_by_job(entries)["a"] == energy_mj == pytest.approx(true_mj(driver, start_ns, end_ns), rel=0.01)


def test_an_attempt_that_dies_while_its_agent_is_away_is_closed_and_its_cap_ends(
    driver: Driver, tmp_path: Path
) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml", pause_s=1) as agent:
        victim = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(agent.socket)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with victim:
            assert victim.stdout.readline() == b"held\n"
            start_ns = driver.order("draw", board=0, pieces=[(1, 300_000, 300_000)], repeats=True)
            wait_ns(driver, start_ns + 3 * S)
            kill(agent)
            end_ns = driver.order("draw", board=0, pieces=NOTHING)
            victim.kill()
        is_back(agent)
        assert driver.order("limit", board=0) == 700_000
        assert agent.metrics("wattledger_lease_info") == {}
        wait_until(lambda: stands(driver), what="the counter stands")
        agent.child.release(timeout_s=10)
        entries = agent.entries()
    assert total(entries) == counted_mj(driver) - before_mj
    # It held the board to the last state that was written, at most a second before.
    held_mj = energy_by_job(entries)["victim"]
    assert true_mj(driver, start_ns, end_ns - 3 * S // 2) <= held_mj <= true_mj(driver, start_ns, end_ns) + 1


def test_a_job_that_ends_without_an_agent_says_so_and_the_next_agent_books_it_to_its_end(
    driver: Driver, tmp_path: Path
) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml") as agent:
        # What the board draws idle is known from here on, so that the end is found between two looks.
        wait_ns(driver, driver.order("now") + S)
        lease = hold(agent, close_wait_s=0.5)
        start_ns = driver.order("draw", board=0, pieces=[(1, 400_000, 400_000)], repeats=True)
        wait_ns(driver, start_ns + 3 * S // 2)
        kill(agent)
        lease.set_phase(Phase.TRAIN)
        wait_ns(driver, start_ns + 5 * S // 2)
        end_ns = driver.order("draw", board=0, pieces=NOTHING)
        assert lease.close() is None
        assert lease.unconfirmed.startswith(f"no agent answers at {agent.socket}")
        agent.child.release(timeout_s=0)
    assert read_energy(agent.home, job_ids=["a"]) != ()
    assert len(find_notes(agent.socket)) == 1
    wait_until(lambda: stands(driver), what="the counter stands")
    with running_agent(tmp_path, meter="nvml", node=agent.node) as successor:
        successor.child.release(timeout_s=10)
        entries = successor.entries()
    assert find_notes(agent.socket) == {}
    assert total(entries) == counted_mj(driver) - before_mj
    assert energy_by_job(entries)["a"] == pytest.approx(true_mj(driver, start_ns, end_ns), rel=0.01)


def test_an_attempt_whose_own_agent_is_killed_ends_well_with_all_its_energy(tmp_path: Path) -> None:
    job = write_job(tmp_path, training={"max_steps": 60})
    process = start(job)
    agent = wait_until_it_trains(job, process)
    os.kill(agent, signal.SIGKILL)
    wait_until(
        lambda: {child.pid for child in psutil.Process(process.pid).children()} - {agent} != set(),
        what="another agent",
    )
    out = tmp_path / "out.txt"
    assert process.wait(120) == 0, out.read_text()
    said = re.search(r"quick: done, ([\d,.]+) J booked; logs in ", out.read_text())
    assert said is not None, out.read_text()
    entries = read_energy(Home(tmp_path / "home"), job_ids=["quick"])
    assert said[1] == f"{total(entries) / 1000:,.1f}"
    # The warm-up before the inferences is in no phase.
    assert {entry.phase for entry in entries} == {None, *Phase}


def test_an_agent_whose_disk_refuses_for_a_while_goes_on_and_completes_the_log(driver: Driver, tmp_path: Path) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml") as agent, hold(agent) as lease:
        start_ns = driver.order("draw", board=0, pieces=[(1, 300_000, 300_000)], repeats=True)
        wait_ns(driver, start_ns + S)
        pid = int(agent.info["pid"])
        # From now on the kernel refuses it every file beyond one byte, its standard error included.
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))

        def write_errors() -> float:
            return agent.count("wattledger_agent_write_errors_total")

        wait_until(lambda: write_errors() >= 2, what="refusals to be counted")
        assert agent.metrics("wattledger_device_power_watts")["H100"] == 300.0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
        end_ns = driver.order("draw", board=0, pieces=NOTHING)
        wait_until(lambda: stands(driver), what="the counter stands")
        energy_mj = lease.close()
        assert lease.unconfirmed is None
        agent.child.release(timeout_s=10)
        entries = agent.entries()
    assert total(entries) == counted_mj(driver) - before_mj
    assert energy_mj == energy_by_job(entries)["a"] == pytest.approx(true_mj(driver, start_ns, end_ns), rel=0.02)


def test_a_driver_that_hangs_holds_up_nobody_for_ever_and_costs_no_joule(driver: Driver, tmp_path: Path) -> None:
    before_mj = counted_mj(driver)
    with running_agent(tmp_path, meter="nvml", pause_s=0.1, more=("--hang-ms", "10000")) as agent, hold(agent) as lease:
        start_ns = driver.order("draw", board=0, pieces=[(1, 300_000, 300_000)], repeats=True)
        wait_ns(driver, start_ns + 3 * S // 2)
        driver.process.send_signal(signal.SIGSTOP)
        lease.set_phase(Phase.TRAIN)
        with agent.connect() as other, pytest.raises(MeterError, match="a driver has not answered for 2 s"):
            other.ask("describe")
        assert agent.metrics("wattledger_device_up") == {"H100": 0.0}
        wait_until(lambda: agent.child.process.poll() is not None or len(agent.said) > 1, what="the agent to give up")
        driver.process.send_signal(signal.SIGCONT)
        is_back(agent)
        wait_until(lambda: agent.metrics("wattledger_lease_info") == {"a": 1.0}, what="the lease to be taken up")
        end_ns = driver.order("draw", board=0, pieces=NOTHING)
        wait_until(lambda: stands(driver), what="the counter stands")
        energy_mj = lease.close()
        agent.child.release(timeout_s=10)
        entries = agent.entries()
    assert "a driver has not answered for 10 s: this agent ends.\n" in agent.errors.read_text()
    assert total(entries) == counted_mj(driver) - before_mj
    assert energy_by_job(entries)["a"] == energy_mj == pytest.approx(true_mj(driver, start_ns, end_ns), rel=0.01)
