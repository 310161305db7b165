"""A host's CPU on a real machine: real processes, and an agent that says what it can meter and what it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.agents import running_agent
from tests.fake_host import FakeHost
from tests.metering import Clock, energy_by_job, simulated
from workers.contract import Phase, Power, Quality
from workers.telemetry.client import HeldLease
from workers.telemetry.composite import CompositeMeter
from workers.telemetry.leases import LeaseRequest
from workers.telemetry.node import NodeMeter
from workers.telemetry.rapl import RaplMeter
from workers.telemetry.usage import HostUsage

WORK_IN_A_CHILD = """
import subprocess, sys
work = "import time\\nwhile time.process_time() < 0.3: pass\\nprint('worked', flush=True)\\ninput()"
child = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print("ready", flush=True)
input()
child.stdout.readline()
print("worked", flush=True)
input()
child.communicate(b"\\n")
"""


def test_a_real_process_tree_gets_its_part_and_the_rest_is_nobodys(tmp_path: Path) -> None:
    host, clock = FakeHost(tmp_path / "host"), Clock()
    host.zone("intel-rapl:0", "package-0")
    rapl = RaplMeter(node="n1", root=host.powercap, proc=host.proc, clock_ns=clock, monotonic_ns=clock)
    node = NodeMeter(
        CompositeMeter((simulated(clock, "H100"), rapl)),
        node="n1",
        clock_ns=clock,
        usage=HostUsage(),
        only_agent=True,
    )
    with subprocess.Popen(
        [sys.executable, "-c", WORK_IN_A_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        lease = node.open(LeaseRequest(job_id="a", attempt=1, devices=("0",), pid=process.pid, cpus=1.0))
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        clock.pass_ms(1000)
        host.draw("intel-rapl:0", 10_000_000)
        node.close(lease.lease_id)
        process.communicate("\n")
    booked = [entry for entry in node.take_entries() if entry.kind == "cpu"]
    by_job = energy_by_job(booked)
    assert sum(by_job.values()) == 10_000
    assert by_job["a"] > 0
    assert all(Quality.SHARED in entry.quality for entry in booked if entry.job_id == "a")


def test_an_agent_says_of_each_kind_how_it_is_metered_or_why_not(tmp_path: Path) -> None:
    with running_agent(tmp_path, cpu="auto") as agent:
        devices = agent.info["devices"]
        assert isinstance(devices, list)
        unmetered = agent.info["unmetered"]
        assert isinstance(unmetered, dict)
        assert devices[0]["kind"] == "gpu"
        assert sorted({device["kind"] for device in devices} | set(unmetered)) == ["cpu", "dram", "gpu"]
        assert all(why and not why.endswith(".") for why in unmetered.values())
        with agent.connect() as connection:
            lease = HeldLease(
                connection, job_id="a", attempt=1, devices=["0"], cpus=1.0, phase=Phase.LOAD, power=Power()
            )
            assert lease.devices == (devices[0]["uuid"],)
            assert lease.unmetered == unmetered
            booked_mj = lease.close()
        entries = [entry for entry in agent.entries() if entry.job_id == "a"]
        assert sum(entry.energy_mj for entry in entries) == booked_mj
        assert {entry.kind for entry in agent.entries() if entry.job_id is None} <= {"gpu"}


def test_an_agent_told_to_meter_no_cpu_does_not(tmp_path: Path) -> None:
    with running_agent(tmp_path) as agent:
        assert json.dumps(agent.info["unmetered"]) == json.dumps(
            dict.fromkeys(("cpu", "dram"), "the node's agent runs with --cpu none")
        )
        assert {device["kind"] for device in agent.info["devices"]} == {"gpu"}
