"""What a part of an attempt runs in tests, in place of an attempt: ``python -m tests.rank_program job.json …``.

The job file tells each rank what to do: ``{"0": "leave", "1": "fail"}``. It writes down what it was told beside it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def main(job: Path, arguments: list[str]) -> int:
    rank = os.environ.get("RANK", "0")
    act = json.loads(job.read_text())[rank]
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
    if act in {"leave", "deaf", "plain"}:
        while True:
            threading.Event().wait()
    if act == "reason":
        job.with_name("reason.txt" if rank == "0" else f"reason-{rank}.txt").write_text(f"rank {rank} says why.")
    return {"done": 0, "parent": 0, "fail": 3, "reason": 2}[act]


def hear(number: int, frame: FrameType | None) -> None:
    print("heard", signal.Signals(number).name, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
