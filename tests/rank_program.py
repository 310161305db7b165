"""What a part of an attempt runs in tests, in place of an attempt: ``python -m tests.rank_program job.json …``.

The job file tells each rank what to do: ``{"0": "leave", "1": "fail"}``; one that tells of a real job has each hold its
devices until it is told to leave. It writes down what it was told beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from workers import lifeline
from workers.contract import Phase, Power
from workers.telemetry.client import AgentConnection, HeldLease

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def main(job: Path, arguments: list[str]) -> int:
    rank = os.environ.get("RANK", "0")
    act = json.loads(job.read_text()).get(rank, "hold")
    if act == "leave":
        signal.signal(signal.SIGUSR1, lambda *_: sys.exit(75))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    if act == "deaf":
        signal.signal(signal.SIGUSR1, hear)
        signal.signal(signal.SIGTERM, hear)
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) if act == "parent" else None
    told = {
        "pid": os.getpid(),
        "child": child.pid if child else None,
        "arguments": arguments,
        "environment": {name: os.environ[name] for name in (*TORCHRUN, "CUDA_VISIBLE_DEVICES") if name in os.environ},
    }
    aside = job.with_name(f".told-{rank}.json")
    aside.write_text(json.dumps(told))
    aside.replace(job.with_name(f"told-{rank}.json"))
    if act == "hold":
        hold(arguments, job.with_name(f"held-{rank}"))
    if act in {"leave", "deaf", "plain"}:
        while True:
            threading.Event().wait()
    if act == "reason":
        job.with_name("reason.txt" if rank == "0" else f"reason-{rank}.txt").write_text(f"rank {rank} says why.")
    return {"done": 0, "parent": 0, "fail": 3, "reason": 2}[act]


def hold(arguments: list[str], mark: Path) -> None:
    """Lease the devices from the node's agent; leave in order when told to, or when the parent is gone."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    parser = argparse.ArgumentParser()
    for name in ("--home", "--agent", "--device"):
        parser.add_argument(name)
    for name in ("--attempt", lifeline.FLAG):
        parser.add_argument(name, type=int)
    found = parser.parse_args(arguments)
    lifeline.watch(found.lifeline_fd, lambda: os.kill(os.getpid(), signal.SIGTERM))
    job_id, rank = mark.parent.parent.name, int(os.environ.get("RANK", "0"))
    leased: dict[str, Any] = {"job_id": job_id, "attempt": found.attempt, "devices": [found.device], "rank": rank}
    with (
        AgentConnection(Path(found.agent)) as agent,
        HeldLease(agent, cpus=0.5, phase=Phase.LOAD, power=Power(), **leased),
    ):
        mark.touch()
        while True:
            threading.Event().wait()


def hear(number: int, frame: FrameType | None) -> None:
    print("heard", signal.Signals(number).name, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
